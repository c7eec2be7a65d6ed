"""Frames of molecular dynamics. The molecule here is made up."""
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import MD17
from torch_geometric.loader import DataLoader

from pyg_steerable.datasets import load_rmd17, split_rmd17
from pyg_steerable.datasets.archive import save_npz


def arrays(num=6):
    """Not of a molecule: random numbers."""
    rng = np.random.default_rng(0)
    return dict(nuclear_charges=np.array([8, 1, 1], np.uint8),
                coords=rng.normal(size=(num, 3, 3)),
                energies=-48000 + rng.normal(size=num),
                forces=rng.normal(size=(num, 3, 3)))


@pytest.fixture
def path(tmp_path):
    save_npz(str(tmp_path / 'water.npz'), arrays())
    return str(tmp_path / 'water.npz')


def test_items(path):
    dataset, raw = load_rmd17(path), arrays()
    assert len(dataset) == 6
    for i, data in enumerate(dataset):
        assert isinstance(data, Data) and data.z.tolist() == [8, 1, 1]
        assert data.z.dtype == torch.long and data.num_nodes == 3
        assert data.pos.dtype == data.force.dtype == torch.float32
        assert np.array_equal(data.pos, raw['coords'][i].astype('f4'))
        assert np.array_equal(data.force, raw['forces'][i].astype('f4'))
        assert data.energy.dtype == torch.float64
        assert data.energy.tolist() == [raw['energies'][i]]
    part = dataset[torch.tensor([4, 1])]
    batch = next(iter(DataLoader(part, 2)))
    assert batch.energy.tolist() == raw['energies'][[4, 1]].tolist()
    assert batch.batch.tolist() == [0, 0, 0, 1, 1, 1]
    twice = load_rmd17(path, transform=lambda d: Data(pos=2 * d.pos))
    assert torch.equal(twice[0].pos, 2 * dataset[0].pos)


def test_download(path, tmp_path, monkeypatch):
    """PyG's archive is put where PyG puts it, once."""
    calls = []

    def download(self):
        calls.append(self.revised_url)
        target = tmp_path / 'root' / 'raw' / 'rmd17' / 'npz_data'
        target.mkdir(parents=True)
        save_npz(str(target / 'rmd17_ethanol.npz'), arrays())

    monkeypatch.setattr(MD17, 'download', download)
    for _ in range(2):
        found = load_rmd17('ethanol', str(tmp_path / 'root'))
        assert torch.equal(found.pos, load_rmd17(path).pos)
    assert len(calls) == 1 and 'rmd17' in calls[0]


@pytest.mark.parametrize('change, words', [
    (dict(forces=None), "got no .'forces'"),
    (dict(nuclear_charges=np.array([8., 1, 1])), 'nuclear_charges.*float64'),
    (dict(nuclear_charges=np.array([8, 0, 1])), 'from 1 to 118.*got 0 to 8'),
    (dict(nuclear_charges=np.zeros(0, int)), 'one for each atom'),
    (dict(coords=np.zeros((0, 3, 3))), 'one frame or more'),
    (dict(coords=np.zeros((6, 4, 3))), r"'coords'.*\(6, 3, 3\)"),
    (dict(coords=np.full((6, 3, 3), np.nan)), "'coords' to be finite"),
    (dict(energies=np.zeros((6, 1))), r"'energies'.*\(6,\)"),
    (dict(energies=np.full(6, 'a')), "'energies' to be numbers"),
    (dict(forces=np.full((6, 3, 3), 1e300)), "'forces' to be finite"),
])
def test_wrong_files(tmp_path, change, words):
    name = str(tmp_path / 'a.npz')
    changed = {**arrays(), **change}
    save_npz(name, {k: v for k, v in changed.items() if v is not None})
    with pytest.raises(ValueError, match=f'a.npz: Expected.*{words}'):
        load_rmd17(name)


def test_wrong_sources(tmp_path, path):
    with pytest.raises(ValueError, match="one of aspirin.*got 'methane'"):
        load_rmd17('methane')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load_rmd17(str(tmp_path / 'b.npz'))
    with pytest.raises(TypeError, match="'transform'"):
        load_rmd17(path, transform=3)


def test_splits():
    split = split_rmd17(3000)
    assert [len(part) for part in split] == [950, 50, 1000]
    assert len(torch.cat(split).unique()) == 2000
    again, other = split_rmd17(3000), split_rmd17(3000, seed=1)
    assert torch.equal(split.test, again.test)
    assert not torch.equal(split.test, other.test)
    assert [len(p) for p in split_rmd17(10, 9, 1, 0)] == [9, 1, 0]
    with pytest.raises(ValueError, match='at most 10 frames.*got .9, 2, 0'):
        split_rmd17(10, 9, 2, 0)


