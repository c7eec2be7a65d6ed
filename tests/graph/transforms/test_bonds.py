import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_steerable.datasets import load_qm9
from pyg_steerable.graph import RadiusGraphWithBonds
from pyg_steerable.models import QM9Net


def plain(data, r):
    """Pairs by a loop over all of them."""
    bond = {(int(s), int(t)): row for (s, t), row in zip(
        data.edge_index.T, data.edge_attr.tolist())}
    none = [0.] * data.edge_attr.shape[1] + [1.]
    found = {}
    for s in range(data.num_nodes):
        for t in range(data.num_nodes):
            if (s, t) in bond:
                found[s, t] = [*bond[s, t], 0.]
            elif s != t and (data.pos[s] - data.pos[t]).norm() <= r:
                found[s, t] = none
    return found


def as_dict(data):
    return {(int(s), int(t)): row for (s, t), row in zip(
        data.edge_index.T, data.edge_attr.tolist())}


@pytest.mark.parametrize('r', [0.5, 1.5, 3.])
def test_against_a_loop(r):
    for molecule in load_qm9('sample')[:20]:
        before = copy.deepcopy(molecule)
        out = RadiusGraphWithBonds(r)(molecule)
        assert as_dict(out) == plain(before, r)
        assert (out.edge_attr.sum(1) == 1).all()  # one-hot
        assert out.num_edges == len(as_dict(out))
        order = out.edge_index[1] * out.num_nodes + out.edge_index[0]
        assert (order.diff() > 0).all()
        # The input is untouched.
        assert torch.equal(molecule.edge_index, before.edge_index)
        assert torch.equal(molecule.edge_attr, before.edge_attr)


def test_batches():
    molecules = [d for d in load_qm9('sample')[:6]]
    graph = RadiusGraphWithBonds(2.5)
    one = graph(Batch.from_data_list(molecules))
    many = Batch.from_data_list([graph(d) for d in molecules])
    assert as_dict(one) == as_dict(many)


def test_lone_atoms_and_nothing():
    graph = RadiusGraphWithBonds(1.)
    assert str(graph) == 'RadiusGraphWithBonds(1.0)'
    for n in (0, 1):
        out = graph(Data(pos=torch.zeros(n, 3), edge_attr=torch.zeros(0, 4),
                         edge_index=torch.zeros(2, 0).long(),
                         edge_weight=torch.zeros(0)))
        assert out.edge_index.shape == (2, 0)
        assert out.edge_attr.shape == (0, 5)
        assert 'edge_weight' not in out


def test_a_network_takes_it():
    batch = Batch.from_data_list([
        RadiusGraphWithBonds(3.)(d) for d in load_qm9('sample')[:4]])
    model = QM9Net(edge_dim=5, atom_dim=5, radius=1.5, num_neighbors=8.,
                   blocks=1).eval()
    x = batch.x, batch.pos, batch.edge_index
    out = model(*x, batch.edge_attr, batch.batch)
    assert out.shape == (4, 1)
    # It sees which edges are bonds.
    other = model(*x, batch.edge_attr.roll(1, 1), batch.batch)
    assert (other - out).abs().max() > 1e-3


def bonds(**changes):
    return Data(**{**dict(pos=torch.randn(3, 3), edge_attr=torch.ones(2, 4),
                          edge_index=torch.tensor([[0, 1], [1, 0]])),
                   **changes})


@pytest.mark.parametrize('data, match', [
    (bonds(edge_attr=None), "'data.edge_attr'"),
    (bonds(edge_index=None), "'data.edge_index'"),
    (bonds(edge_attr=torch.ones(3, 4)), r'shape \[2, d\]'),
    (bonds(edge_index=torch.tensor([[0, 1], [1, 7]])), r'\[0, 3\)'),
    (bonds(edge_index=torch.tensor([[0, 0], [1, 1]])), 'once'),
    (bonds(cell=torch.eye(3)[None]), "'cell'"),
], ids=str)
def test_bad_input(data, match):
    with pytest.raises(ValueError, match=match):
        RadiusGraphWithBonds(1.)(data)
    with pytest.raises(ValueError, match="'r'"):
        RadiusGraphWithBonds(0.)
