"""Data sets are PyG's: parts, shuffling, copies, as of a PyG data set that
holds the same items.
"""
import copy
import pickle

import numpy as np
import pytest
import torch
from torch_geometric.data import InMemoryDataset
from torch_geometric.loader import DataLoader

import pyg_steerable.datasets as datasets
from pyg_steerable.datasets import (
    AminoAcidEnvironments,
    CathDomains,
    PointClouds,
    Shrec17Meshes,
    VoxelGrids,
)
from pyg_steerable.datasets.base import LabelledDataset

N = 7
ATOM = ('ATOM  {:5d}  {:<3s} {} A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00'
        '           {}\n')


def points(folder, label):
    return PointClouds(torch.randn(N, 5, 3), label, ['a', 'b', 'c', 'd'])


def voxels(folder, label):
    return VoxelGrids(torch.rand(N, 2, 3, 4, 5) > 0.5, label,
                      ['a', 'b', 'c', 'd'])


def domains(folder, label):
    sizes = torch.randint(1, 6, (N, )).tolist()
    return CathDomains([torch.randn(n, 3) for n in sizes],
                       [torch.randint(2, (n, )) for n in sizes], label,
                       ['C', 'N'], ['a', 'b', 'c', 'd'])


def meshes(folder, label):
    (folder / 'train_perturbed').mkdir()
    for i in range(N):
        text = ''.join('v {} {} {}\n'.format(*p) for p in
                       torch.rand(3 + i, 3).tolist())
        (folder / 'train_perturbed' / f'm{i}.obj').write_text(
            text + 'f 1 2 3\n')
    (folder / 'train.csv').write_text('id,synsetId\n' + ''.join(
        f'm{i},{"abcd"[k]}\n' for i, k in enumerate(label.tolist())))
    return Shrec17Meshes(folder, classes=['a', 'b', 'c', 'd'])


def residues(folder, label):
    pytest.importorskip('gemmi')
    paths, kinds = [], ['ALA', 'GLY', 'SER', 'VAL']
    for start, stop in ((0, 4), (4, N)):
        lines = [ATOM.format(1, name, kinds[label[i]], i + 1, *(
            torch.randn(3) + 3 * i).tolist(), name[0])
            for i in range(start, stop) for name in ('N', 'CA', 'C')]
        paths.append(folder / f'{start}.pdb')
        paths[-1].write_text(''.join(lines))
    return AminoAcidEnvironments(paths)


MAKERS = [points, voxels, domains, meshes, residues]


class Reference(InMemoryDataset):
    """PyG's own, of the same items."""
    def __init__(self, items):
        super().__init__()
        self._data, self.slices = self.collate(items)


@pytest.fixture(params=MAKERS, ids=lambda f: f.__name__)
def pair(request, tmp_path):
    label = torch.cat([torch.arange(4), torch.randint(4, (N - 4, ))])
    data = request.param(tmp_path, label)
    return data, Reference(list(data))


def same(a, b):
    assert type(a) is type(b) and set(a.keys()) == set(b.keys())
    assert all(torch.equal(a[key], b[key]) for key in a.keys())


def same_items(part, reference):
    assert len(part) == len(reference)
    for a, b in zip(part, reference, strict=True):
        same(a, b)
    assert torch.equal(part.y, reference.y)


INDICES = {
    'all': slice(None), 'some': slice(2, 5), 'step': slice(None, None, 2),
    'back': slice(None, None, -1), 'share': slice(None, 0.6),
    'list': [5, 0, 0], 'tuple': (1, 2), 'range': range(1, 4),
    'tensor': torch.tensor([3, 6]), 'column': torch.tensor([[3], [6]]),
    'mask': torch.arange(N) % 2 == 0, 'array': np.array([6, 2]),
    'numpy mask': np.arange(N) > 3, 'negative': [-1, -N],
}


@pytest.mark.parametrize('kind', INDICES)
def test_parts(pair, kind):
    data, reference = pair
    index = INDICES[kind]
    part = data[index]
    assert type(part) is type(data)
    same_items(part, reference[index])
    same_items(data.index_select(index), reference[index])
    assert part.num_classes == data.num_classes == len(data.classes)
    assert torch.equal(part.counts(), part.y.bincount(
        minlength=part.num_classes))
    same_items(part[1:], reference[index][1:])  # a part of a part
    assert f'{len(part)} ' in str(part)


