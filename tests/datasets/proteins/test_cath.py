import numpy as np
import pytest
import torch
from helpers.datasets_voxels import write
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pyg_steerable.datasets import (
    GaussianDensities,
    load_cath,
)
from pyg_steerable.graph import RandomGroupElement


def cath(n=30):
    """Arrays in the published layout."""
    rng = np.random.default_rng(1)
    n_atoms = rng.integers(3, 9, n)
    used = np.arange(12) < n_atoms[:, None]
    positions = np.where(used[..., None], rng.normal(0, 9, (n, 12, 3)), 0.)
    return dict(
        n_atoms=n_atoms, positions=positions,
        atom_types=np.where(used, 'CA', '').astype('S10'),
        res_indices=np.where(used, np.arange(12.), -1),
        labels=np.array([[1, 10], [3, 40], [1, 20]])[rng.integers(0, 3, n)],
        split_start_indices=np.arange(10) * 3)


def test_cath(tmp_path):
    arrays = cath()
    path = write(tmp_path / 'c.npz', **arrays)
    parts = {s: load_cath(path, s) for s in ('train', 'valid', 'test')}
    assert [len(p) for p in parts.values()] == [21, 3, 6]
    joined = [data for part in parts.values() for data in part]
    for i, data in enumerate(joined):  # each domain in one split
        n = arrays['n_atoms'][i]
        assert np.array_equal(data.pos, arrays['positions'][i, :n].astype(
            np.float32))
        name = '.'.join(map(str, arrays['labels'][i]))
        assert parts['test'].classes[data.y] == name
        assert torch.equal(data.x, torch.ones(n, 1))
    assert parts['train'].classes == ['1.10', '1.20', '3.40']
    assert sum(p.counts() for p in parts.values()).sum() == 30
    assert str(parts['valid']) == 'CathDomains(3 domains, 3 classes)'


def test_cath_voxels(tmp_path):
    path = write(tmp_path / 'c.npz', **cath())
    grid = GaussianDensities()
    train = load_cath(path, 'train', Compose([RandomGroupElement('SO(3)'),
                                              grid]))
    a, b = train[0].voxels, train[0].voxels
    assert a.shape == (1, 50, 50, 50) and not torch.equal(a, b)
    plain = load_cath(path)[0]
    assert torch.allclose(a.sum(), torch.tensor(1. * len(plain.pos)))
    batch = next(iter(DataLoader(load_cath(path, 'valid', grid), 2)))
    assert batch.voxels.shape == (2, 1, 50, 50, 50)
    assert batch.y.shape == (2, )


def test_cath_with_all_atoms(tmp_path):
    arrays = cath()
    arrays['atom_types'][:, 1] = b'N'
    data = load_cath(write(tmp_path / 'c.npz', **arrays), 'test')
    assert data.atom_types == ['CA', 'N']
    assert torch.equal(data[0].x[:3], torch.eye(2)[[0, 1, 0]])


@pytest.mark.parametrize('change, match', [
    (dict(labels=None), "no .'labels'"),
    (dict(labels=np.zeros((29, 2))), "'labels' of shape .30"),
    (dict(positions=np.zeros((30, 12, 2))), "'positions' of shape"),
    (dict(positions=np.full((30, 12, 3), np.nan)), 'domain 0'),
    (dict(atom_types=np.full((30, 12), '', 'S10')), 'none in domain 0'),
    (dict(n_atoms=np.full(30, 13)), 'from 1 to 12 .got 13'),
    (dict(n_atoms=np.zeros(30, int)), 'from 1 to 12 .got 0'),
    (dict(split_start_indices=np.arange(9)), 'rising'),
    (dict(split_start_indices=np.arange(10)[::-1]), 'rising'),
    (dict(split_start_indices=np.arange(10) * 4), 'less than 30'),
])
def test_bad_cath(tmp_path, change, match):
    path = write(tmp_path / 'c.npz', **cath() | change)
    with pytest.raises(ValueError, match=match) as error:
        load_cath(path)
    assert path in str(error.value)
    with pytest.raises(ValueError, match="'all'"):
        load_cath(path, 'all')
