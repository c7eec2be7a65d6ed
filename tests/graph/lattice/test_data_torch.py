import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.lattice_ecosystem import T, lattice_of
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data.summary import Summary
from torch_geometric.loader import DataLoader
from torch_geometric.nn import summary

from pyg_steerable import FieldType
from pyg_steerable.graph import (
    LatticeData,
    Stencil,
    lattice_graph,
    voxel_to_graph,
)
from pyg_steerable.nn import (
    LatticeAvgPool,
    LatticeBlock,
    LatticeDropout,
    LatticeGlobalPool,
    LatticeLowPass,
    LatticeNormConv,
    LatticeSteerableConv,
    LatticeSteerableConvTranspose,
)


def test_nothing_of_data_is_hidden():
    mine = {name for name in vars(LatticeData) if name in dir(Data)}
    assert {name for name in mine if not name.startswith('_')} == {
        'is_node_attr', 'subgraph'}
    lattice = lattice_of()
    assert lattice.size() == (lattice.num_nodes, lattice.num_nodes)
    assert lattice.num_lattices == 1
    assert Batch.from_data_list([lattice, lattice]).num_lattices == 2


def test_data_as_a_whole():
    lattice = lattice_of(1., list_edges=True)  # no node without neighbours
    n = len(lattice.coord)
    assert lattice.num_nodes == n == lattice.x.shape[0]
    assert lattice.num_edges == len(lattice.edge_offset)
    assert lattice.validate()
    assert lattice.has_self_loops()
    assert not lattice.has_isolated_nodes()
    assert lattice.is_undirected()
    assert 'coord=[' in repr(lattice) and 'stencil=' in repr(lattice)
    for other in (lattice.clone(), copy.copy(lattice), copy.deepcopy(lattice),
                  lattice.to('cpu'), lattice.contiguous()):
        assert other.geometry == lattice.geometry
        assert torch.equal(other.edge_index, lattice.edge_index)
    half = lattice.clone().apply(lambda t: t.half(), 'x')
    assert half.x.dtype == torch.float16


def test_subgraphs():
    conv = LatticeSteerableConv(T, T, 3, order='graph').double()
    for list_edges in (True, False):
        lattice = lattice_of(0.5, list_edges=list_edges)
        keep = torch.rand(len(lattice.coord)) < 0.6
        part = lattice.subgraph(keep)
        expected = lattice_graph(lattice.coord[keep], lattice.grid,
                                 lattice.x[keep], list_edges=list_edges)
        assert torch.allclose(conv(part.x, part),
                              conv(expected.x, expected))
        assert part.origin.shape == (1, 3)
    with pytest.raises(ValueError, match="'coord_dst'"):
        lattice_of(stride=2).subgraph(keep)


def test_loaders_with_workers():
    lattices = [lattice_of(stride=2) for _ in range(4)]
    loader = DataLoader(lattices, batch_size=2, num_workers=2)
    first, second = loader
    back = first.to_data_list() + second.to_data_list()
    for a, b in zip(back, lattices):
        assert torch.equal(a.coord, b.coord) and a.geometry == b.geometry
        assert torch.equal(a.edge_index, b.edge_index)


class Stored(InMemoryDataset):
    def __init__(self, root, lattices=None):
        self.lattices = lattices
        super().__init__(root)
        self.load(self.processed_paths[0], LatticeData)

    processed_file_names = ['data.pt']

    def process(self):
        self.save(self.lattices, self.processed_paths[0])


def test_datasets_load_weights_only(tmp_path):
    lattices = [lattice_of(stride=s) for s in (1, 1)]
    dataset = Stored(str(tmp_path), lattices)
    summary = Summary.from_dataset(dataset)
    assert summary.num_graphs == 2
    assert dataset[1].geometry == lattices[1].geometry
    torch.save(Batch.from_data_list(lattices).to_dict(), tmp_path / 'b.pt')
    code = f"""
import torch, pyg_steerable.graph as graph
from torch_geometric.data import InMemoryDataset
assert len(torch.load({str(tmp_path / 'b.pt')!r})['stencil']) == 2
dataset = InMemoryDataset()
dataset.load({dataset.processed_paths[0]!r}, graph.LatticeData)
assert len(dataset) == 2 and type(dataset[1]) is graph.LatticeData
assert dataset[1].geometry.grid == (5, 4, 6)
"""
    subprocess.run([sys.executable, '-c', code], check=True)


