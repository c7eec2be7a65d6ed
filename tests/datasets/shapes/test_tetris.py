import pytest
import torch
from helpers.datasets_voxels import CUBE

from pyg_steerable import Group
from pyg_steerable.datasets import (
    TETRIS,
    tetris_points,
    tetris_voxels,
)


def test_tetris_shapes():
    grids = tetris_voxels(group='1')
    assert grids.voxels.shape == (8, 1, 36, 36, 36)
    assert grids.classes == list(TETRIS) and grids.label.tolist() == [*range(
        8)]
    assert (grids.voxels.sum((1, 2, 3, 4)) == 4 * 5**3).all()
    assert set(grids.voxels.unique().tolist()) == {0., 1.}
    line = grids[3].voxels[0].nonzero()
    assert line.amin(0).tolist() == [8, 8, 8]
    assert line.amax(0).tolist() == [27, 12, 12]  # along z


def test_mirror_images():
    """The two chiral shapes are mirror images and not rotations of each
    other; no two others are the same up to any symmetry of the cube."""
    def canonical(cells, group):
        cells = torch.tensor(cells, dtype=torch.float64)
        turned = [((c := cells @ R.T) - c.amin(0)).round().int().tolist()
                  for R in group]
        return min(sorted(map(tuple, cells)) for cells in turned)

    rotations = Group('O').elements
    for group, number in ((rotations, 8), (CUBE, 7)):
        kinds = {str(canonical(cells, group)) for cells in TETRIS.values()}
        assert len(kinds) == number
    assert canonical(TETRIS['chiral_1'], CUBE) == canonical(
        TETRIS['chiral_2'], CUBE)


@pytest.mark.parametrize('group', ['1', 'O'])
def test_tetris_points_are_the_voxels(group):
    """The same seed turns both alike."""
    points = tetris_points(3, group, seed=5)
    grids = tetris_voxels(3, group, seed=5, cell=1, pad=2)
    assert torch.equal(points.label, grids.label) and len(points) == 24
    for cloud, grid in zip(points, grids):
        coord = (cloud.pos.flip(-1) + 3.5).round().long()
        there = grid.voxels[0].nonzero()
        assert sorted(coord.tolist()) == there.tolist()


def test_tetris_rotations():
    grids = tetris_voxels(1, seed=1, cell=3, pad=5)
    mass = grids.voxels.sum((1, 2, 3, 4))
    assert torch.allclose(mass, torch.tensor(4. * 3**3), rtol=0.02)
    points = tetris_points(1, seed=1)
    line = torch.arange(22.) - 10.5
    for cloud, grid in zip(points, grids):
        # The centre of mass is that of the points.
        v = grid.voxels[0]
        mean = torch.stack([(v.sum((0, 1)) * line).sum(),
                            (v.sum((0, 2)) * line).sum(),
                            (v.sum((1, 2)) * line).sum()]) / v.sum()
        assert torch.allclose(mean, 3 * cloud.pos.mean(0), atol=0.1)
    same, other = (tetris_points(1, seed=s).points for s in (1, 2))
    assert torch.equal(same, points.points) and not torch.equal(same, other)


@pytest.mark.parametrize('kwargs, match', [
    (dict(group='O(3)'), 'reflection'),
    (dict(copies=0), "'copies'"),
    (dict(cell=0), "'cell'"),
    (dict(pad=-1), "'pad'"),
])
def test_bad_tetris(kwargs, match):
    with pytest.raises(ValueError, match=match):
        tetris_voxels(**kwargs)
