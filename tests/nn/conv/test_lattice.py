import copy
import io
import pickle

import pytest
import torch
from helpers.lattice_conv import (
    CUBE,
    GROUPS,
    IN,
    T,
    conv,
    make,
    perturbed,
    relative,
    split,
    turned,
)
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Batch

from pyg_steerable import FieldType, Representation
from pyg_steerable.graph import graph_to_voxel, voxel_to_graph
from pyg_steerable.kernels import (
    HarmonicBasis,
    ImplicitBasis,
)
from pyg_steerable.nn import (
    LatticeAvgPool,
    LatticeGlobalPool,
    LatticeLowPass,
    LatticeSteerableConv,
    LatticeSteerableConvTranspose,
)
from pyg_steerable.ops import lattice_edges


def smooth_voxels(dim, grid, batch=1):
    return torch.randn(batch, dim, *grid, dtype=torch.float64)


def ways(path):
    """Order and backend."""
    if path == 'reference':
        return 'auto', path
    return 'graph' if path in ('runs', 'rows') else path, 'auto'


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
@pytest.mark.parametrize('group', GROUPS)
def test_equivariance_on_grids(group, kernel):
    conv = make(group, kernel=kernel, root_weight=True)
    x = smooth_voxels(conv.in_type.dim, (3, 4, 5))
    out = conv(x)
    inside, outside = split(group)
    assert len(inside) + len(outside) == 48
    for R in inside:
        expected = turned(out, conv.out_type, R)
        assert relative(conv(turned(x, conv.in_type, R)), expected) < 1e-10
    for R in outside[::5]:
        expected = turned(out, conv.out_type, R)
        assert relative(conv(turned(x, conv.in_type, R)), expected) > 1e-2


def test_equivariance_with_stride_and_anisotropic_spacing():
    # Odd grids, so that subsampling keeps the centre; z is not like x and y.
    conv = make('O(3)', stride=2, spacing=(3., 1., 1.))
    x = smooth_voxels(conv.in_type.dim, (5, 7, 7))
    out, errors = conv(x), []
    for R in CUBE:
        expected = turned(out, conv.out_type, R)
        moved = conv(turned(x, conv.in_type, R))
        if R[2, 2] != 0:
            assert relative(moved, expected) < 1e-10
        else:
            errors.append(relative(moved, expected))
    assert min(errors) > 1e-2


CASES = {
    'plain': dict(),
    's5': dict(kernel_size=5),
    'stride': dict(stride=2),
    'stride3': dict(stride=3, padding=2),
    'valid': dict(padding=0),
    'anisotropic': dict(spacing=(2.5, 1., 1.25), root_weight=True),
    'implicit': dict(kernel='implicit', bias=False),
}


def go_by(runs, monkeypatch):
    """Makes all graphs go offset by offset, or target by target."""
    monkeypatch.setattr(lattice_edges, '_prefers_runs', lambda *args: runs)


def outcomes(conv, x, lattice, mask, path):
    """Output at the lattice's nodes and all gradients: of the features and,
    but for the exported layer, of the parameters.
    """
    conv = copy.deepcopy(conv)
    x = x.clone().requires_grad_()
    if path in ('voxels', 'exported'):
        voxels = torch.zeros(*mask.shape, x.shape[1], dtype=x.dtype)
        voxels = voxels.index_put(tuple(lattice.coord.T), x)
        function = conv if path == 'voxels' else conv.to_conv3d()
        out = function(voxels.movedim(-1, 0)[None])
        out = out[0].movedim(0, -1)[tuple(lattice.targets[0].T)]
    else:
        conv.order, conv.backend = ways(path)
        out = conv(x, lattice)
    torch.manual_seed(1)
    (out * torch.randn(out.shape).double()).sum().backward()
    if path == 'exported':
        return [out, x.grad]
    return [out, x.grad] + [p.grad for p in conv.parameters()
                            if p.numel()]


