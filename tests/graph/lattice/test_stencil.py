"""Stencils of any odd box, and the lattices that are made with them."""
import copy
import pickle
import random
from itertools import product

import pytest
import torch
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

import pyg_steerable.graph as graph
from pyg_steerable.graph import (
    GraphToVoxel,
    GridStencil,
    LatticeData,
    Stencil,
    VoxelToGraph,
    graph_to_voxel,
    voxel_to_graph,
)
from pyg_steerable.ops import lattice_edges
from pyg_steerable.ops.lattice import lattice_conv

GRID = (5, 6, 7)
BOXES = [
    dict(kernel_size=(1, 3, 5)),
    dict(kernel_size=(5, 3, 1), stride=(2, 1, 3)),
    dict(kernel_size=(3, 1, 5), stride=(1, 2, 2), padding=(0, 1, 2)),
    dict(kernel_size=(1, 5, 3), stride=(3, 2, 1), padding=(2, 0, 3)),
    dict(kernel_size=(3, 5, 3), padding=0, spacing=(3., 1., 2.)),
]


def random_lattice(kwargs, occupancy=0.4, channels=2, seed=0, **more):
    torch.manual_seed(seed)
    mask = torch.rand(GRID) < occupancy
    voxels = torch.randn(channels, *GRID).double() * mask
    return voxels, voxel_to_graph(voxels, mask=mask, **kwargs, **more)


# Stencils ##################################################################


def test_one_number_or_three():
    stencil = Stencil(3, 2, spacing=2)
    assert stencil == Stencil([3, 3, 3], (2, 2, 2), (1, 1, 1), [2., 2., 2.])
    assert hash(stencil) == hash(Stencil(3, 2, 1, 2.))
    assert (stencil.kernel_size, stencil.stride, stencil.padding) == (
        (3, 3, 3), (2, 2, 2), (1, 1, 1))
    assert stencil != Stencil(3, 2, spacing=(2, 2, 1))
    assert repr(stencil) == ('Stencil(kernel_size=3, stride=2, padding=1, '
                             'spacing=2.0)')
    assert Stencil(torch.tensor([1, 5, 3])).kernel_size == (1, 5, 3)
    assert copy.deepcopy(stencil) == stencil
    with pytest.raises(AttributeError):
        stencil.stride = (1, 1, 1)


def test_one_stride_leaves_thin_axes_alone():
    planar = Stencil((1, 5, 3), 2)
    assert planar.stride == (1, 2, 2) and planar.padding == (0, 2, 1)
    assert Stencil((1, 5, 3), padding=3).padding == (0, 3, 3)
    assert Stencil((1, 5, 3), (2, 2, 2)).stride == (2, 2, 2)
    assert Stencil(1, 2, 1).stride == (2, 2, 2)  # there are no others
    assert Stencil(1, 2, 1).padding == (1, 1, 1)
    assert eval(repr(planar)) == planar


@pytest.mark.parametrize('kwargs', BOXES)
def test_offsets_and_positions(kwargs):
    stencil = Stencil(**kwargs)
    offsets = [*product(*(range(s) for s in stencil.kernel_size))]
    assert stencil.offsets().tolist() == [list(k) for k in offsets]
    assert stencil.num_offsets == len(offsets)
    thick = [a for a, s in zip(stencil.spacing, stencil.kernel_size) if s > 1]
    expected = [[(k - s // 2) * a / min(thick) for k, s, a in zip(
        offset, stencil.kernel_size, stencil.spacing)][::-1]
        for offset in offsets]
    assert stencil.positions().dtype == torch.float64
    assert torch.allclose(stencil.positions(),
                          torch.tensor(expected).double(), atol=1e-15)


def test_thin_axes_have_no_spacing():
    # The distance of images in a stack is no unit of what is in the plane.
    stencil = Stencil((1, 3, 3), spacing=(0.1, 2., 4.))
    assert stencil.ratios == (1., 1., 2.)
    assert stencil.positions().abs().amax(0).tolist() == [2., 1., 0.]
    assert Stencil(1, spacing=(2., 1., 3.)).ratios == (1., 1., 1.)