def test_stencils_of_files_are_checked(tmp_path):
    class Evil:
        def __reduce__(self):
            return Stencil, (10**9, )

    torch.save(Evil(), tmp_path / 'x.pt')
    with pytest.raises(ValueError, match="'kernel_size'"):
        torch.load(tmp_path / 'x.pt', weights_only=True)


def test_summaries_of_models():
    pytest.importorskip('tabulate')
    lattice = lattice_of(dtype=torch.float32)
    text = summary(LatticeBlock(T, T, 3), lattice.x, lattice)
    assert 'LatticeSteerableConv' in text


def test_edges_in_any_order_or_left_out():
    torch.manual_seed(0)
    for occupancy in (0.3, 1.):
        lattice = lattice_of(occupancy, list_edges=True)
        conv = LatticeSteerableConv(T, T, 3).double()
        expected = conv(lattice.x, lattice)
        order = torch.randperm(lattice.num_edges)
        lattice.edge_index = lattice.edge_index[:, order]
        lattice.edge_offset = lattice.edge_offset[order]
        assert lattice.lists_all_edges
        assert torch.allclose(conv(lattice.x, lattice), expected)
        # Edges left out are left out, however full the grid is.
        for key in ('edge_index', 'edge_offset'):
            lattice[key] = lattice[key][..., ::2]
        assert not lattice.lists_all_edges
        out = conv(lattice.x, lattice)
        conv.backend = 'reference'
        assert torch.allclose(out, conv(lattice.x, lattice))
        assert not torch.allclose(out, expected)
        conv.order, conv.backend = 'dense', 'auto'
        with pytest.raises(ValueError, match='all edges'):
            conv(lattice.x, lattice)


def test_an_edge_twice():
    lattice = lattice_of(1., list_edges=True)
    lattice.edge_index[:, 1] = lattice.edge_index[:, 0]
    lattice.edge_offset[1] = lattice.edge_offset[0]
    assert not lattice.lists_all_edges


def shuffled(lattice):
    lattice.edge_offset = lattice.edge_offset.flip(0)


def changed(key, function):
    def change(lattice):
        lattice[key] = function(lattice[key])
    return change


def in_place(lattice):
    lattice.coord[0, 0] += 1


def again(coord):
    coord = coord.clone()
    coord[0] = coord[1]
    return coord


WRONG = {
    'edge_offset, reordered': (shuffled, 'edge_offset'),
    'edge_offset, shorter': (changed('edge_offset', lambda t: t[1:]),
                             'edge_offset'),
    'edge_offset, floats': (changed('edge_offset', lambda t: t.double()),
                            'edge_offset'),
    'edge_offset, large': (changed('edge_offset', lambda t: t + 27),
                           'edge_offset'),
    'edge_index, turned': (changed('edge_index', lambda t: t.flip(0)),
                           'edge_offset'),
    'edge_index, large': (changed('edge_index', lambda t: t + 1000),
                          'edge_index'),
    'edge_index, one row': (changed('edge_index', lambda t: t[0]),
                            'edge_index'),
    'edge_offset, missing': (lambda lattice: lattice.__delattr__(
        'edge_offset'), 'edge_offset'),
    'coord, floats': (changed('coord', lambda t: t + 0.5), 'coord'),
    'coord, moved': (changed('coord', lambda t: t.flip(0)), 'edge_offset'),
    'coord, in place': (in_place, 'edge_offset|coord'),
    'coord, twice': (changed('coord', again), 'once'),
    'coord, negative': (changed('coord', lambda t: t - 3), 'coord'),
    'coord, outside': (changed('coord', lambda t: t + 3), 'coord'),
    'coord, shape': (changed('coord', lambda t: t[:, :2]), 'coord'),
    'batch': (lambda lattice: setattr(lattice, 'batch',
                                      torch.ones(3, dtype=torch.long)),
              'batch'),
    'stencil': (changed('stencil', lambda s: 3), 'stencil'),
    'another grid': (changed('stencil', lambda s: Stencil(3, 2).on((9, 9, 9))),
                     'coord_dst|stride'),
}


