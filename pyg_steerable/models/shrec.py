"""The network for 3D shapes of the 3D Steerable CNNs paper."""
from __future__ import annotations

from collections.abc import Sequence

from .. import checks
from ..nn import lattice_stack
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .voxels import VoxelNet, pooled_head, texts, width


class ShrecNet(VoxelNet):
    r"""The network of `"3D Steerable CNNs: Learning Rotationally Equivariant
    Features in Volumetric Data" <https://arxiv.org/abs/1807.02547>`_,
    section 5.2, for the SHREC17 task: eight gated convolutions with batch
    norm, the mean over space and a linear layer. It has 142,617 parameters.

    Turning the voxels by :math:`90^{\circ}` about an axis leaves the logits
    unchanged to rounding where every stride fits the grid on both sides:
    with the sizes here, on grids of 13, 29, 45, 61, ... voxels. The paper's,
    of 64, loses voxels on one side.

    .. code-block:: python

        model = ShrecNet()
        logits = model(torch.rand(32, 1, 64, 64, 64))

    Args:
        num_classes (int, optional): (default: :obj:`55`)
        in_channels (int, optional): Scalars of each voxel.
            (default: :obj:`1`)
        fields (list[str], optional): The fields between convolutions, in
            e3nn's notation. (default: the paper's)
        invariants (int, optional): Scalars of the last convolution.
            (default: :obj:`512`)
        strides (list[int], optional): Of each convolution.
            (default: :obj:`(2, 1, 2, 1, 2, 1, 2, 1)`)
        smooth (bool, optional): If set to :obj:`True`, a low-pass filter
            comes before subsampling, as the paper advises and its code for
            this task leaves out. (default: :obj:`False`)
        group (Group or str, optional): (default: :obj:`"SO(3)"`)

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`
        - **output:** logits :math:`(B, N)`
    """
    def __init__(self, num_classes: int = 55, in_channels: int = 1, *,
                 fields: Sequence[str] = 2 * ('8x0e + 4x1o + 2x2e', ) +
                 2 * ('16x0e + 8x1o + 4x2e', ) +
                 3 * ('32x0e + 16x1o + 8x2e', ), invariants: int = 512,
                 strides: Sequence[int] = (2, 1, 2, 1, 2, 1, 2, 1),
                 smooth: bool = False, group: Group | str = 'SO(3)'):
        num_classes = width('num_classes', num_classes)
        in_channels = width('in_channels', in_channels)
        invariants = width('invariants', invariants)
        fields = [f'{in_channels}x0e', *texts('fields', fields),
                  f'{invariants}x0e']
        super().__init__(
            in_channels, num_classes, group,
            lattice_stack([FieldType(f, group) for f in fields],
                          checks.integers('strides', strides),
                          smooth=checks.flag('smooth', smooth), padding=4,
                          norm=True, normalization='norm'),
            pooled_head(invariants, num_classes))