def test_grids_are_those_of_conv3d():
    draw = random.Random(0)
    for _ in range(200):
        size = tuple(draw.choice([1, 3, 5]) for _ in range(3))
        stencil = Stencil(size, [draw.randint(1, 4) for _ in range(3)],
                          [draw.randint(0, 3) for _ in range(3)])
        here = stencil.on([s + draw.randint(0, 6) for s in size])
        out = F.conv3d(torch.zeros(1, 1, *here.grid), torch.zeros(1, 1, *size),
                       None, stencil.stride, stencil.padding)
        assert out.shape[2:] == here.out_grid
        centres = [[t * o - p + s // 2 for o in range(n)] for t, p, s, n in
                   zip(stencil.stride, stencil.padding, size, here.out_grid)]
        assert here.shift == tuple(c[0] for c in centres)
        assert here.keeps_sites == all(
            c == [*range(n)] for c, n in zip(centres, here.grid))


def test_a_stride_does_not_move_the_only_voxel():
    thin = Stencil((1, 3, 3), (2, 1, 1))
    assert thin.on((1, 4, 4)).keeps_sites
    assert not thin.on((2, 4, 4)).keeps_sites
    lattice = voxel_to_graph(torch.randn(1, 1, 4, 4), **vars(thin))
    assert 'coord_dst' not in lattice and lattice.edges.numbers[7:10] == (
        2, 1, 1)


@pytest.mark.parametrize('make,words', [
    (lambda: Stencil((1, 4, 3)), ["'kernel_size'", 'odd', '(1, 4, 3)']),
    (lambda: Stencil((3, 3)), ["'kernel_size'", 'three', '(z, y, x)']),
    (lambda: Stencil((3, 3, 0)), ["'kernel_size'", 'got 0']),
    (lambda: Stencil((3, 3, 129)), ["'kernel_size'", '127', 'got 129']),
    (lambda: Stencil('333'), ["'kernel_size'"]),
    (lambda: Stencil(3, (1, 2.5, 1)), ["'stride'", '2.5']),
    (lambda: Stencil(3, (1, 1, 1, 1)), ["'stride'", 'three']),
    (lambda: Stencil(3, 0), ["'stride'", 'got 0']),
    (lambda: Stencil(3, padding=(1, -1, 1)), ["'padding'", 'got -1']),
    (lambda: Stencil(3, spacing=(1., 2.)), ["'spacing'", 'three']),
    (lambda: Stencil(3, spacing=(1., 2., -1.)), ["'spacing'", '-1']),
    (lambda: Stencil((3, 1, 7)).on((5, 5, 5)),
     ["'kernel_size'", '(5, 5, 5)', '(3, 1, 7)']),
    (lambda: Stencil().on((5, 5)), ["'grid'", '(5, 5)']),
    (lambda: GridStencil(3, (5, 5, 5)), ["'stencil'", 'got 3']),
])
def test_bad_input(make, words):
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    assert all(word in str(error.value) for word in words)


# Files #####################################################################


def test_files_name_public_places(tmp_path):
    _, lattice = random_lattice(BOXES[1])
    here = lattice.geometry
    for value in (here.stencil, here):
        data = pickle.dumps(value)
        assert b'pyg_steerable.graph' in data and b'.lattice' not in data
        assert pickle.loads(data) == value
    for cls in (Stencil, GridStencil, LatticeData):
        assert getattr(graph, cls.__name__) is cls
        assert cls.__module__ == 'pyg_steerable.graph'
    torch.save(lattice, tmp_path / 'lattice.pt')
    assert b'graph.lattice' not in (tmp_path / 'lattice.pt').read_bytes()
    torch.save([here, lattice.to_dict()], tmp_path / 'dict.pt')
    found, given = torch.load(tmp_path / 'dict.pt', weights_only=True)
    assert found == here and given['stencil'] == here


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('evil,word', [
    (Evil(Stencil, ((3, 3, 10**9), )), "'kernel_size'"),
    (Evil(GridStencil, (Evil(Stencil, (3, )), (10**9, 5, 5))), "'grid'"),
    (Evil(GridStencil, ('stencil', (5, 5, 5))), "'stencil'"),
])
def test_stencils_of_files_are_checked(evil, word, tmp_path):
    torch.save(evil, tmp_path / 'evil.pt')
    with pytest.raises((ValueError, TypeError), match=word):
        torch.load(tmp_path / 'evil.pt', weights_only=True)


# Lattices ##################################################################


def edges_by_definition(lattice):
    stencil, (targets, batch) = lattice.geometry.stencil, lattice.targets
    at = {(b, *c): n for n, (c, b) in enumerate(
        zip(lattice.coord.tolist(), lattice.sources[1].tolist()))}
    found = set()
    for i, (o, b) in enumerate(zip(targets.tolist(), batch.tolist())):
        for k, offset in enumerate(stencil.offsets().tolist()):
            j = at.get((b, *(t * a - p + e for t, a, p, e in zip(
                stencil.stride, o, stencil.padding, offset))))
            if j is not None:
                found.add((j, i, k))
    return found


@pytest.mark.parametrize('runs', [True, False])
@pytest.mark.parametrize('dilate', [False, True])
@pytest.mark.parametrize('kwargs', BOXES)
def test_edges_by_definition(kwargs, dilate, runs, monkeypatch):
    monkeypatch.setattr(lattice_edges, '_prefers_runs', lambda *args: runs)
    lattice = Batch.from_data_list([
        random_lattice(kwargs, seed=seed, dilate=dilate)[1]
        for seed in range(2)])
    expected = edges_by_definition(lattice)
    assert len(expected) > 100
    edges = {*zip(*lattice.edge_index.tolist(), lattice.edge_offset.tolist())}
    assert edges == expected and lattice.lists_all_edges
    assert len(expected) == lattice.num_edges
    del lattice.edge_index, lattice.edge_offset  # found on the way
    if runs:
        found = [(j, i, first + n) for first, sizes, src, dst in
                 lattice.runs() for n, part in enumerate(zip(
                     src.split(sizes), dst.split(sizes)))
                 for j, i in zip(*(t.tolist() for t in part))]
        assert len(found) == len(expected) and {*found} == expected
    else:
        for transposed in (False, True):
            none = len(lattice.targets[0] if transposed else lattice.coord)
            found = {(int(j), start + i, k) for start, block in
                     lattice.rows(transposed=transposed)
                     for i, row in enumerate(block.tolist())
                     for k, j in enumerate(row) if j < none}
            assert found == ({(i, j, k) for j, i, k in expected}
                             if transposed else expected)


def test_missing_edges_are_seen():
    _, lattice = random_lattice(BOXES[2])
    lattice.edge_index = lattice.edge_index[:, 1:]
    lattice.edge_offset = lattice.edge_offset[1:]
    assert not lattice.lists_all_edges
    lattice.edge_offset = lattice.edge_offset.roll(1)
    with pytest.raises(ValueError, match="'edge_offset'"):
        lattice.runs()


@pytest.mark.parametrize('kwargs', BOXES)
def test_outputs_without_dilation(kwargs):
    _, lattice = random_lattice(kwargs, occupancy=0.1)
    stencil, coord = lattice.geometry.stencil, lattice.coord.tolist()
    block = [range(c, c + t) for c, t in zip(stencil.shift, stencil.stride)]
    expected = [o for o in product(*map(range, lattice.geometry.out_grid))
                if any([t * a + k for t, a, k in zip(stencil.stride, o, first)]
                       in coord for first in product(*block))]
    assert lattice.targets[0].tolist() == [list(o) for o in expected]


@pytest.mark.parametrize('runs', [True, False])
@pytest.mark.parametrize('kwargs', BOXES)
def test_sums_are_those_of_conv3d(kwargs, runs, monkeypatch):
    monkeypatch.setattr(lattice_edges, '_prefers_runs', lambda *args: runs)
    voxels, lattice = random_lattice(kwargs, dilate=True)
    stencil = lattice.geometry.stencil
    weight = torch.randn(3, 2, *stencil.kernel_size).double()

    def sparse(x, weight):
        matrices = weight.flatten(2).permute(2, 1, 0)
        return lattice_conv(x, matrices, lattice.edges)

    def dense(x, weight):
        out = F.conv3d(lattice.scatter(x), weight, None, stencil.stride,
                       stencil.padding)
        return lattice.gather(out, targets=True)

    args = [t.requires_grad_() for t in (lattice.x.clone(), weight)]
    results = []
    for function in (sparse, dense):
        torch.manual_seed(1)
        out = function(*args)
        loss = (out * torch.randn(out.shape)).sum().square()
        first = torch.autograd.grad(loss, args, create_graph=True)
        loss = sum((g * torch.randn(g.shape)).mean() for g in first)
        results.append([out, *first, *torch.autograd.grad(loss, args)])
    for a, b in zip(*results):
        size = float(b.detach().norm())
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12 * size)
    assert torch.autograd.gradcheck(sparse, args, fast_mode=True)


