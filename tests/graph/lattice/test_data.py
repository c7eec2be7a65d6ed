import pickle

import pytest
import torch
from helpers.lattice import (
    BOTH_ORDERS,
    GRID,
    STENCILS,
    edges_by_definition,
    random_voxels,
)
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pyg_steerable.graph import (
    GraphToVoxel,
    LatticeData,
    Stencil,
    VoxelToGraph,
    graph_to_voxel,
    lattice_graph,
    voxel_to_graph,
)
from pyg_steerable.ops import lattice_edges as module
from pyg_steerable.ops.lattice import lattice_conv
from pyg_steerable.ops.limits import LIMITS


def edges_of(lattice):
    """All (source, target, offset) as a sorted list."""
    out = []
    for first, sizes, src, dst in lattice.runs():
        offset = [k for k, n in enumerate(sizes, first) for _ in range(n)]
        out += list(zip(src.tolist(), dst.tolist(), offset))
    return sorted(out)


def edges_of_rows(lattice, transposed):
    """The same from all blocks of targets."""
    out = []
    for start, src in lattice.rows(60, transposed):
        none = lattice.num_targets if transposed else len(lattice.coord)
        for i, k in (src < none).nonzero().tolist():
            j = int(src[i, k])
            out.append((start + i, j, k) if transposed else (j, start + i, k))
    return sorted(out)


def test_round_trip():
    voxels, mask = random_voxels()
    for given in (Data(voxels=voxels), Data(voxels=voxels, mask=mask)):
        given.y = torch.tensor([3])
        graph = VoxelToGraph(3, spacing=(2., 1., 1.))(given)
        back = GraphToVoxel()(graph)
        assert torch.equal(back.voxels, voxels)
        assert torch.equal(back.mask, given.mask if 'mask' in given else
                           torch.ones(GRID, dtype=torch.bool))
        assert torch.equal(back.y, given.y)
        assert sorted(back.keys()) == ['mask', 'voxels', 'y']
    graph = VoxelToGraph(3, occupied=True)(Data(voxels=voxels))
    assert len(graph.coord) == mask.sum()
    assert torch.equal(graph_to_voxel(graph), voxels)


def test_sparse_coordinates():
    voxels, mask = random_voxels()
    coord = mask.nonzero()
    order = torch.randperm(len(coord))  # any order
    x = voxels[:, mask].T[order]
    data = Data(coord=coord[order], x=x, grid=torch.tensor([GRID]))
    graph = VoxelToGraph(3)(data)
    assert torch.equal(graph_to_voxel(graph), voxels)
    assert edges_of(graph) == edges_by_definition(graph)
    # Whole numbers in another type are fine.
    other = lattice_graph(coord[order].double(), GRID, x)
    assert torch.equal(other.edge_index, graph.edge_index)


def test_axes():
    voxels = torch.zeros(1, *GRID)
    graph = voxel_to_graph(voxels, spacing=(4., 2., 1.))
    site = int((graph.coord == torch.tensor([1, 2, 3])).all(1).nonzero())
    assert graph.pos[site].tolist() == [3., 4., 4.]  # x, y, z
    # Along an edge the position changes by the offset.
    stencil, (src, dst) = graph.geometry.stencil, graph.edge_index
    relative = stencil.offsets()[graph.edge_offset] - 1
    expected = relative.flip(-1) * torch.tensor([1., 2., 4.])
    assert torch.equal(graph.pos[src] - graph.pos[dst], expected)


@BOTH_ORDERS
def test_sums_in_batches(lattice_order):
    """Listed edges of a batch are not in order."""
    graphs = [voxel_to_graph(random_voxels(i)[0], mask=random_voxels(i)[1])
              for i in range(3)]
    weight = torch.randn(27, 3, 2).double()
    batch = Batch.from_data_list(graphs)
    out = lattice_conv(batch.x, weight, batch.edges)
    expected = [lattice_conv(g.x, weight, g.edges) for g in graphs]
    assert torch.allclose(out, torch.cat(expected))


def test_batches():
    graphs = [voxel_to_graph(random_voxels(i)[0], mask=random_voxels(i)[1],
                             stride=2) for i in range(3)]
    batch = next(iter(DataLoader(graphs, batch_size=3)))
    assert edges_of(batch) == edges_by_definition(batch)
    voxels = GraphToVoxel()(batch).voxels
    for i, graph in enumerate(batch.to_data_list()):
        assert torch.equal(voxels[i], random_voxels(i)[0])
        assert torch.equal(graph.edge_index, graphs[i].edge_index)
        assert torch.equal(graph.coord_dst, graphs[i].coord_dst)
        assert graph.geometry == graphs[i].geometry
    assert batch.batch_dst.tolist() == sum(
        [graph.num_targets * [i] for i, graph in enumerate(graphs)], [])
    again = pickle.loads(pickle.dumps(batch))
    assert edges_of(again) == edges_of(batch)


