"""Layers of the last dimension along another one."""
from __future__ import annotations

import torch
from torch import Tensor

from ..field import FieldModule


class OnAxis(FieldModule):
    """A layer of the last dimension, applied to another one."""
    def __init__(self, layer: torch.nn.Module, axis: int):
        super().__init__()
        self.layer = layer
        self.channel_axis = axis
        if isinstance(layer, FieldModule) and layer.in_type is not None:
            self.set_types(layer.in_type, layer.out_type)

    def reset_parameters(self):
        """Resets those of the layer."""
        reset = getattr(self.layer, 'reset_parameters', None)
        if reset is not None:
            reset()

    def forward(self, x: Tensor) -> Tensor:
        axis = self.channel_axis
        return self.layer(x.movedim(axis, -1)).movedim(-1, axis)


def on_axis(layer: torch.nn.Module, axis: int) -> torch.nn.Module:
    """The layer for fields along an axis: itself, if they lie there."""
    if isinstance(layer, FieldModule) and layer.channel_axis == axis:
        return layer
    return OnAxis(layer, axis)
