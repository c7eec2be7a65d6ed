"""The networks for Tetris blocks of the 3D Steerable CNNs paper."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import checks
from ..nn import LatticeLowPass, lattice_stack
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .voxels import (
    PlainVoxelNet,
    VoxelNet,
    plain_conv,
    pooled_head,
    probability,
    texts,
    width,
)


class TetrisNet(VoxelNet):
    r"""The network of `"3D Steerable CNNs: Learning Rotationally Equivariant
    Features in Volumetric Data" <https://arxiv.org/abs/1807.02547>`_,
    section 5.1: a low-pass filter, four gated convolutions, the mean over
    space and a linear layer. It has 41,198 parameters.

    Turning the voxels by :math:`90^{\circ}` about an axis leaves the logits
    unchanged to rounding where every stride fits the grid on both sides:
    with the sizes here, on grids of 5, 9, 13, ... voxels. The paper's, of 36,
    loses a voxel on one side.

    .. code-block:: python

        model = TetrisNet()
        logits = model(torch.rand(8, 1, 36, 36, 36))

    Args:
        num_classes (int, optional): (default: :obj:`8`)
        in_channels (int, optional): Scalars of each voxel.
            (default: :obj:`1`)
        fields (list[str], optional): The fields between convolutions, in
            e3nn's notation. (default: the paper's)
        invariants (int, optional): Scalars of the last convolution.
            (default: :obj:`128`)
        strides (list[int], optional): Of each convolution.
            (default: :obj:`(1, 2, 2, 1)`)
        smooth (bool, optional): If set to :obj:`False`, convolutions are
            strided, without a low-pass filter before subsampling. That of
            the input stays. (default: :obj:`True`)
        dropout (float, optional): Before the linear layer.
            (default: :obj:`0.2`)
        norm (bool, optional): If set to :obj:`True`, each convolution
            normalises its input, which narrow networks need to learn at all.
            The paper's has no such norm. (default: :obj:`False`)
        group (Group or str, optional): (default: :obj:`"SO(3)"`)

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`
        - **output:** logits :math:`(B, N)`
    """
    def __init__(self, num_classes: int = 8, in_channels: int = 1, *,
                 fields: Sequence[str] = ('4x0e + 4x1o + 4x2e + 1x3o',
                                          '16x0e + 16x1o + 16x2e',
                                          '32x0e + 16x1o + 16x2e'),
                 invariants: int = 128, strides: Sequence[int] = (1, 2, 2, 1),
                 smooth: bool = True, dropout: float = 0.2,
                 norm: bool = False, group: Group | str = 'SO(3)'):
        num_classes = width('num_classes', num_classes)
        in_channels = width('in_channels', in_channels)
        invariants = width('invariants', invariants)
        fields = [f'{in_channels}x0e', *texts('fields', fields),
                  f'{invariants}x0e']
        super().__init__(
            in_channels, num_classes, group,
            torch.nn.Sequential(
                LatticeLowPass(2.),
                lattice_stack([FieldType(f, group) for f in fields],
                              checks.integers('strides', strides),
                              smooth=checks.flag('smooth', smooth),
                              padding=4, norm=checks.flag('norm', norm))),
            _head(invariants, num_classes, dropout))


class TetrisCNN(PlainVoxelNet):
    r"""The conventional network beside :class:`TetrisNet`: of the same form,
    with batch norm and ReLU. It has 6,221,832 parameters.

    Args:
        num_classes (int, optional): (default: :obj:`8`)
        in_channels (int, optional): (default: :obj:`1`)
        channels (list[int], optional): Of each convolution.
            (default: :obj:`(43, 144, 160, 128)`)
        strides, smooth, dropout: See :class:`TetrisNet`.

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`
        - **output:** logits :math:`(B, N)`
    """
    def __init__(self, num_classes: int = 8, in_channels: int = 1, *,
                 channels: Sequence[int] = (43, 144, 160, 128),
                 strides: Sequence[int] = (1, 2, 2, 1), smooth: bool = True,
                 dropout: float = 0.2):
        num_classes = width('num_classes', num_classes)
        in_channels = width('in_channels', in_channels)
        channels = checks.integers('channels', channels)
        strides = checks.integers('strides', strides, len(channels))
        smooth = checks.flag('smooth', smooth)
        layers: list[torch.nn.Module] = [LatticeLowPass(2.)]
        widths = [in_channels, *channels]
        for before, after, stride in zip(widths, channels, strides):
            layers += [
                plain_conv(before, after, 5, 1 if smooth else stride, 4),
                torch.nn.BatchNorm3d(after),
                torch.nn.ReLU(),
            ]
            if smooth and stride > 1:
                layers.append(LatticeLowPass(stride, stride))
        super().__init__(in_channels, num_classes,
                         torch.nn.Sequential(*layers),
                         _head(widths[-1], num_classes, dropout))


def _head(invariants: int, num_classes: int, dropout: float):
    dropout = probability('dropout', dropout)
    return pooled_head(invariants, num_classes, torch.nn.Dropout(dropout))