@pytest.mark.parametrize('list_edges', [True, False])
@pytest.mark.parametrize('occupancy', [0.2, 1.])
@pytest.mark.parametrize('case', CASES)
def test_graph_dense_and_exported_agree(case, occupancy, list_edges,
                                        monkeypatch):
    kwargs = CASES[case]
    conv = make('SO(2)', **kwargs)
    mask = torch.rand(6, 7, 5) < occupancy
    voxels = torch.randn(conv.in_type.dim, 6, 7, 5).double()
    lattice = voxel_to_graph(
        voxels, mask=mask, list_edges=list_edges, **vars(conv.stencil))
    expected = outcomes(conv, lattice.x, lattice, mask, 'voxels')
    paths = ['auto', 'dense', 'exported'] + ['reference'] * list_edges
    found = [outcomes(conv, lattice.x, lattice, mask, path) for path in paths]
    for runs in (True, False):  # offset by offset, and target by target
        go_by(runs, monkeypatch)
        found.append(outcomes(conv, lattice.x, lattice, mask, 'graph'))
    for some in found:
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10)
                   for a, b in zip(some, expected))
    assert type(conv.to_conv3d()) is torch.nn.Conv3d


def test_dilated_lattices_have_all_of_the_output():
    conv = make('O(3)', padding=2, bias=False)
    voxels, mask = torch.randn(5, 6, 7, 5).double(), torch.rand(6, 7, 5) < .1
    lattice = voxel_to_graph(voxels * mask, mask=mask, padding=2, dilate=True)
    out = graph_to_voxel(lattice, conv(lattice.x, lattice), targets=True)
    assert torch.allclose(out, conv((voxels * mask)[None])[0])


def test_batches_and_layers_in_a_row():
    torch.manual_seed(0)
    types = [FieldType(t, 'O(3)') for t in ('1x0e', '2x0e + 1x1o', '1x1o')]
    first = LatticeSteerableConv(*types[:2], 3, bias=False).double()
    second = LatticeSteerableConv(*types[1:], 3, stride=2).double()
    voxels = torch.randn(2, 1, 6, 5, 7).double()
    batch = Batch.from_data_list([voxel_to_graph(v) for v in voxels])
    down = batch.next(3, stride=2)
    for path in ('graph', 'dense', 'reference'):
        for layer in (first, second):
            layer.order, layer.backend = ways(path)
        out = second(first(batch.x, batch), down)
        out = graph_to_voxel(down, out, targets=True)
        assert torch.allclose(out, second(first(voxels)), atol=1e-10)


@pytest.mark.parametrize('occupancy', [0.3, 1.])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_transposed(stride, occupancy, monkeypatch):
    conv = make('O(3)', LatticeSteerableConvTranspose, stride=stride,
                spacing=(2., 1., 1.), root_weight=True)
    grid = (7, 6, 9)
    lattice = voxel_to_graph(
        torch.randn(1, *grid).double(), stride=stride,
        spacing=conv.stencil.spacing,
        mask=torch.rand(grid) < occupancy)
    x = torch.randn(lattice.num_targets, conv.in_type.dim).double()
    weights = torch.randn(len(lattice.coord), conv.out_type.dim).double()
    plain = conv.to_conv_transpose3d()
    assert type(plain) is torch.nn.ConvTranspose3d

    def outcomes(function, module):
        leaf = x.clone().requires_grad_()
        module.zero_grad()
        out = function(leaf)
        (out * weights).sum().backward()
        return [out, leaf.grad, *([p.grad.clone() for p in conv.parameters()]
                                  if module is conv else [])]

    def on_voxels(x):
        voxels = conv(lattice.scatter(x, targets=True), size=grid)
        assert voxels.shape[2:] == grid
        return lattice.gather(voxels)

    expected = outcomes(on_voxels, conv)
    found = [outcomes(lambda x: lattice.gather(plain(
        lattice.scatter(x, targets=True), output_size=grid)), plain)]
    for path in ('auto', 'runs', 'rows', 'dense', 'reference'):
        conv.order, conv.backend = ways(path)
        if conv.order == 'graph':
            go_by(path == 'runs', monkeypatch)
        found.append(outcomes(lambda x: conv(x, lattice), conv))
    for some in found:
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-10)
                   for a, b in zip(some, expected))