@pytest.mark.parametrize('kwargs', STENCILS)
@pytest.mark.parametrize('occupancy', [0., 0.3, 1.])
def test_edges(kwargs, occupancy, monkeypatch):
    voxels, mask = random_voxels(occupancy=occupancy)
    listed = voxel_to_graph(voxels, mask=mask, **kwargs)
    assert bool((listed.edge_offset.diff() >= 0).all())
    expected = edges_by_definition(listed)
    assert edges_of(listed) == expected
    assert sorted(zip(*listed.edge_index.tolist(),
                      listed.edge_offset.tolist())) == expected
    found = voxel_to_graph(voxels, mask=mask, list_edges=False, **kwargs)
    assert 'edge_index' not in found
    assert edges_of(found) == expected
    monkeypatch.setitem(LIMITS, 'cpu', LIMITS['cpu']._replace(
        table=0, pairs=1))  # by binary search, one offset at a time
    assert edges_of(found) == expected
    assert edges_of(listed) == expected
    monkeypatch.setattr(module, '_prefers_runs', lambda *args: False)
    for transposed in (False, True):
        assert edges_of_rows(listed, transposed) == expected
        assert edges_of_rows(found, transposed) == expected
    if occupancy == 1:  # all of the output's grid
        shape = listed.geometry.out_grid
        assert torch.equal(listed.targets[0],
                           torch.ones(shape).nonzero())


def test_rows_of_what_is_dense():
    voxels, mask = random_voxels(grid=(12, 12, 12), occupancy=0.05)
    for list_edges in (False, True):
        graph = voxel_to_graph(voxels, 3, list_edges=list_edges)
        assert graph.rows() is not None and graph.rows(1, True) is not None
        graph = voxel_to_graph(voxels, 3, stride=2, list_edges=list_edges)
        assert graph.rows() is not None
        assert graph.rows(1, True) is None  # an eighth of the offsets
        graph = voxel_to_graph(voxels, 5, padding=4, dilate=True, mask=mask,
                               list_edges=list_edges)
        assert graph.num_targets > 1000 and graph.rows() is None
    # Neighbours are counted at places in no rhythm with rows of voxels.
    assert voxel_to_graph(torch.zeros(1, 32, 32, 32), 5).rows() is not None
    graph = voxel_to_graph(voxels, 3, mask=mask)  # few nodes
    assert len(graph.coord) < 128 and graph.rows() is not None
    graph.edge_index = graph.edge_index[:, [0, *range(graph.num_edges)]]
    graph.edge_offset = graph.edge_offset[[0, *range(len(graph.edge_offset))]]
    assert graph.rows() is None  # the first edge counts twice


def test_the_output_stays_sparse_or_dilates():
    voxels, mask = random_voxels(occupancy=0.05)
    ones = mask.double()[None, None]
    graph = voxel_to_graph(voxels, mask=mask, stride=2)
    blocks = torch.nn.functional.max_pool3d(ones, 2, ceil_mode=True)[0, 0]
    assert torch.equal(graph.coord_dst, blocks.nonzero())
    graph = voxel_to_graph(voxels, mask=mask, stride=2, dilate=True)
    seen = torch.nn.functional.max_pool3d(ones, 3, 2, 1)[0, 0]
    assert torch.equal(graph.coord_dst, seen.nonzero())
    graph = voxel_to_graph(voxels, mask=mask)
    assert graph.targets[0] is graph.coord


def test_large_lattices_list_no_edges():
    graph = voxel_to_graph(torch.zeros(1, 64, 64, 64), 5)
    assert 'edge_index' not in graph and len(graph.coord) == 64**3
    first, sizes, src, dst = next(iter(graph.runs()))
    assert first == 0 and sizes == [62**3] and len(src) == len(dst) == 62**3


def test_next_lattice():
    graphs = []
    for seed in range(2):
        voxels, mask = random_voxels(seed, grid=(5, 6, 7))
        graphs.append(voxel_to_graph(voxels, mask=mask, stride=2,
                                     spacing=(2., 1., 1.)))
    batch = Batch.from_data_list(graphs)
    coarse = batch.next(3, padding=0)
    assert coarse.grid == (3, 3, 4) == batch.geometry.out_grid
    assert coarse.geometry.stencil.spacing == (4., 2., 2.)
    assert torch.equal(coarse.coord, batch.coord_dst)
    assert torch.equal(coarse.pos, batch.pos_dst)
    assert torch.equal(coarse.batch, batch.batch_dst)
    assert edges_of(coarse) == edges_by_definition(coarse)
    single = graphs[0].next(1).next(1, stride=2)
    assert single.pos_dst.tolist() == (
        single.coord_dst.flip(-1) * torch.tensor([4., 4., 8.])).tolist()


