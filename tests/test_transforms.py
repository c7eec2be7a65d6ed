import copy

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.transforms import Compose

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.graph import (
    AnisotropicScale,
    Jitter,
    Normalise,
    RandomGroupElement,
    RandomPointSubset,
)

GROUPS = ['1', 'Inv', 'M', 'C4', 'D3', 'O', 'IxInv', 'SO(2)', 'SO(2)xM',
          'SO(2)xF', 'SO(2)xInv', 'SO(2)xMxInv', 'SO(3)', 'O(3)']
TYPE = '2x0e + 0o + 2x1o + 1e + 2e'
FIELDS = {'x': TYPE, 'edge_attr': '0o + 1o', 'y': '2e'}

TRANSFORMS = [
    RandomGroupElement('SO(2)'),
    RandomPointSubset(5),
    Jitter(),
    AnisotropicScale(),
    Normalise(),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_cloud(n=12):
    return Data(
        pos=torch.randn(n, 3, dtype=torch.float64),
        normal=torch.randn(n, 3, dtype=torch.float64),
        x=torch.randn(n, FieldType(TYPE).dim, dtype=torch.float64),
        y=torch.randn(1, 5, dtype=torch.float64),
        category=torch.tensor([3]),
        part=torch.arange(n),
    )


def random_graph(n=12):
    data = random_cloud(n)
    data.edge_index = torch.randint(n, (2, 30))
    data.edge_attr = torch.randn(30, 4, dtype=torch.float64)
    return data


def element(before, after):
    """The matrix that took positions to their new place."""
    return torch.linalg.lstsq(before.pos, after.pos).solution.T


@pytest.mark.parametrize('transform', TRANSFORMS, ids=str)
def test_transforms_follow_pyg(transform):
    data = random_cloud()
    before = copy.deepcopy(data)
    torch.manual_seed(3)
    out = transform(data)
    assert isinstance(out, Data) and out is not data
    for key, value in before.to_dict().items():  # the input is untouched
        assert torch.equal(data[key], value)
    torch.manual_seed(3)
    again = transform(data)
    assert all(torch.equal(out[key], again[key]) for key in before.keys())
    assert out.pos.dtype == torch.float64
    assert not torch.equal(transform(data).pos, data.pos)
    assert Compose([transform])(data).keys() == data.keys()


# Group elements ############################################################


@pytest.mark.parametrize('group', GROUPS)
def test_fields_move_with_positions(group):
    transform = RandomGroupElement(group, FIELDS)
    data = random_graph()
    for _ in range(3):
        out = transform(data)
        g = element(data, out)
        assert Group(group).contains(g)
        assert torch.allclose(out.normal, data.normal @ g.T, atol=1e-10)
        for name, kind in FIELDS.items():
            expected = FieldType(kind, group).transform(data[name], g)
            assert torch.allclose(out[name], expected, atol=1e-9)
        for name in ('part', 'category', 'edge_index'):
            assert out[name] is data[name]


@pytest.mark.parametrize('group', GROUPS)
def test_there_and_back(group):
    data = random_graph()
    out = RandomGroupElement(group, FIELDS)(data)
    g = element(data, out)
    for name, kind in {**FIELDS, 'pos': '1o', 'normal': '1o'}.items():
        back = FieldType(kind, group).transform(out[name], g.T)
        assert torch.allclose(back, data[name], atol=1e-9)
    assert torch.allclose(torch.cdist(out.pos, out.pos),
                          torch.cdist(data.pos, data.pos))


def test_elements_are_uniform():
    data = random_cloud()
    transform = RandomGroupElement('SO(2)xM')
    g = torch.stack([element(data, transform(data)) for _ in range(400)])
    assert g[:, :2].mean(0).abs().max() < 0.2  # five standard deviations
    assert (g[:, 2, 2] - 1).abs().max() < 1e-9
    assert 0.35 < (torch.linalg.det(g) < 0).double().mean() < 0.65


def test_types_of_other_groups():
    data = random_cloud()
    regular = Representation.regular('C4')
    data.f = torch.randn(12, 4, dtype=torch.float64)
    rho = FieldType([(1, regular)], 'C4')
    for group in ('C4', 'C2'):  # given on a group that contains it
        out = RandomGroupElement(group, {'f': rho})(data)
        expected = rho.transform(data.f, element(data, out))
        assert torch.allclose(out.f, expected, atol=1e-9)
    with pytest.raises(ValueError, match='representations of Group'):
        RandomGroupElement('SO(3)', {'f': rho})
    # A vector is a vector, also for more than a network's symmetries.
    transform = RandomGroupElement('O(3)', {'x': FieldType(TYPE, 'SO(2)')})
    out = transform(data)
    g = element(data, out)
    assert torch.allclose(out.x, FieldType(TYPE).transform(data.x, g))


def test_vectors_by_default():
    data = random_cloud()
    data.force = torch.randn(12, 3, dtype=torch.float64)
    data.cell = torch.randn(1, 3, 3, dtype=torch.float64)
    out = RandomGroupElement('O(3)', {'normal': None})(data)
    g = element(data, out)
    assert torch.allclose(out.force, data.force @ g.T)
    assert torch.allclose(out.cell, data.cell @ g.T)
    assert torch.equal(out.normal, data.normal)
    assert torch.equal(out.x, data.x)
    out = RandomGroupElement('Inv', {'normal': '1e'})(data)
    assert torch.allclose(out.normal, data.normal, atol=1e-12)


def test_one_element_for_each_object():
    data = HeteroData()
    data['atom'].pos = torch.randn(5, 3)
    data['site'].pos = torch.randn(4, 3)
    data['atom', 'site'].edge_attr = torch.randn(6, 3)
    out = RandomGroupElement('O(3)', {'edge_attr': '1o'})(data)
    g = element(data['atom'], out['atom'])
    assert torch.allclose(out['site'].pos, data['site'].pos @ g.T, atol=1e-5)
    assert torch.allclose(out['atom', 'site'].edge_attr,
                          data['atom', 'site'].edge_attr @ g.T, atol=1e-5)
    batch = Batch.from_data_list([random_cloud(), random_cloud()])
    moved = RandomGroupElement('O(3)')(batch)
    g = element(batch, moved)
    assert torch.allclose(moved.pos, batch.pos @ g.T)


def test_bad_fields():
    data = random_cloud()
    with pytest.raises(ValueError, match="data with 'vel'"):
        RandomGroupElement('O(3)', {'vel': '1o'})(data)
    with pytest.raises(ValueError, match="data with 'pos'"):
        RandomGroupElement('O(3)')(Data(x=data.x))
    without = Data(x=data.x)
    RandomGroupElement('O(3)', {'x': TYPE, 'pos': None})(without)
    with pytest.raises(ValueError, match="'data.x' to hold fields"):
        RandomGroupElement('O(3)', {'x': '1o'})(data)
    with pytest.raises(TypeError, match="'data.part' to be a tensor of"):
        RandomGroupElement('O(3)', {'part': '12x0e'})(data)
    with pytest.raises(ValueError, match="'name' to be one of"):
        RandomGroupElement('SO(4)')
    with pytest.raises(ValueError, match="'irreps' in e3nn's notation"):
        RandomGroupElement('SO(3)', {'x': 'vector'})
    assert repr(RandomGroupElement('C4', {'x': '1o'})) == (
        "RandomGroupElement(Group(C4), fields={'x': FieldType(1x1o, C4)})")


# Subsets ###################################################################


@pytest.mark.parametrize('replace', [False, True])
def test_subset_keeps_rows_together(replace):
    data = random_cloud()
    data.tag = np.arange(12)
    data.names = [str(i) for i in range(12)]
    data.num_nodes = 12
    out = RandomPointSubset(7, replace)(data)
    index = out.part
    assert out.num_nodes == 7 and (replace or len(index.unique()) == 7)
    for name in ('pos', 'normal', 'x'):
        assert torch.equal(out[name], data[name][index])
    assert out.tag.tolist() == index.tolist()
    assert out.names == [str(int(i)) for i in index]
    assert torch.equal(out.y, data.y) and torch.equal(out.category,
                                                      data.category)


def test_subsets_are_uniform():
    data, hits = random_cloud(), torch.zeros(12)
    for _ in range(400):
        hits[RandomPointSubset(3)(data).part] += 1 / 400
    assert (hits - 3 / 12).abs().max() < 0.11  # five standard deviations


def test_clouds_of_few_points():
    data = random_cloud(4)
    assert RandomPointSubset(4)(data).part.sort().values.tolist() == [
        0, 1, 2, 3]
    assert RandomPointSubset(9, replace=True)(data).pos.shape == (9, 3)
    with pytest.raises(ValueError, match='at least 5 points .got 4'):
        RandomPointSubset(5)(data)
    with pytest.raises(ValueError, match='at least 1 points .got 0'):
        RandomPointSubset(5, replace=True)(random_cloud(0))
    with pytest.raises(ValueError, match='before building a graph'):
        RandomPointSubset(5)(random_graph())
    for num in (0, 2.5, True):
        with pytest.raises(ValueError, match="'num' to be an integer"):
            RandomPointSubset(num)


# Positions #################################################################


def test_jitter():
    data = random_cloud(4000)
    noise = Jitter(0.1, clip=None)(data).pos - data.pos
    assert (noise.std(0) - 0.1).abs().max() < 0.006
    assert noise.mean(0).abs().max() < 0.01
    out = Jitter(0.1, clip=0.15)(data)
    noise = (out.pos - data.pos).norm(dim=-1)
    assert (noise - 0.15).max() < 1e-12
    assert 0.4 < (noise > 0.15 - 1e-9).double().mean() < 0.6
    assert torch.equal(out.normal, data.normal)
    assert torch.equal(Jitter(0.)(data).pos, data.pos)
    for bad in (-1, float('nan')):
        with pytest.raises(ValueError, match="Expected 'std'"):
            Jitter(bad)
        with pytest.raises(ValueError, match="Expected 'clip'"):
            Jitter(0.1, clip=bad)


def test_anisotropic_scale():
    data = random_cloud()
    scales = []
    for _ in range(200):
        out = AnisotropicScale()(data)
        scales.append(out.pos / data.pos)
        assert torch.allclose(scales[-1], scales[-1][:1])
        assert torch.equal(out.normal, data.normal)
    scale = torch.stack(scales)[:, 0]
    assert 2 / 3 <= scale.min() < 0.75 and 1.4 < scale.max() <= 1.5 + 1e-12
    assert not torch.allclose(scale[:, 0], scale[:, 1], rtol=0.1)
    for low, high in ((0, 1), (2, 1), (1, float('inf'))):
        with pytest.raises(ValueError, match="Expected '(low|high)' to be"):
            AnisotropicScale(low, high)


@pytest.mark.parametrize('size', ['sphere', 'deviation'])
def test_normalise(size):
    data = random_cloud()
    data.pos = 7 * data.pos + 100
    out = Normalise(size)(data)
    assert out.pos.mean(0).abs().max() < 1e-12
    unit = (out.pos.norm(dim=-1).max() if size == 'sphere' else
            out.pos.square().mean().sqrt())
    assert abs(unit - 1) < 1e-12
    assert torch.allclose(Normalise(size)(out).pos, out.pos)
    # It commutes with O(3).
    for g in Group('O(3)').sample(3):
        moved = Data(pos=data.pos @ g.T)
        assert torch.allclose(Normalise(size)(moved).pos, out.pos @ g.T)


@pytest.mark.parametrize('size', ['sphere', 'deviation'])
def test_normalise_clouds_without_size(size):
    for dtype in (torch.float32, torch.float64):
        pos = (0.1 * torch.rand(3, dtype=dtype)).expand(11, 3)
        assert Normalise(size)(Data(pos=pos)).pos.abs().max() < 1e-6
    assert Normalise(size)(random_cloud(1)).pos.eq(0).all()
    assert Normalise(size)(random_cloud(0)).pos.shape == (0, 3)
    with pytest.raises(ValueError, match="'size' to be one of 'sphere', "):
        Normalise('cube')


@pytest.mark.parametrize('transform', TRANSFORMS[2:], ids=str)
def test_bad_positions(transform):
    data = random_cloud()
    data.pos[4, 1] = float('nan')
    with pytest.raises(ValueError, match='to be finite .*at point 4'):
        transform(data)
    with pytest.raises(ValueError, match=r'shape \[N, 3\] .got \[12, 2\]'):
        transform(Data(pos=torch.randn(12, 2)))
    with pytest.raises(ValueError, match=r'shape \[N, 3\] .got None'):
        transform(Data(x=torch.randn(12, 2)))
    with pytest.raises(TypeError, match="'data.pos' to be a tensor of"):
        transform(Data(pos=torch.ones(12, 3, dtype=torch.long)))


def test_registered_under_free_names():
    from torch.utils.data.datapipes.iter import IterableWrapper
    pipe = IterableWrapper([random_cloud(), random_cloud()])
    pipe = pipe.normalise_cloud().random_point_subset(5)
    pipe = pipe.anisotropic_scale().random_group_element('SO(2)')
    assert [d.pos.shape for d in pipe.gaussian_jitter(0.01)] == [(5, 3)] * 2