@pytest.mark.parametrize('stride', [1, 2])
def test_transposed_is_equivariant(stride):
    conv = make('O(3)', LatticeSteerableConvTranspose, stride=stride,
                spacing=(2., 1., 1.), root_weight=True)
    grid = (7, 9, 5)  # odd: strides keep the centre
    x = smooth_voxels(conv.in_type.dim, [n // stride + n % stride * (
        stride > 1) for n in grid])
    for R in CUBE[[0, 3, 7, 8, 13]]:
        if R[2, 2] != 0:
            assert relative(conv(turned(x, conv.in_type, R)),
                            turned(conv(x), conv.out_type, R)) < 1e-10
    with pytest.raises(ValueError, match="'size'"):
        conv(x, size=(30, 30, 30))
    with pytest.raises(TypeError, match='to_conv_transpose3d'):
        conv.to_conv3d()


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that is made."""
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.numel())
        return out


@pytest.mark.parametrize('size,runs', [(64, False), (32, True)])
def test_large_lattices_keep_to_one_offset(size, runs, monkeypatch):
    """Forward and backward: no tensor is larger than the coordinates of the
    voxels, where all edges are a hundred times as many as these.
    """
    go_by(runs, monkeypatch)
    scalar = FieldType('1x0e', 'SO(3)')
    conv = LatticeSteerableConv(scalar, scalar, 5, order='graph')
    lattice = voxel_to_graph(torch.randn(1, size, size, size), 5)
    assert 'edge_index' not in lattice
    x = lattice.x.clone().requires_grad_()
    with Largest() as mode:
        conv(x, lattice).sum().backward()
    assert x.grad is not None
    assert size**3 <= mode.numel <= max(3 * size**3, 2**18)


def test_second_derivatives():
    conv = make('SO(2)', order='graph')
    mask = torch.rand(3, 3, 4) < 0.5
    lattice = voxel_to_graph(torch.randn(5, 3, 3, 4).double(), mask=mask)
    x = lattice.x.clone().requires_grad_()
    inputs = (x, conv.kernel.product.weight)

    def function(x, weight):
        return torch.func.functional_call(
            conv, {'kernel.product.weight': weight}, (x, lattice))

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize('group', ['C4', 'D3'])
def test_regular_fields(group):
    torch.manual_seed(0)
    T = FieldType([(2, Representation.regular(group)), (1, '1o')], group)
    conv = perturbed(LatticeSteerableConv(T, T, 3)).double()
    x = smooth_voxels(T.dim, (4, 4, 4))
    for R in split(group)[0]:
        assert relative(conv(turned(x, T, R)), turned(conv(x), T, R)) < 1e-10


def test_any_basis():
    T = FieldType(IN, 'SO(2)')
    for basis in (HarmonicBasis('SO(2)', 2, radius=1., shells=2),
                  ImplicitBasis('SO(2)', hidden=3, max_degree=2)):
        conv = LatticeSteerableConv(T, T, 3, kernel=basis)
        assert conv.kernel.basis is basis
        assert conv(torch.randn(1, T.dim, 4, 4, 4)).shape[1] == T.dim


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
@pytest.mark.parametrize('group', ['M', 'SO(2)', 'O', 'SO(3)', 'O(3)'])
def test_unit_variance_of_fresh_layers(group, kernel):
    torch.manual_seed(0)
    T = FieldType('8x0e + 4x1o + 2x2e', group)
    for size, stride, root in ((3, 1, False), (5, 2, True)):
        conv = LatticeSteerableConv(T, T, size, stride=stride, kernel=kernel,
                                    padding=0, root_weight=root)
        out = conv(torch.randn(2, T.dim, 9, 9, 9))
        assert 0.6 < out.var() < 1.6
    up = LatticeSteerableConvTranspose(T, T, 3, stride=2, kernel=kernel)
    out = up(torch.randn(2, T.dim, 8, 8, 8))
    assert 0.5 < out[..., 1:-1, 1:-1, 1:-1].var() < 1.6


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
def test_copies_and_state(kernel):
    conv = make('SO(2)', kernel=kernel)
    x = smooth_voxels(conv.in_type.dim, (4, 4, 4))
    expected = conv(x)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)),
                  conv.eval()):
        assert torch.equal(other(x), expected)
    file = io.BytesIO()
    torch.save(conv.state_dict(), file)
    file.seek(0)
    other = make('SO(2)', kernel=kernel)
    other.reset_parameters()
    assert not torch.allclose(other(x), expected)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
def test_meta_device(kernel):
    conv = make('SO(2)', kernel=kernel, root_weight=True).float()
    with torch.device('meta'):
        other = make('SO(2)', kernel=kernel, root_weight=True).float()
    other = other.to_empty(device='cpu')
    other.load_state_dict(conv.state_dict())
    x = torch.randn(1, conv.in_type.dim, 4, 4, 4)
    assert torch.equal(other(x), conv(x))


def test_large_bases_are_not_kept():
    T = FieldType('1x0e + 1x1o + 1x2e', '1')
    conv = LatticeSteerableConv(T, T, 5)
    assert not conv.kernel.is_kept
    assert sum(b.numel() for b in conv.buffers()) < 2**20
    assert 0.6 < conv(torch.randn(1, T.dim, 9, 9, 9)).var() < 1.6


def test_float32_and_autocast():
    conv = make('O(3)')
    x = smooth_voxels(conv.in_type.dim, (4, 4, 4))
    lattice = voxel_to_graph(x[0])
    expected = conv(lattice.x, lattice)
    conv, x = conv.float(), lattice.x.float()
    for path in ('graph', 'dense'):
        conv.order, conv.backend = ways(path)
        assert conv(x, lattice).dtype == torch.float32
        assert relative(conv(x, lattice), expected) < 1e-5
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert relative(conv(x, lattice).double(), expected) < 3e-2


def test_features_of_other_types():
    """All ways take them to the type of the kernel."""
    conv = make('O(3)').float()
    mask = torch.rand(conv.in_type.dim, 4, 4, 4) < 0.5
    expected = conv(mask.float()[None])
    lattice = voxel_to_graph(mask, 3)
    for dtype in (torch.bool, torch.uint8, torch.float16, torch.float64):
        assert torch.equal(conv(mask.to(dtype)[None]), expected)
        for path in ('graph', 'dense', 'reference'):
            conv.order, conv.backend = ways(path)
            out = lattice.scatter(conv(lattice.x.to(dtype), lattice))
            assert torch.allclose(out, expected, atol=1e-5)


def test_hooks_see_messages():
    conv = make('O(3)', order='graph')
    lattice = voxel_to_graph(torch.randn(5, 3, 4, 5).double())
    expected, seen = conv(lattice.x, lattice), []
    conv.register_message_forward_hook(
        lambda module, inputs, out: seen.append(out.shape))
    assert torch.allclose(conv(lattice.x, lattice), expected)
    assert seen == [(lattice.num_edges, conv.out_type.dim)]


@pytest.mark.parametrize('occupancy', [0.3, 1.])
@pytest.mark.parametrize('layer,reference', [
    (lambda: LatticeAvgPool(3, 2), lambda: torch.nn.AvgPool3d(3, 2, 1)),
    (lambda: LatticeAvgPool(3, 1, 0), lambda: torch.nn.AvgPool3d(3, 1)),
    (lambda: LatticeLowPass(2.), None),
    (lambda: LatticeLowPass(2., stride=2), None),
    (lambda: LatticeLowPass(1., stride=2), lambda: torch.nn.AvgPool3d(1, 2)),
])
def test_filters(layer, reference, occupancy):
    layer, mask = layer().double(), torch.rand(6, 7, 5) < occupancy
    voxels = torch.randn(2, 3, 6, 7, 5).double() * mask
    if reference is None:
        a = layer.line_x
        weight = (a[:, None, None] * a[:, None] * a).expand(3, 1, 5, 5, 5)

        def reference():
            return lambda x: F.conv3d(x, weight, stride=layer.stencil.stride,
                                      padding=layer.stencil.padding, groups=3)
    expected = reference()(voxels)
    assert torch.allclose(layer(voxels), expected)
    batch = Batch.from_data_list([
        voxel_to_graph(v, mask=mask, dilate=True, **vars(layer.stencil))
        for v in voxels])
    out = graph_to_voxel(batch, layer(batch.x, batch), targets=True)
    assert torch.allclose(out, expected)
    x = batch.x.clone().requires_grad_()
    (layer(x, batch)**2).sum().backward()
    voxels.requires_grad_()
    (layer(voxels)**2).sum().backward()
    assert torch.allclose(x.grad, batch.gather(voxels.grad))


def test_low_pass_is_that_of_the_paper():
    layer = LatticeLowPass(2.)
    assert layer.stencil.kernel_size == (5, 5, 5)
    line = torch.exp(-0.5 * torch.arange(-2., 3.)**2 / 0.75)
    assert torch.allclose(layer.line_x, line / line.sum())
    # 10.7, less the fraction
    assert LatticeLowPass(4.).stencil.kernel_size[0] == 11
    assert LatticeLowPass(1.).line_x.tolist() == [1.]


def test_low_pass_before_subsampling_helps():
    # A rough field on a fine grid, moved by one voxel, which is half of a
    # voxel of the coarse grid: interpolation there must bring it back.
    torch.manual_seed(0)
    x = torch.randn(1, 1, 32, 32, 32)

    def error(layer):
        here = layer(x)[..., 2:-2, 2:-2, 2:-2]
        there = layer(x.roll(1, dims=4))
        between = 0.5 * (there + there.roll(-1, dims=4))
        return relative(between[..., 2:-2, 2:-2, 2:-2], here)

    smooth = error(LatticeLowPass(2., stride=2))
    assert smooth < 0.5 * error(LatticeLowPass(1., stride=2))


@pytest.mark.parametrize('reduce', ['mean', 'sum'])
def test_global_pool(reduce):
    pool = LatticeGlobalPool(reduce)
    voxels = torch.randn(2, 3, 4, 3, 5)
    batch = Batch.from_data_list([voxel_to_graph(v) for v in voxels])
    expected = getattr(voxels, reduce)((2, 3, 4))
    assert torch.allclose(pool(voxels), expected, atol=1e-6)
    assert torch.allclose(pool(batch.x, batch), expected, atol=1e-5)


LATTICE = voxel_to_graph(torch.zeros(1, 5, 5, 5))
BAD = {
    'even': (lambda: conv(4), ["'kernel_size'", 'odd', 'got 4']),
    'groups': (lambda: LatticeSteerableConv(T, FieldType('0e', 'M')), [
        'one group']),
    'spacing': (lambda: conv(3, spacing=(1., -1., 1.)), ["'spacing'"]),
    'stride': (lambda: conv(3, stride=0), ["'stride'"]),
    'padding': (lambda: conv(3, padding=-1), ["'padding'"]),
    'kernel': (lambda: conv(3, kernel='gaussian'), [
        "'kernel'", "'implicit'", "got 'gaussian'"]),
    'cutoff': (lambda: conv(3, cutoff='none'), ["'cutoff'", "'sfcnn'"]),
    'order': (lambda: conv(3, order='fast'), ["'order'", "got 'fast'"]),
    'attributes': (lambda: conv(3, kernel=ImplicitBasis(
        'O(3)', attr_type=T)), ['without attributes']),
    'large': (lambda: conv(5)(torch.zeros(1, 1, 5, 4, 5)), [
        "'kernel_size'", '(5, 4, 5)', 'got 5']),
    'voxels': (lambda: conv(3)(torch.zeros(1, 5, 5, 5)), [
        '[B, 1, D, H, W]', 'got [1, 5, 5, 5]']),
    'channels': (lambda: conv(3)(torch.zeros(1, 2, 5, 5, 5)), [
        '[B, 1, D, H, W]', 'got [1, 2, 5, 5, 5]']),
    'rows': (lambda: conv(3)(torch.zeros(7, 1), LATTICE), [
        "'x'", '[125, 1]', 'got [7, 1]']),
    'width': (lambda: conv(3)(torch.zeros(125, 2), LATTICE), ["'x'"]),
    'stencil': (lambda: conv(5)(LATTICE.x, LATTICE), [
        "'kernel_size'", '5, 1 and 2', 'got 3, 1 and 1']),
    'ratios': (lambda: conv(3, spacing=(2., 1., 1.))(LATTICE.x, LATTICE), [
        "'spacing'"]),
    'filter': (lambda: LatticeLowPass()(LATTICE.x, LATTICE), [
        "'kernel_size'"]),
    'filter, voxels': (lambda: LatticeLowPass()(LATTICE.x), [
        '[B, C, D, H, W]']),
    'filter, small': (lambda: LatticeAvgPool(3, padding=0)(
        torch.zeros(1, 1, 2, 3, 3)), ['at least 3']),
    'pool, even': (lambda: LatticeAvgPool(2), ["'kernel_size'"]),
    'scale': (lambda: LatticeLowPass(-1.), ["'scale'"]),
    'reduce': (lambda: LatticeGlobalPool('max'), ["'reduce'"]),
    'no list': (lambda: conv(3, backend='reference')(
        LATTICE.x, voxel_to_graph(torch.zeros(1, 5, 5, 5),
                                  list_edges=False)), ["'list_edges=True'"]),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input(name):
    function, words = BAD[name]
    with pytest.raises(ValueError) as error:
        function()
    for word in ['Expected', 'got', *words]:
        assert word in str(error.value)


def test_not_a_lattice():
    with pytest.raises(TypeError, match='VoxelToGraph'):
        conv(3)(LATTICE.x, LATTICE.edge_index)
    assert repr(conv(3)) == ('LatticeSteerableConv(FieldType(1x0e, O(3)), '
                             'FieldType(1x0e, O(3)), kernel_size=3, stride=1)')
