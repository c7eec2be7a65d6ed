"""What the networks on voxels share."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from ..nn import LatticeGlobalPool

#: Channels, classes or hidden numbers: more are a mistake.
MAX_WIDTH = 2**16


class VoxelNet(torch.nn.Sequential):
    """Features of voxels, and a head that makes logits of them.

    Voxels of any floating or whole numbers are taken in the dtype of the
    weights.
    """
    def __init__(self, in_channels: int, features: torch.nn.Module,
                 head: torch.nn.Module):
        super().__init__(OrderedDict(features=features, head=head))
        self.in_channels = in_channels

    def forward(self, voxels: Tensor) -> Tensor:
        checks.tensor('voxels', voxels, (
            *checks.FLOATING, *checks.INTEGERS, torch.bool),
            'a tensor of voxels')
        checks.shaped('voxels', voxels, (None, self.in_channels, None, None,
                                         None),
                      f'[B, {self.in_channels}, D, H, W]')
        weight = self.head[-1].weight
        checks.same_device(voxels=voxels, weights=weight)
        return super().forward(voxels.to(weight.dtype))


def width(name: str, value) -> int:
    """A number of channels, classes or hidden numbers."""
    return checks.integer(name, value, 1, MAX_WIDTH)


def texts(name: str, values) -> tuple[str, ...]:
    """A sequence of field types in e3nn's notation."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"Expected '{name}' to be a sequence of strings "
                        f"(got {checks.show(values)})")
    return tuple(checks.text(name, value) for value in values)


def probability(name: str, value) -> float:
    """How often something is left out."""
    return checks.real(name, value, 0., below=1.)


def plain_conv(before: int, after: int, size: int, *args, **kwargs
               ) -> torch.nn.Conv3d:
    """A convolution of a bounded size."""
    checks.memory(f'a convolution from {before} to {after} channels',
                  4 * before * after * size**3, "Take fewer 'channels'")
    return torch.nn.Conv3d(before, after, size, *args, **kwargs)


def pooled_head(in_channels: int, num_classes: int,
                *between: torch.nn.Module) -> torch.nn.Sequential:
    """The mean over space and a linear layer."""
    return torch.nn.Sequential(LatticeGlobalPool(), *between,
                               torch.nn.Linear(in_channels, num_classes))