VOXELS = torch.zeros(2, *GRID)
COORD = torch.tensor([[0, 0, 0], [1, 2, 3]])
NAN = VOXELS.clone()
NAN[1, 1, 2, 3] = float('nan')
BAD = {
    'even': (lambda: voxel_to_graph(VOXELS, 4), ["'kernel_size'", 'got 4']),
    'even, early': (lambda: VoxelToGraph(2), ["'kernel_size'", 'got 2']),
    'large': (lambda: voxel_to_graph(VOXELS, 5), [
        "'kernel_size'", '(5, 4, 6)', 'got 5']),
    'stride': (lambda: voxel_to_graph(VOXELS, stride=0), ["'stride'"]),
    'padding': (lambda: voxel_to_graph(VOXELS, padding=-1), ["'padding'"]),
    'spacing': (lambda: voxel_to_graph(VOXELS, spacing=(1., 0., 1.)), [
        "'spacing'", 'got 0.0']),
    'spacing, negative': (lambda: VoxelToGraph(3, spacing=-1.), [
        "'spacing'", 'got -1']),
    'spacing, nan': (lambda: VoxelToGraph(3, spacing=float('nan')), [
        "'spacing'", 'got nan']),
    'spacing, two': (lambda: VoxelToGraph(3, spacing=(1., 2.)), [
        "'spacing'"]),
    'grid': (lambda: lattice_graph(COORD, (5, 4)), ["'grid'"]),
    'grid, half': (lambda: lattice_graph(COORD, (5, 4, 6.5)), [
        "'grid'", 'integer', '6.5']),
    'off': (lambda: lattice_graph(COORD, (5, 4, 3)), [
        "'coord'", 'got [1, 2, 3]']),
    'negative': (lambda: lattice_graph(-COORD, GRID), [
        "'coord'", 'got [-1, -2, -3]']),
    'between': (lambda: lattice_graph(COORD + 0.5, GRID), [
        "'coord'", 'got [0.5, 0.5, 0.5]']),
    'infinite': (lambda: lattice_graph(COORD / 0., GRID), ["'coord'"]),
    'twice': (lambda: lattice_graph(COORD[[0, 1, 0]], GRID), [
        'once', 'got [0, 0, 0] more than once']),
    'coord': (lambda: lattice_graph(COORD[:, :2], GRID), ["'coord'"]),
    'x': (lambda: lattice_graph(COORD, GRID, torch.zeros(3, 1)), [
        "'x'", 'got [3, 1]']),
    'nan': (lambda: voxel_to_graph(NAN), ['finite', '[1, 2, 3]']),
    'shape': (lambda: voxel_to_graph(VOXELS[0]), ["'voxels'"]),
    'mask': (lambda: voxel_to_graph(VOXELS, mask=torch.zeros(5, 4, 5) > 0), [
        "'mask'"]),
    'mask, dtype': (lambda: voxel_to_graph(VOXELS, mask=VOXELS[0]), [
        "'mask'", 'float32']),
    'nothing': (lambda: VoxelToGraph(3)(Data(x=COORD)), ["'voxels'"]),
    'scatter': (lambda: graph_to_voxel(voxel_to_graph(VOXELS), COORD), [
        "'x'"]),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name):
    function, words = BAD[name]
    with pytest.raises(ValueError) as error:
        function()
    for word in ['Expected', 'got', *words]:
        assert word in str(error.value)


def test_mixed_grids():
    graphs = [voxel_to_graph(torch.zeros(1, n, 4, 4)) for n in (4, 5)]
    batch = Batch.from_data_list(graphs)
    for function in (graph_to_voxel, LatticeData.runs, LatticeData.next):
        with pytest.raises(ValueError, match='one grid'):
            function(batch)
    assert torch.equal(batch[1].coord, graphs[1].coord)


def test_not_a_lattice():
    with pytest.raises(TypeError, match='LatticeData'):
        GraphToVoxel()(Data(x=COORD))


def test_structure_is_hashable_and_prints():
    stencil = Stencil(3, spacing=2).on([4, 4, 4])
    same = Stencil(3, 1, 1, (2., 2., 2.)).on((4, 4, 4))
    assert stencil == same and hash(stencil) == hash(same)
    assert 'kernel_size=3' in repr(stencil)
    assert repr(VoxelToGraph(3)) == 'VoxelToGraph(kernel_size=3)'


def test_a_tensor_stands_for_voxels():
    voxels = torch.randn(2, 3, 4, 5)
    data = VoxelToGraph(kernel_size=3)(voxels)
    same = VoxelToGraph(kernel_size=3)(Data(voxels=voxels))
    assert torch.equal(data.x, same.x)
    assert torch.equal(data.edge_index, same.edge_index)
    assert torch.equal(GraphToVoxel()(data).voxels, voxels)
