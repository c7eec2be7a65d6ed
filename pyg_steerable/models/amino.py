"""The networks for amino acids of the 3D Steerable CNNs paper."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from ..nn import LatticeAvgPool, LatticeBlock
from ..nn.field import Grid
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .voxels import VoxelNet, plain_conv, probability, width

#: Voxels along an axis.
MAX_SIZE = 2**10


class _OnCubes(VoxelNet):
    """Features of voxels, and dense layers that see all of what is left, so
    that no group leaves the logits alone.
    """
    def __init__(self, in_channels: int, size: int, features: list, dim: int,
                 hidden: int, num_classes: int, dropout: float):
        size = checks.integer('size', size, 1, MAX_SIZE)
        hidden = width('hidden', hidden)
        num_classes = width('num_classes', num_classes)
        dropout = probability('dropout', dropout)
        left = (((size - 1) // 2 + 1) - 4 - 1) // 2 - 6
        if left < 1:
            raise ValueError(f"Expected 'size' to be at least 37, so that "
                             f"the last convolution has voxels left (got "
                             f"{size})")
        layers: list[torch.nn.Module] = [torch.nn.Flatten()]
        numbers = dim * left**3
        checks.memory('the dense layers', 4 * numbers * hidden,
                      "Take a smaller 'size', or fewer 'hidden' numbers")
        for _ in range(2):
            layers += [torch.nn.Linear(numbers, hidden), torch.nn.ReLU(),
                       torch.nn.Dropout(dropout)]
            numbers = hidden
        super().__init__(
            in_channels, num_classes, '1', torch.nn.Sequential(*features),
            torch.nn.Sequential(*layers,
                                torch.nn.Linear(numbers, num_classes)))
        self.size = size

    def forward(self, voxels: Tensor) -> Tensor:
        checks.tensor('voxels', voxels, (
            *checks.FLOATING, *checks.INTEGERS, torch.bool),
            'a tensor of voxels')
        if voxels.shape[2:] != 3 * (self.size, ):
            raise ValueError(f"Expected 'voxels' of size {self.size} along "
                             f"each axis (got {list(voxels.shape)}). Build "
                             f"the network with their 'size'")
        return super().forward(voxels)

    def grid_after(self, grid: Grid) -> Grid | None:
        return grid if grid == 3 * (self.size, ) else None


class AminoAcidNet(_OnCubes):
    r"""The network of `"3D Steerable CNNs: Learning Rotationally Equivariant
    Features in Volumetric Data" <https://arxiv.org/abs/1807.02547>`_,
    section 5.4, that tells an amino acid from the atoms around it: four
    gated convolutions and average pooling, as many *fields* in each as the
    conventional baseline has channels, and three dense layers. It has
    32,588,981 parameters, all but 36,000 of them in the dense layers.

    The dense layers see the grid as it stands: :obj:`model.features` is
    equivariant, the logits are not invariant. Surroundings come in the frame
    of their residue, see
    :class:`~pyg_steerable.datasets.AminoAcidEnvironments`.

    .. code-block:: python

        model = AminoAcidNet()
        logits = model(torch.rand(25, 2, 48, 48, 48))

    Args:
        num_classes (int, optional): The amino acids, and one for unknown
            ones. (default: :obj:`21`)
        in_channels (int, optional): Scalars of each voxel, mass and charge.
            (default: :obj:`2`)
        size (int, optional): Voxels along each axis. (default: :obj:`48`)
        channels (list[int], optional): Copies of :math:`0 \oplus \ldots
            \oplus L` of each convolution.
            (default: :obj:`(4, 8, 16, 32)`)
        max_degree (int, optional): :math:`L`. (default: :obj:`3`)
        hidden (int, optional): The width of the dense layers.
            (default: :obj:`2048`)
        dropout (float, optional): In the dense layers.
            (default: :obj:`0.5`)
        group (Group or str, optional): (default: :obj:`"SO(3)"`)

    Shapes:
        - **input:** voxels :math:`(B, C, S, S, S)`
        - **output:** logits :math:`(B, N)`

    Raises:
        ValueError: If there are not four :obj:`channels`, or voxels are too
            few or of another size.
    """
    def __init__(self, num_classes: int = 21, in_channels: int = 2, *,
                 size: int = 48, channels: Sequence[int] = (4, 8, 16, 32),
                 max_degree: int = 3, hidden: int = 2048,
                 dropout: float = 0.5, group: Group | str = 'SO(3)'):
        in_channels = width('in_channels', in_channels)
        channels = checks.integers('channels', channels, 4)
        types = [FieldType([(in_channels, '0e')], group)]
        types += [FieldType.sphere(c, max_degree, group) for c in channels]
        super().__init__(in_channels, size, [
            LatticeBlock(types[0], types[1], 5, stride=2, padding=2),
            LatticeAvgPool(3, 1, padding=0),
            LatticeBlock(types[1], types[2], 3, padding=0),
            LatticeAvgPool(3, 2, padding=0),
            LatticeBlock(types[2], types[3], 3, padding=0),
            LatticeAvgPool(3, 1, padding=0),
            LatticeBlock(types[3], types[4], 3, padding=0),
            LatticeAvgPool(3, 1, padding=1),
        ], types[4].dim, hidden, num_classes, dropout)


class AminoAcidCNN(_OnCubes):
    r"""The conventional network beside :class:`AminoAcidNet`, which the
    paper takes from "Spherical Convolutions and their Application in
    Molecular Modelling" (Boomsma and Frellsen, 2017): convolutions with
    biases and ReLU, average pooling and three dense layers. It has
    61,159,077 parameters.

    The number of parameters is all that the paper gives; it takes grids of
    57 to 60 voxels. Weights start as PyTorch's do, not from a normal
    distribution of deviation 0.1.

    Args:
        num_classes (int, optional): (default: :obj:`21`)
        in_channels (int, optional): (default: :obj:`2`)
        size (int, optional): Voxels along each axis. (default: :obj:`60`)
        channels (list[int], optional): Of each convolution.
            (default: :obj:`(16, 32, 64, 128)`)
        hidden, dropout: See :class:`AminoAcidNet`.

    Shapes:
        - **input:** voxels :math:`(B, C, S, S, S)`
        - **output:** logits :math:`(B, N)`

    Raises:
        ValueError: See :class:`AminoAcidNet`.
    """
    def __init__(self, num_classes: int = 21, in_channels: int = 2, *,
                 size: int = 60, channels: Sequence[int] = (16, 32, 64, 128),
                 hidden: int = 2048, dropout: float = 0.5):
        in_channels = width('in_channels', in_channels)
        channels = checks.integers('channels', channels, 4)

        def block(i, kernel_size=3, **kwargs):
            widths = [in_channels, *channels]
            return [plain_conv(*widths[i:i + 2], kernel_size, **kwargs),
                    torch.nn.ReLU()]

        super().__init__(in_channels, size, [
            *block(0, 5, stride=2, padding=2), LatticeAvgPool(3, 1, 0),
            *block(1), LatticeAvgPool(3, 2, 0),
            *block(2), LatticeAvgPool(3, 1, 0),
            *block(3), LatticeAvgPool(3, 1, 1),
        ], channels[3], hidden, num_classes, dropout)