@pytest.mark.parametrize('path', ['graph', 'dense', 'auto'])
@pytest.mark.parametrize('name', WRONG)
def test_lattices_that_do_not_fit(name, path):
    torch.manual_seed(0)
    change, match = WRONG[name]
    lattice = lattice_of(0.7, list_edges=True)
    conv = LatticeSteerableConv(T, T, 3, order=path).double()
    conv(lattice.x, lattice)  # it was fine once
    change(lattice)
    with pytest.raises((ValueError, TypeError), match=match):
        conv(lattice.x, lattice)


@pytest.mark.parametrize('change, match', [
    (changed('coord', again), 'once'),
    (changed('coord', lambda t: t + 3), 'coord'),
    (changed('coord_dst', lambda t: t + 3), 'coord_dst'),
    (changed('coord_dst', again), 'once'),
    (lambda lattice: lattice.__delattr__('batch_dst'), 'batch_dst'),
])
def test_lattices_without_edges_that_do_not_fit(change, match):
    lattice = lattice_of(0.7, stride=2, list_edges=False)
    change(lattice)
    for function in (lambda: lattice.edges, lambda: lattice.scatter(lattice.x),
                     lambda: LatticeAvgPool(3, 2)(lattice.x, lattice)):
        with pytest.raises(ValueError, match=match):
            function()


def test_a_lattice_is_looked_at_once(monkeypatch):
    from pyg_steerable.graph.lattice import data as module
    calls, check = [], module.check_edges
    monkeypatch.setattr(module, 'check_edges', lambda *args, **kwargs: (
        calls.append(1), check(*args, **kwargs)))
    lattice = lattice_of()
    conv = LatticeSteerableConv(T, T, 3).double()
    for _ in range(3):
        conv(lattice.x, lattice)
    assert len(calls) == 1
    lattice.coord = lattice.coord.clone()
    conv(lattice.x, lattice)
    assert len(calls) == 2
    with torch.inference_mode():
        lattice.coord = lattice.coord.clone()
        conv(lattice.x, lattice)


def test_numbers_of_numpy():
    three = np.int64(3)
    conv = LatticeSteerableConv(T, T, three, stride=np.int32(2),
                                padding=np.int64(1), spacing=np.float32(2))
    lattice = lattice_graph(torch.zeros(1, 3), np.array([5, 5, 5]),
                            torch.randn(1, 5), kernel_size=three,
                            stride=np.int64(2))
    assert conv(lattice.x, lattice).shape == (lattice.num_targets, T.dim)
    assert LatticeAvgPool(three, np.int64(2)).stencil.stride == (2, 2, 2)
    assert LatticeLowPass(np.float64(2)).stencil.kernel_size == (5, 5, 5)


def test_huge_grids():
    coord = torch.tensor([[0, 0, 0], [0, 0, 1], [10**6 - 1] * 3])
    lattice = lattice_graph(coord, 3 * (10**6, ), torch.randn(3, T.dim))
    conv = LatticeSteerableConv(T, T, 3)
    out = conv(lattice.x, lattice)
    small = lattice_graph(coord[:2], (3, 3, 3), lattice.x[:2])
    assert torch.allclose(out[:2], conv(small.x, small), atol=1e-6)
    with pytest.raises(MemoryError, match='GiB'):
        lattice.scatter(lattice.x)
    with pytest.raises(MemoryError, match='GiB'):
        LatticeSteerableConv(T, T, 3, order='dense')(lattice.x, lattice)
    none = lattice_graph(coord[:0], 3 * (10**6, ), lattice.x[:0])
    assert conv(none.x, none).shape == (0, T.dim)