def test_parts_narrow_all_attributes(tmp_path):
    label = torch.arange(N) % 4
    clouds, grids, proteins = (f(tmp_path, label) for f in (
        points, voxels, domains))
    assert torch.equal(clouds[2:].points, clouds.points[2:])
    assert torch.equal(grids[[4]].voxels, grids.voxels[[4]])
    assert len(proteins[:2].pos) == len(proteins[:2].kind) == 2
    assert torch.equal(proteins[3:].pos[0], proteins.pos[3])
    assert meshes(tmp_path, label)[[3, 1]].names == ['m3', 'm1']
    assert residues(tmp_path, label)[2:5].protein.tolist() == [0, 0, 1]


def test_numbers(pair):
    data, reference = pair
    for i in (0, 3, -1, -N, np.int64(2), torch.tensor(4), np.array(5)):
        same(data[i], reference[int(i)])
    for i in (N, -N - 1, [N], [0, -N - 1], torch.ones(N + 1).bool()):
        with pytest.raises(IndexError, match="'index'"):
            data[i]
    with pytest.raises(ValueError, match="'index'"):
        data.subset([N])
    for i in ('a', 1.5, None, [0.5]):
        with pytest.raises(TypeError, match="'index'"):
            data[i]
    assert len(data[[]]) == 0 == data[[]].counts().sum()


def test_shuffle(pair):
    data, reference = pair
    shuffled, order = data.shuffle(return_perm=True)
    same_items(shuffled, reference[order])
    assert sorted(order.tolist()) == list(range(N))


def test_transform(pair):
    data, _ = pair
    data.transform = lambda item: item.y + 1
    assert torch.equal(torch.cat(list(data[2:])), data.y[2:] + 1)
    part = data.subset([4, 1], lambda item: -item.y)
    assert torch.equal(torch.cat(list(part)), -data.y[[4, 1]])
    assert isinstance(data.subset([4])[0].y, torch.Tensor)
    same(data.subset([4])[0], data.get(4))
    with pytest.raises(TypeError, match="'transform'"):
        data.subset([1], 3)


def test_items_are_copies(pair):
    """A transform may write to what it gets."""
    data, reference = pair
    item = data[2]
    for key in item.keys():
        item[key].zero_()
    same(data[2], reference[2])


def test_copies(pair):
    data, reference = pair
    part = data[[5, 2]]
    for made in (part.copy(), data.copy([5, 2]), copy.copy(part),
                 copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        same_items(made, reference[[5, 2]])
    own = part.copy()
    assert own.len() == 2 and part.len() == N  # what is stored
    own.label.zero_()
    same_items(part, reference[[5, 2]])


def test_loaders(pair):
    data, reference = pair
    for batch, other in zip(DataLoader(data[1:], 4),
                            DataLoader(reference[1:], 4), strict=True):
        assert torch.equal(batch.y, other.y)
        if 'pos' in batch:
            assert torch.equal(batch.pos, other.pos)
    assert data.num_features == reference.num_features
    assert data.num_node_features == reference.num_node_features


def test_every_data_set_with_classes_is_one():
    found = {name for name in datasets.__all__ if isinstance(
        getattr(datasets, name), type) and issubclass(
            getattr(datasets, name), torch.utils.data.Dataset)}
    without = {'QM9Molecules', 'NBodyTrajectories', 'RMD17Frames'}
    assert found == {'AminoAcidEnvironments', 'CathDomains', 'PointClouds',
                     'Shrec17Meshes', 'VoxelGrids'} | without
    assert all(issubclass(getattr(datasets, name), LabelledDataset)
               for name in found - without)


class Letters(LabelledDataset):
    """All that a new data set has to say."""
    def __init__(self, transform=None):
        super().__init__(torch.arange(3), ['a', 'b', 'c'], transform,
                         size=[2, 3, 4])

    def get(self, idx):
        from torch_geometric.data import Data
        return Data(x=torch.ones(self._entry('size', idx), 1),
                    y=self._entry('label', idx).view(1))


def test_a_new_one():
    data = Letters()
    assert [item.num_nodes for item in data[1:]] == [3, 4]
    assert str(data) == 'Letters(3)' and data.num_classes == 3
