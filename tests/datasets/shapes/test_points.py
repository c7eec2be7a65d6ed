import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_steerable.datasets import PointClouds, generate_shapes, load_points


def arrays(n=6, p=10):
    rng = np.random.default_rng()
    return dict(points=rng.integers(-9, 9, (n, p, 3)).astype(np.int16),
                label=np.arange(n).astype(np.int16) % 3,
                scale=np.float32(0.5), classes=np.array(['a', 'b', 'c']))


def write(path, **values):
    np.savez(path, **values)
    return str(path)


def test_file(tmp_path):
    values = arrays()
    clouds = load_points(write(tmp_path / 'p.npz', **values))
    assert torch.equal(clouds.points,
                       torch.from_numpy(values['points'] * np.float32(0.5)))
    assert clouds.classes == ['a', 'b', 'c']
    assert clouds.counts().tolist() == [2, 2, 2]
    assert torch.equal(clouds.y, clouds.label)
    assert str(clouds) == 'PointClouds(6 clouds of 10 points, 3 classes)'
    batch = next(iter(DataLoader(clouds, 4)))
    assert batch.pos.shape == (40, 3) and batch.y.tolist() == [0, 1, 2, 0]
    batch.pos.zero_()
    assert clouds[0].pos.abs().sum() > 0


def test_scale_and_classes_are_optional(tmp_path):
    values = arrays()
    del values['scale'], values['classes']
    clouds = load_points(write(tmp_path / 'p.npz', **values))
    assert clouds.classes == ['0', '1', '2']
    assert float(clouds.points.max()) == values['points'].max()


def test_subset_has_a_transform_of_its_own(tmp_path):
    clouds = load_points(write(tmp_path / 'p.npz', **arrays()))

    def flat(data):
        data.pos[:, 2] = 0
        return data

    part = clouds.subset([1, 3], flat)
    assert len(part) == 2 and part[1].y == clouds[3].y
    assert part[1].pos[:, 2].abs().sum() == 0
    assert torch.equal(part[1].pos[:, :2], clouds[3].pos[:, :2])


@pytest.mark.parametrize('change, match', [
    (dict(points=None), "no .'points'"),
    (dict(label=None), "no .'label'"),
    (dict(points=np.zeros((6, 10, 2))), 'shape .n, P, 3'),
    (dict(points=np.zeros((6, 0, 3))), 'neither'),
    (dict(label=np.zeros(5, int)), "'label' of shape .6"),
    (dict(label=np.array([0, 1, 2, 3, 0, 0])), 'got 3.*3 classes'),
    (dict(label=np.array([0, 1, 2, -1, 0, 0])), 'got -1'),
    (dict(points=np.full((6, 10, 3), np.nan)), 'cloud 0'),
    (dict(points=np.full((6, 10, 3), 'far')), "'points' to hold numbers"),
    (dict(label=np.full(6, 0.5)), "'label' to hold integers .got float64"),
    (dict(scale=np.ones(3)), "'scale' to be one number"),
    (dict(scale=np.array('big')), "'scale' to hold numbers"),
])
def test_bad_files(tmp_path, change, match):
    values = {k: v for k, v in (arrays() | change).items() if v is not None}
    path = write(tmp_path / 'p.npz', **values)
    with pytest.raises(ValueError, match=match) as error:
        load_points(path)
    assert path in str(error.value)


def test_damaged_files(tmp_path):
    path = tmp_path / 'p.npz'
    write(path, **arrays())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match='damaged'):
        load_points(str(path))
    with pytest.raises(FileNotFoundError, match='q.npz'):
        load_points(str(tmp_path / 'q.npz'))


def test_shapes():
    clouds = generate_shapes(40, 200, seed=3)
    assert clouds.points.shape == (40, 200, 3)
    assert clouds.counts().tolist() == [4] * 10
    assert clouds.points.isfinite().all()
    radius = clouds.points.norm(dim=-1).amax(1)
    assert torch.allclose(radius, torch.ones(40), atol=1e-5)
    same, other = (generate_shapes(40, 200, seed=s) for s in (3, 4))
    assert torch.equal(same.points, clouds.points)
    assert not torch.equal(other.points, clouds.points)


def test_points_spread_evenly():
    """The sides of a cylinder get their share of the points."""
    clouds = generate_shapes(3, 20000, seed=5)
    cylinder = clouds.points[2]
    height = cylinder[:, 2].max()
    radius = cylinder[:, :2].norm(dim=1).max()
    side = (cylinder[:, 2].abs() < 0.999 * height).float().mean()
    assert abs(float(side - 2 * height / (2 * height + radius))) < 0.02


def test_classes_must_fit():
    with pytest.raises(ValueError, match='got 1'):
        PointClouds(torch.zeros(1, 4, 3), torch.tensor([1]), ['only'])
