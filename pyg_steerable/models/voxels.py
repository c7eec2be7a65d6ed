"""What the networks on voxels share."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from .. import checks
from ..nn import LatticeGlobalPool
from ..nn.chain import Chain
from ..nn.field import Example, Grid
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group

#: Channels, classes or hidden numbers: more are a mistake.
MAX_WIDTH = 2**16
#: Voxels along an axis of the examples of plain networks.
_SIDE = 9


class VoxelNet(Chain):
    """Features of voxels, and a head that makes logits of them.

    Voxels of any floating or whole numbers are taken in the dtype of the
    weights. The group is the one that leaves the logits alone.
    """
    in_type: FieldType
    out_type: FieldType
    head: torch.nn.Sequential
    channel_axis = 1

    def __init__(self, in_channels: int, num_classes: int,
                 group: Group | str, features: torch.nn.Module,
                 head: torch.nn.Sequential):
        super().__init__(OrderedDict(features=features, head=head))
        self.in_channels = in_channels
        self.set_types(FieldType([(in_channels, '0e')], group),
                       FieldType([(num_classes, '0e')], group))

    def forward(self, voxels: Tensor) -> Tensor:
        checks.tensor('voxels', voxels, (
            *checks.FLOATING, *checks.INTEGERS, torch.bool),
            'a tensor of voxels')
        checks.shaped('voxels', voxels, (None, self.in_channels, None, None,
                                         None),
                      f'[B, {self.in_channels}, D, H, W]')
        weight = cast(torch.nn.Linear, self.head[-1]).weight
        checks.same_device(voxels=voxels, weights=weight)
        return super().forward(voxels.to(weight.dtype))

    def example(self, generator: torch.Generator) -> Example:
        """The smallest grid of which every stride keeps the centre."""
        return super().example(generator)._replace(
            out_types=(self.out_type, ))


class PlainVoxelNet(VoxelNet):
    """A network that no group leaves alone, to compare with."""
    def __init__(self, in_channels: int, num_classes: int,
                 features: torch.nn.Module, head: torch.nn.Sequential):
        super().__init__(in_channels, num_classes, '1', features, head)

    def grid_after(self, grid: Grid) -> Grid | None:
        return grid if min(grid) >= _SIDE else None


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
