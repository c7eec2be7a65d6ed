"""The network for amino acids of the 3D Steerable CNNs paper."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from ..fields import FieldType
from ..groups import Group
from ..nn import LatticeAvgPool, LatticeBlock


class AminoAcidNet(torch.nn.Sequential):
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
        if len(channels) != 4:
            raise ValueError(f"Expected 'channels' to be four numbers (got "
                             f"{channels})")
        types = [FieldType([(in_channels, '0e')], group)]
        types += [FieldType.sphere(c, max_degree, group) for c in channels]
        features = torch.nn.Sequential(
            LatticeBlock(types[0], types[1], 5, stride=2, padding=2),
            LatticeAvgPool(3, 1, padding=0),
            LatticeBlock(types[1], types[2], 3, padding=0),
            LatticeAvgPool(3, 2, padding=0),
            LatticeBlock(types[2], types[3], 3, padding=0),
            LatticeAvgPool(3, 1, padding=0),
            LatticeBlock(types[3], types[4], 3, padding=0),
            LatticeAvgPool(3, 1, padding=1),
        )
        left = (((size - 1) // 2 + 1) - 4 - 1) // 2 - 6
        if left < 1:
            raise ValueError(f"Expected 'size' to be at least 37, so that "
                             f"the last convolution has voxels left (got "
                             f"{size})")
        layers, width = [torch.nn.Flatten()], types[4].dim * left**3
        for _ in range(2):
            layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU(),
                       torch.nn.Dropout(dropout)]
            width = hidden
        super().__init__(OrderedDict(
            features=features,
            head=torch.nn.Sequential(*layers,
                                     torch.nn.Linear(width, num_classes))))
        self.size = size

    def forward(self, voxels: Tensor) -> Tensor:
        if voxels.shape[2:] != 3 * (self.size, ):
            raise ValueError(f"Expected 'voxels' of size {self.size} along "
                             f"each axis (got {list(voxels.shape)}). Build "
                             f"the network with their 'size'")
        return super().forward(voxels)
