import pytest
import torch
from helpers.periodic import RADIUS, crystal, energy_model
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from pyg_steerable import FieldType
from pyg_steerable.graph import (
    AnisotropicScale,
    Jitter,
    KNNGraph,
    Normalise,
    RadiusGraph,
    RandomGroupElement,
    RandomPointSubset,
    knn_graph,
    radius_graph,
)
from pyg_steerable.nn import (
    SteerableConv,
)


def sample(n=7):
    x, pos, cell = crystal(n)
    return Data(x=x, pos=pos, cell=cell[None])


@pytest.mark.parametrize('graph', [RadiusGraph(RADIUS), KNNGraph(6)], ids=str)
def test_transforms_write_shifts(graph):
    data = graph(sample())
    search = (lambda d: radius_graph(d.pos, RADIUS, cell=d.cell[0])) if (
        isinstance(graph, RadiusGraph)) else (
        lambda d: knn_graph(d.pos, 6, cell=d.cell[0]))
    edge_index, offset = search(data)
    assert torch.equal(data.edge_index, edge_index)
    assert torch.allclose(data.edge_shift, offset.double() @ data.cell[0])
    # Before and after batching, and back.
    many = [sample(n) for n in (5, 8, 3)]
    before = next(iter(DataLoader([graph(d) for d in many], 3)))
    after = graph(Batch.from_data_list(many))
    assert before.cell.shape == (3, 3, 3)

    def rows(b):
        return sorted((*i, *(round(a, 9) + 0. for a in s)) for i, s in zip(
            b.edge_index.T.tolist(), b.edge_shift.tolist()))

    assert rows(before) == rows(after)
    for one, d in zip(before.to_data_list(), many):
        assert rows(one) == rows(graph(d))
    # Old attributes of edges go, other ones stay.
    data.edge_attr = torch.ones(data.num_edges, 1)
    del data.cell
    again = graph(data)
    assert 'edge_attr' not in again and 'edge_shift' not in again
    assert torch.equal(again.x, data.x)
    assert graph(Data(pos=torch.zeros(0, 3))).edge_index.shape == (2, 0)
    assert str(graph) in ('RadiusGraph(2.6)', 'KNNGraph(6)')


def test_cells_and_axes_in_every_form():
    x, pos, cell = crystal()
    axes = torch.tensor([True, False, True])
    graph = RadiusGraph(RADIUS)
    expected = radius_graph(pos, RADIUS, cell=cell, pbc=axes)[0]
    for c in (cell, cell[None]):
        for p in (axes, axes[None], axes.tolist(), axes.int()):
            data = Data(pos=pos, cell=c, pbc=p)
            assert torch.equal(graph(data).edge_index, expected)
        for flag, same in ((True, [True] * 3), (False, [False] * 3)):
            data = Data(pos=pos, cell=c, pbc=flag)
            assert torch.equal(graph(data).edge_index, radius_graph(
                pos, RADIUS, cell=cell, pbc=same)[0])
    # Three of them, where one value for each looks like one for each axis.
    many = [Data(pos=pos, cell=cell[None], pbc=flag)
            for flag in (True, False, False)]
    batch = graph(Batch.from_data_list(many))
    first = batch.edge_index[0] < len(pos)
    assert int(first.sum()) == graph(many[0]).num_edges
    assert batch.edge_shift[first].any() and not batch.edge_shift[~first].any()
    with pytest.raises(ValueError, match="'data.pbc' of shape"):
        graph(Data(pos=pos, cell=cell, pbc=axes[:2]))
    with pytest.raises(ValueError, match="'cell' of shape"):
        graph(Data(pos=pos, cell=cell[:2]))
    with pytest.raises(ValueError, match="'data.cell' of shape"):
        graph(Data(pos=pos, cell=torch.stack([cell, cell])))


def test_augmentations_move_cells_and_shifts():
    model = energy_model()
    data = RadiusGraph(RADIUS)(sample())

    def vectors(d):
        i, j = d.edge_index[1], d.edge_index[0]
        return d.pos[j] + d.edge_shift - d.pos[i]

    def energy(d):
        return model(d.x, d.pos, d.edge_index, edge_shift=d.edge_shift)

    turned = RandomGroupElement('O(3)')(data)
    g = torch.linalg.lstsq(data.pos, turned.pos).solution
    assert torch.allclose(vectors(turned), vectors(data) @ g)
    assert torch.allclose(turned.cell, data.cell @ g)
    assert torch.allclose(energy(turned), energy(data), atol=1e-10)
    for transform in (AnisotropicScale(), Normalise()):
        scaled = transform(data)
        factor = vectors(scaled) / vectors(data)
        assert torch.allclose(factor, factor[:1].expand_as(factor))
        assert torch.allclose(scaled.cell, data.cell * factor[0])
        again = RadiusGraph(RADIUS * float(factor[0, 0]))(scaled)
        if isinstance(transform, Normalise):
            assert again.num_edges == data.num_edges
    moved = Jitter()(data)
    assert torch.equal(moved.edge_shift, data.edge_shift)
    assert torch.equal(moved.cell, data.cell)
    # Three points do not make the cell an attribute of points.
    few = Data(pos=torch.randn(3, 3), cell=torch.eye(3),
               pbc=torch.tensor([True, False, True]))
    kept = RandomPointSubset(2)(few)
    assert kept.cell.shape == (3, 3) and kept.pbc.shape == (3, )


def test_bad_data_of_transforms():
    for graph in (RadiusGraph(1.), KNNGraph(2)):
        for bad in (None, HeteroData(), 'data', Data(x=torch.ones(3, 3))):
            with pytest.raises((TypeError, ValueError), match="'data"):
                graph(bad)
    for cls in (RadiusGraph, KNNGraph):
        for bad in (-1, 'a', None, float('nan')):
            with pytest.raises((TypeError, ValueError), match="'(r|k)'"):
                cls(bad)
        with pytest.raises(ValueError, match="'flow'"):
            cls(3, flow='down')
        with pytest.raises(TypeError, match="'loop'"):
            cls(3, loop=1)


def test_a_basis_of_ones_own_takes_shifts():
    from pyg_steerable.kernels import HarmonicBasis
    T = FieldType('1x0e')
    conv = SteerableConv(T, T, HarmonicBasis('O(3)', 0, radius=2.))
    x, pos = torch.ones(1, 1), torch.zeros(1, 3)
    loop = torch.zeros(2, 1, dtype=torch.long)
    here = conv(x, pos, loop)
    there = conv(x, pos, loop, edge_shift=torch.tensor([[0., 0, 1]]))
    assert (here - there).abs().max() > 1e-3
