"""The networks for protein structures of the 3D Steerable CNNs paper."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..nn import LatticeAvgPool, LatticeBlock
from ..nn.chain import as_field_module
from ..nn.field import FieldModule, Grid
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .voxels import (
    PlainVoxelNet,
    VoxelNet,
    plain_conv,
    pooled_head,
    probability,
    width,
)

#: Of a stage: more are a mistake.
MAX_BLOCKS = 1000


class _Residual(torch.nn.Module):
    """The sum of two ways from the input to the output."""
    def __init__(self, layers: list, shortcut: list):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)
        self.shortcut = torch.nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.shortcut(x)


class _FieldResidual(_Residual, FieldModule):
    """That of layers that know their types."""
    channel_axis = 1

    def __init__(self, layers: list, shortcut: list):
        super().__init__(layers, shortcut)
        self.set_types(layers[0].in_type, layers[-1].out_type)

    def grid_after(self, grid: Grid) -> Grid | None:
        return as_field_module(self.layers).grid_after(grid)


class CathNet(VoxelNet):
    r"""The network of `"3D Steerable CNNs: Learning Rotationally Equivariant
    Features in Volumetric Data" <https://arxiv.org/abs/1807.02547>`_,
    section 5.5, for the CATH task: a gated convolution, four stages of
    residual blocks of two convolutions with batch norm, the mean over space
    and a linear layer. It has 143,560 parameters.

    Stages begin with average pooling, and there is no non-linearity after
    the sums, as in the paper's code. Turning the voxels by
    :math:`90^{\circ}` about an axis leaves the logits unchanged to rounding
    on grids of 17, 25, 33, ... voxels, where every stride fits the grid on
    both sides. The paper's, of 50, loses a voxel on one side.

    .. code-block:: python

        model = CathNet()
        logits = model(torch.rand(16, 1, 50, 50, 50))

    Args:
        num_classes (int, optional): (default: :obj:`10`)
        in_channels (int, optional): Scalars of each voxel, the kinds of
            atoms. (default: :obj:`1`)
        channels (list[int], optional): Copies of :math:`0 \oplus \ldots
            \oplus L` in each stage. (default: :obj:`(2, 4, 8, 16)`)
        blocks (list[int], optional): Residual blocks in each stage.
            (default: :obj:`(3, 4, 6, 3)`)
        max_degree (int, optional): :math:`L`. (default: :obj:`3`)
        invariants (int, optional): Scalars of the last convolution.
            (default: :obj:`256`)
        dropout (float, optional): For each field after each convolution.
            (default: :obj:`0.1`)
        momentum (float, optional): Of the batch norm.
            (default: :obj:`0.01`)
        group (Group or str, optional): (default: :obj:`"SO(3)"`)

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`
        - **output:** logits :math:`(B, N)`
    """
    def __init__(self, num_classes: int = 10, in_channels: int = 1, *,
                 channels: Sequence[int] = (2, 4, 8, 16),
                 blocks: Sequence[int] = (3, 4, 6, 3), max_degree: int = 3,
                 invariants: int = 256, dropout: float = 0.1,
                 momentum: float = 0.01, group: Group | str = 'SO(3)'):
        num_classes = width('num_classes', num_classes)
        in_channels = width('in_channels', in_channels)
        invariants = width('invariants', invariants)
        channels, blocks = _stages(channels, blocks)
        options: dict[str, Any] = dict(
            norm=True, normalization='norm', momentum=momentum,
            dropout=probability('dropout', dropout))

        def residual(in_type, hidden, out_type, stride):
            pool = [LatticeAvgPool(3, stride)] if stride > 1 else []
            layers = [
                LatticeBlock(in_type, hidden, 3, **options), *pool,
                LatticeBlock(hidden, out_type, 3, activation=None, **options)
            ]
            if in_type == out_type and not pool:
                return _FieldResidual(layers, [])
            return _FieldResidual(layers, [
                LatticeBlock(in_type, out_type, 3, activation=None,
                             **options), *pool
            ])

        steps = _steps(channels, blocks)
        here = FieldType.sphere(channels[0], max_degree, group)
        layers = [LatticeBlock(FieldType([(in_channels, '0e')], group), here,
                               7, **options)]
        for i, (_, channel, stride) in enumerate(steps, 1):
            hidden = FieldType.sphere(channel, max_degree, group)
            there = (FieldType([(invariants, '0e')], group)
                     if i == len(steps) else hidden)
            layers.append(residual(here, hidden, there, stride))
            here = there
        super().__init__(in_channels, num_classes, group,
                         torch.nn.Sequential(*layers),
                         pooled_head(invariants, num_classes))


class CathCNN(PlainVoxelNet):
    r"""The conventional network beside :class:`CathNet`: a ResNet-34 with
    half the channels, batch norm before each convolution, and strides. It
    has 15,878,764 parameters.

    Args:
        num_classes (int, optional): (default: :obj:`10`)
        in_channels (int, optional): (default: :obj:`1`)
        channels (list[int], optional): Of each stage.
            (default: :obj:`(32, 64, 128, 256)`)
        blocks (list[int], optional): Residual blocks in each stage.
            (default: :obj:`(3, 4, 6, 3)`)
        dropout (float, optional): For each channel after each convolution.
            (default: :obj:`0.01`)

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`
        - **output:** logits :math:`(B, N)`
    """
    def __init__(self, num_classes: int = 10, in_channels: int = 1, *,
                 channels: Sequence[int] = (32, 64, 128, 256),
                 blocks: Sequence[int] = (3, 4, 6, 3),
                 dropout: float = 0.01):
        num_classes = width('num_classes', num_classes)
        in_channels = width('in_channels', in_channels)
        channels, blocks = _stages(channels, blocks)
        dropout = probability('dropout', dropout)

        def conv(before, after, size, stride=1):
            layer = plain_conv(before, after, size, stride, size // 2,
                               bias=False)
            torch.nn.init.xavier_normal_(layer.weight)
            return [torch.nn.BatchNorm3d(before), layer,
                    torch.nn.Dropout3d(dropout)]

        layers = [*conv(in_channels, channels[0], 7), torch.nn.ReLU()]
        for before, after, stride in _steps(channels, blocks):
            same = before == after and stride == 1
            layers.append(_Residual(
                [*conv(before, after, 3, stride), torch.nn.ReLU(),
                 *conv(after, after, 3)],
                [] if same else conv(before, after, 1, stride)))
            layers.append(torch.nn.ReLU())
        super().__init__(in_channels, num_classes,
                         torch.nn.Sequential(*layers),
                         pooled_head(channels[-1], num_classes))


def _stages(channels, blocks) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The channels and the residual blocks of each stage."""
    channels = checks.integers('channels', channels)
    return channels, checks.integers('blocks', blocks, len(channels),
                                     most=MAX_BLOCKS)


def _steps(channels: Sequence[int], blocks: Sequence[int]
           ) -> list[tuple[int, int, int]]:
    """The channels before and in each block, and its stride: each stage but
    the first halves the grid.
    """
    widths = [c for c, n in zip(channels, blocks) for _ in range(n)]
    starts = {sum(blocks[:i]) for i in range(1, len(blocks))}
    return [(before, after, 2 if i in starts else 1)
            for i, (before, after) in enumerate(zip(widths[:1] + widths,
                                                    widths))]