@pytest.mark.parametrize('build, match', [
    (lambda: Stencil().on(3 * (2**40, )), "'grid'"),
    (lambda: Stencil().on(3 * (-1, )), "'grid'"),
    (lambda: Stencil().on(None), "'grid'"),
    (lambda: Stencil().on('abc'), "'grid'"),
    (lambda: Stencil(2**31 + 1), "'kernel_size'"),
    (lambda: Stencil(3, 1e300), "'stride'"),
    (lambda: Stencil(3, 1, 2**62), "'padding'"),
    (lambda: Stencil(3, spacing={}), "'spacing'"),
    (lambda: Stencil(3, spacing='1'), "'spacing'"),
    (lambda: LatticeLowPass(1e300), "'scale'"),
    (lambda: LatticeAvgPool(10**9 + 1), "'kernel_size'"),
    (lambda: LatticeGlobalPool('max'), "'reduce'"),
    (lambda: LatticeSteerableConv(T, T, object()), "'kernel_size'"),
    (lambda: LatticeSteerableConv(T, T, 127), 'numbers'),
    (lambda: LatticeSteerableConv(T, T, order=None), "'order'"),
    (lambda: LatticeSteerableConv(T, T, kernel=3), "'kernel'"),
    (lambda: LatticeSteerableConv(T, T, bias='yes'), "'bias'"),
    (lambda: LatticeBlock(T, T, activation=3), "'activation'"),
    (lambda: LatticeSteerableConv(T, T, 3)(None), "'x'"),
    (lambda: LatticeSteerableConv(T, T, 3)(torch.zeros(5).cfloat()), "'x'"),
    (lambda: LatticeSteerableConv(T, T, 3)(torch.zeros(2, 5), 'g'),
     "'lattice'"),
    (lambda: LatticeAvgPool()(torch.zeros(2, 5), object()), "'lattice'"),
    (lambda: LatticeGlobalPool()(torch.zeros(2, 5), []), "'lattice'"),
    (lambda: LatticeDropout(T)(torch.zeros(2, 5), 3), "'lattice'"),
    (lambda: lattice_graph([[0, 0, 0]], (3, 3, 3)), "'coord'"),
    (lambda: lattice_graph(torch.zeros(1, 3), (3, 3, 3), dilate=3),
     "'dilate'"),
    (lambda: voxel_to_graph('voxels'), "'voxels'"),
    (lambda: voxel_to_graph(torch.zeros(1, 3, 3, 3, device='meta')),
     "'coord'|'voxels'"),
    (lambda: voxel_to_graph(torch.zeros(1, 3, 3, 3), mask=[1]), "'mask'"),
    (lambda: LatticeSteerableConvTranspose(T, T, 3)(
        torch.zeros(1, 5, 3, 3, 3), size=(3, 3)), "'size'"),
    (lambda: LatticeSteerableConv(T, FieldType('0o', 'O(3)')), 'group'),
    (lambda: LatticeSteerableConv(FieldType('0e', 'O(3)'),
                                  FieldType('1x0o', 'O(3)')), "'out_type'"),
])
def test_bad_input(build, match):
    with pytest.raises((ValueError, TypeError), match=match):
        build()


def test_fields_that_nothing_reaches_are_named():
    with pytest.warns(UserWarning, match='1x0o'):
        LatticeSteerableConv(FieldType('0e', 'O(3)'),
                             FieldType('0e + 0o', 'O(3)'))


EMPTY = FieldType([], 'SO(3)')


@pytest.mark.parametrize('in_type, out_type', [(EMPTY, T), (T, EMPTY),
                                               (EMPTY, EMPTY)])
def test_no_fields(in_type, out_type):
    for build in (LatticeSteerableConv, LatticeNormConv, LatticeBlock):
        layer = build(in_type, out_type, 3)
        assert layer(torch.randn(2, in_type.dim, 4, 4, 4)).shape == (
            2, out_type.dim, 4, 4, 4)
        for occupancy in (0.2, 1.):
            lattice = lattice_of(occupancy)
            x = torch.randn(len(lattice.coord), in_type.dim)
            assert layer(x, lattice).shape == (len(x), out_type.dim)


def test_no_rows():
    lattice = lattice_graph(torch.zeros(0, 3), (4, 4, 4),
                            torch.zeros(0, T.dim))
    for layer in (LatticeSteerableConv(T, T, 3), LatticeNormConv(T, T, 3),
                  LatticeBlock(T, T, 3, norm=True, dropout=.5),
                  LatticeAvgPool(3, 1), LatticeDropout(T)):
        assert layer(lattice.x, lattice).shape == (0, T.dim)
        assert layer(torch.zeros(0, T.dim, 4, 4, 4)).shape == (
            0, T.dim, 4, 4, 4)
    assert LatticeGlobalPool()(lattice.x, lattice).shape == (1, T.dim)
