"""What tests of models lattice share."""
from pyg_steerable import FieldType, Group
from pyg_steerable.models import (
    AminoAcidCNN,
    AminoAcidNet,
    CathCNN,
    CathNet,
    ShrecNet,
    TetrisCNN,
    TetrisNet,
)

ROTATIONS = Group('O').elements  # the cube's, 24
A = FieldType('2x0e + 1x1o + 1x2e', 'SO(3)')
B = FieldType('1x0e + 2x1o + 1x0e', 'SO(3)')
# Small variants, and grids that all strides fit on both sides.
NETS = {
    'tetris': (TetrisNet, 5, dict(fields=('2x0e + 1x1o', '1x0e + 1x2e + 1x3o',
                                          '2x0e + 1x1o'), invariants=4)),
    'tetris, rough': (TetrisNet, 5, dict(
        fields=('2x0e + 1x1o', ), invariants=4, strides=(2, 1),
        smooth=False)),
    'shrec': (ShrecNet, 13, dict(fields=('2x0e + 1x1o', '1x0e + 1x2e'),
                                 invariants=4, strides=(2, 2, 1))),
    'shrec, smooth': (ShrecNet, 5, dict(fields=('2x0e + 1x1o', ),
                                        invariants=4, strides=(2, 1),
                                        smooth=True)),
    'cath': (CathNet, 9, dict(channels=(1, 2), blocks=(2, 2), max_degree=2,
                              invariants=6)),
    'amino': (AminoAcidNet, 37, dict(size=37, channels=(1, 1, 2, 2),
                                     max_degree=1, hidden=8)),
    'tetris cnn': (TetrisCNN, 5, dict(channels=(2, 3, 4, 5))),
    'cath cnn': (CathCNN, 9, dict(channels=(2, 4), blocks=(2, 1))),
    'amino cnn': (AminoAcidCNN, 37, dict(size=37, channels=(3, 4, 5, 6),
                                         hidden=16)),
}


def turned(voxels, field_type, R):
    """Fields on a grid, turned about its centre."""
    voxels = field_type.act(voxels.movedim(1, -1), R).movedim(-1, 1)
    # Positions are (x, y, z), the axes of voxels z, y, x.
    P = R.flip(0, 1)
    voxels = voxels.permute(0, 1, *(2 + P.abs().argmax(dim=1)).tolist())
    return voxels.flip([2 + a for a in range(3) if P[a].sum() < 0])
