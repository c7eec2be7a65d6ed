import pytest
import torch
from helpers.transforms import TYPE, random_cloud, random_graph
from torch_geometric.data import Batch, Data, HeteroData

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.graph import (
    RandomGroupElement,
)

GROUPS = ['1', 'Inv', 'M', 'C4', 'D3', 'O', 'IxInv', 'SO(2)', 'SO(2)xM',
          'SO(2)xF', 'SO(2)xInv', 'SO(2)xMxInv', 'SO(3)', 'O(3)']
FIELDS = {'x': TYPE, 'edge_attr': '0o + 1o', 'y': '2e'}


def element(before, after):
    """The matrix that took positions to their new place."""
    return torch.linalg.lstsq(before.pos, after.pos).solution.T


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