def test_positions_of_what_comes_next():
    _, lattice = random_lattice(dict(kernel_size=(1, 3, 3), stride=(1, 2, 3),
                                     spacing=(4., 1., 2.), padding=(0, 1, 0)))
    down = lattice.next((3, 1, 1), stride=(2, 1, 1))
    assert down.grid == lattice.geometry.out_grid
    assert down.geometry.stencil.spacing == (4., 2., 6.)
    assert torch.equal(down.pos, lattice.pos_dst)
    # The voxel at the centre of the box, along x one from the border.
    expected = lattice.coord_dst * torch.tensor([4., 2., 6.])
    expected = expected + torch.tensor([0., 0., 2.])
    assert torch.equal(down.pos, expected.flip(-1))


def test_transforms_take_three_numbers():
    voxels = torch.randn(2, 1, 8, 8)
    transform = VoxelToGraph((1, 5, 3), stride=2)
    data = transform(Data(voxels=voxels))
    assert data.geometry == Stencil((1, 5, 3), 2).on((1, 8, 8))
    assert data.geometry.out_grid == (1, 4, 4)
    assert torch.equal(GraphToVoxel()(data).voxels, voxels)
    assert torch.equal(graph_to_voxel(data), voxels)
    assert repr(transform) == 'VoxelToGraph(kernel_size=(1, 5, 3))'
    coord = transform(Data(coord=data.coord, x=data.x, grid=(1, 8, 8)))
    assert torch.equal(coord.edge_index, data.edge_index)
    with pytest.raises(ValueError, match="'kernel_size'"):
        VoxelToGraph((1, 2, 3))
