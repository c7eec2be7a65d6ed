import numpy as np
import pytest
import torch
from helpers.datasets_voxels import CUBE, write
from torch_geometric.loader import DataLoader

from pyg_steerable.datasets import (
    VoxelGrids,
    load_voxels,
    rotate_voxels,
)
from pyg_steerable.graph import VoxelToGraph


def turn(angle=0.5):
    c, s = np.cos(angle), np.sin(angle)
    return torch.tensor([[c, -s, 0.], [s, c, 0.], [0., 0., 1.]])


def test_rotation_of_one_voxel():
    """Axes of voxels are z, y, x; matrices act on x, y, z."""
    grid = torch.zeros(2, 5, 5, 5)
    grid[:, 2, 3, 4] = 1  # at x = 2, y = 1, z = 0 from the centre
    out = rotate_voxels(grid, turn(np.pi / 2))  # to x = -1, y = 2
    assert out[1].nonzero().tolist() == [[2, 4, 1]]
    assert out.sum() == 2


def test_interpolation_agrees_with_the_cube():
    grid = torch.rand(1, 6, 6, 6, dtype=torch.float64)
    exact, near = (rotate_voxels(grid, turn(np.pi / 2 + e)) for e in (0, 1e-5))
    assert near.dtype == torch.float64 and not torch.equal(near, exact)
    inside = (slice(None), ) + 3 * (slice(1, -1), )
    assert torch.allclose(near[inside], exact[inside], atol=1e-3)


def test_rotations_compose():
    grid = torch.rand(1, 4, 4, 4)
    for a, b in zip(CUBE[::5], CUBE[1::3]):
        both = rotate_voxels(rotate_voxels(grid, b), a)
        assert torch.equal(both, rotate_voxels(grid, a @ b))


def test_bad_rotations():
    with pytest.raises(ValueError, match='S, S, S.*4, 5, 4'):
        rotate_voxels(torch.zeros(1, 4, 5, 4), turn())
    with pytest.raises(ValueError, match='orthogonal'):
        rotate_voxels(torch.zeros(4, 4, 4), 2 * turn())


def packed(n=4, size=10):
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 2, (n, size, size, size)).astype(np.uint8)
    return grids, dict(train=np.packbits(grids, axis=-1),
                       train_label=np.arange(n, dtype=np.uint8),
                       test=np.packbits(grids[:2], axis=-1),
                       test_label=np.array([9, 0], dtype=np.uint8))


def test_modelnet(tmp_path):
    grids, arrays = packed()
    path = write(tmp_path / 'v.npz', **arrays)
    train, test = load_voxels(path), load_voxels(path, 'test')
    assert str(train) == 'VoxelGrids(4 grids of [1, 10, 10, 10], 10 classes)'
    assert test.classes[test[0].y] == 'toilet'
    assert train.counts().tolist() == 4 * [1] + 6 * [0]
    item = train[3].voxels
    assert item.dtype == torch.float32
    # File: x, y, z. Voxels: z, y, x.
    assert item[0, 1, 2, 3] == grids[3, 3, 2, 1]
    assert torch.equal(item[0], torch.from_numpy(grids[3]).float().permute(
        2, 1, 0))
    item.zero_()
    assert train[3].voxels.sum() == grids[3].sum()
    batch = next(iter(DataLoader(train, 3)))
    assert batch.voxels.shape == (3, 1, 10, 10, 10)
    assert batch.y.tolist() == [0, 1, 2]
    graph = train.subset([2], VoxelToGraph(3, occupied=True))[0]
    assert len(graph.coord) == grids[2].sum() and graph.y == 2


@pytest.mark.parametrize('change, match', [
    (dict(train=None), "no .'train'"),
    (dict(train_label=None), "no .'train_label'"),
    (dict(train=np.zeros((4, 10, 10, 4), np.uint8)), 'bits of cubes'),
    (dict(train=np.zeros((4, 10, 10, 2))), 'float64'),
    (dict(train=np.zeros((4, 0, 0, 0), np.uint8)), 'bits of cubes'),
    (dict(train_label=np.zeros(3, int)), "'label' of shape .4"),
    (dict(train_label=np.array([0, 1, 2, 10])), 'got 10.*10 classes'),
])
def test_bad_modelnet(tmp_path, change, match):
    path = write(tmp_path / 'v.npz', **packed()[1] | change)
    with pytest.raises(ValueError, match=match) as error:
        load_voxels(path)
    assert path in str(error.value)


def test_bad_grids(tmp_path):
    voxels = torch.zeros(3, 1, 4, 4, 4)
    voxels[1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='grid 1'):
        VoxelGrids(voxels, torch.zeros(3), ['a'])
    with pytest.raises(ValueError, match='C, D, H, W'):
        VoxelGrids(voxels[0], torch.zeros(1), ['a'])
    with pytest.raises(ValueError, match="'validation'"):
        load_voxels(str(tmp_path / 'v.npz'), 'validation')
    with pytest.raises(FileNotFoundError, match='v.npz'):
        load_voxels(str(tmp_path / 'v.npz'))
