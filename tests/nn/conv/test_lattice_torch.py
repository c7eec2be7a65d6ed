"""Lattices and their layers as a user of PyG and PyTorch meets them."""
import copy

import pytest
import torch
from helpers.lattice_ecosystem import T, lattice_of
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_steerable import FieldType
from pyg_steerable.graph import (
    LatticeData,
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
from pyg_steerable.ops.lattice import lattice_conv

BUILD = {
    'conv': (LatticeSteerableConv, {}),
    'strided': (LatticeSteerableConv, dict(stride=2)),
    'transposed': (LatticeSteerableConvTranspose, dict(stride=2)),
    'norm': (LatticeNormConv, {}),
    'block': (lambda *args: LatticeBlock(*args, norm=True), {}),
}


def case(name, occupancy=0.3, list_edges=True):
    torch.manual_seed(0)
    build, kwargs = BUILD[name]
    lattice = lattice_of(occupancy, list_edges=list_edges, **kwargs)
    rows = len(lattice.coord)
    if name == 'transposed':
        rows = lattice.num_targets
    layer = build(T, T, 3, **kwargs).double().eval()
    return layer, lattice, torch.randn(rows, T.dim, dtype=torch.float64)


WAYS = pytest.mark.parametrize('occupancy, list_edges', [
    (0.2, True), (0.2, False), (1., True), (1., False)])


@WAYS
@pytest.mark.parametrize('name', ['transposed', 'block'])
def test_compiles_without_a_break(name, occupancy, list_edges):
    torch._dynamo.reset()
    layer, lattice, x = case(name, occupancy, list_edges)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    found = []
    for function in (compiled, layer):
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        out = function(leaf, lattice)
        out.square().sum().backward()
        found.append([out, leaf.grad] + [p.grad.clone() for p in
                                         layer.parameters()])
    assert all(torch.allclose(a, b) for a, b in zip(*found))


@pytest.mark.parametrize('name', ['transposed', 'block'])
def test_voxels_compile_export_and_batch(name):
    torch._dynamo.reset()
    layer = case(name)[0]
    x = torch.randn(2, T.dim, 5, 5, 5).double()
    expected = layer(x)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    assert torch.allclose(compiled(x), expected)
    program = torch.export.export(layer, (x, ))
    assert torch.allclose(program.module()(x), expected)
    assert 'pyg_steerable' not in str(program.graph)
    out = torch.func.vmap(layer)(x[None])
    assert torch.allclose(out[0], expected)


class OnLattice(torch.nn.Module):
    """How a layer on a fixed lattice is exported."""
    def __init__(self, layer, lattice):
        super().__init__()
        self.layer, self.lattice = layer, lattice

    def forward(self, x):
        return self.layer(x, self.lattice)


class OnCoordinates(torch.nn.Module):
    """How one is exported for any voxels of a grid."""
    def __init__(self, layer, stencil):
        super().__init__()
        self.layer, self.stencil = layer, stencil

    def forward(self, x, coord):
        lattice = LatticeData(coord=coord, stencil=self.stencil)
        return self.layer(x, lattice)


@pytest.mark.parametrize('occupancy, list_edges', [(0.2, True), (1., False)])
@pytest.mark.parametrize('name', ['conv', 'transposed', 'block'])
def test_exports_on_a_lattice(name, occupancy, list_edges, tmp_path):
    layer, lattice, x = case(name, occupancy, list_edges)
    program = torch.export.export(OnLattice(layer, lattice), (x, ))
    torch.export.save(program, tmp_path / 'layer.pt2')
    program = torch.export.load(tmp_path / 'layer.pt2')
    assert torch.allclose(program.module()(2 * x), layer(2 * x, lattice))


def test_exports_for_any_voxels():
    layer, lattice, x = case('block')
    layer.conv.order = 'graph'
    rows = torch.export.Dim('rows', min=2)
    program = torch.export.export(
        OnCoordinates(layer, lattice.geometry), (x, lattice.coord),
        dynamic_shapes=({0: rows}, {0: rows}))
    for _ in range(3):
        other = lattice_of(float(torch.rand(())))
        assert torch.allclose(program.module()(other.x, other.coord),
                              layer(other.x, other))


@WAYS
@pytest.mark.parametrize('name', BUILD)
def test_transforms_of_torch_func(name, occupancy, list_edges):
    layer, lattice, x = case(name, occupancy, list_edges)
    several = torch.randn(3, *x.shape).double()
    expected = torch.stack([layer(a, lattice) for a in several])
    out = torch.func.vmap(layer, in_dims=(0, None))(several, lattice)
    assert torch.allclose(out, expected)
    if name == 'block':
        return  # not linear

    def function(x):
        return layer(x, lattice)

    out, tangent = torch.func.jvp(function, (x, ), (several[0], ))
    assert torch.allclose(tangent, function(several[0]) - function(0 * x))

    weights = dict(layer.named_parameters())
    grads = torch.func.vmap(torch.func.grad(
        lambda w, x: torch.func.functional_call(
            layer, w, (x, lattice)).square().sum()), in_dims=(None, 0))(
                weights, several)
    for i, a in enumerate(several):
        layer.zero_grad()
        layer(a, lattice).square().sum().backward()
        for key, p in layer.named_parameters():
            assert torch.allclose(grads[key][i], p.grad)


@pytest.mark.parametrize('matrix', [True, False])
@pytest.mark.parametrize('transposed', [True, False])
def test_derivatives_of_all_kinds(matrix, transposed):
    torch.manual_seed(0)
    lattice = lattice_of(grid=(3, 3, 4), stride=2)
    x = torch.randn(lattice.num_targets if transposed else
                    len(lattice.coord), 2).double().requires_grad_()
    weight = torch.randn(*((27, 2, 2) if matrix else (27, ))).double()
    weight.requires_grad_()

    def function(x, weight):
        return lattice_conv(x, weight, lattice.edges, transposed)

    check = dict(fast_mode=True, check_batched_grad=True)
    assert torch.autograd.gradcheck(function, (x, weight),
                                    check_forward_ad=True, **check)
    assert torch.autograd.gradgradcheck(function, (x, weight), **check)
    assert torch.autograd.gradgradcheck(function, (x, weight),
                                        fast_mode=True,
                                        check_fwd_over_rev=True)

    def loss(x):
        return function(x, weight).pow(3).sum()

    H = torch.autograd.functional.hessian(loss, x)
    for other in (torch.func.hessian(loss)(x),
                  torch.autograd.functional.hessian(loss, x, vectorize=True)):
        assert torch.allclose(other, H)


def test_operators_pass_the_check_of_torch():
    from pyg_steerable.ops import lattice as ops
    lattice = lattice_of(list_edges=True)
    x = torch.randn(len(lattice.coord), 2).double().requires_grad_()
    weight = torch.randn(27, 2, 3).double().requires_grad_()
    args = (x, weight, *lattice.edges, False)
    torch.library.opcheck(ops._convolve, args)
    g = torch.randn(lattice.num_targets, 3).double().requires_grad_()
    torch.library.opcheck(ops._correlate, (x, g, *lattice.edges, False,
                                           False))


@pytest.mark.parametrize('name', BUILD)
def test_shapes_without_values(name):
    layer, lattice, x = case(name)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor(x)
        out = layer(fake, lattice)
    assert out.shape == layer(x, lattice).shape
    layer = layer.to('meta')
    for autocast in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            out = layer(torch.empty(2, T.dim, 5, 5, 5, device='meta'))
        assert out.is_meta
    assert layer(x.to('meta'), lattice.clone().to('meta')).is_meta


@pytest.mark.parametrize('name', BUILD)
def test_memory_formats(name):
    layer = case(name)[0]
    x = torch.randn(2, T.dim, 5, 5, 5).double()
    expected = layer(x)
    layer = layer.to(memory_format=torch.channels_last_3d)
    x = x.to(memory_format=torch.channels_last_3d)
    assert torch.allclose(layer(x), expected)


HALVES = pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])


@HALVES
@pytest.mark.parametrize('how', ['cast', 'autocast'])
@pytest.mark.parametrize('occupancy', [None, 0.2, 1.])
@pytest.mark.parametrize('name', BUILD)
def test_half_precision_with_outliers(name, occupancy, how, dtype):
    layer, lattice, x = case(name, occupancy or 0.2)
    layer.train()
    if occupancy is None:
        x, lattice = torch.randn(2, T.dim, 7, 7, 7).double(), None
    x.view(-1)[::97] *= 1e4
    x = x.clamp(-1e4, 1e4).to(dtype).double()
    exact = copy.deepcopy(layer)(x, lattice)
    layer = layer.float()
    if how == 'cast':
        layer = layer.to(dtype)
        out = layer(x.to(dtype), lattice)
    else:
        with torch.autocast('cpu', dtype):
            out = layer(x.float(), lattice)
            half = layer(x.to(dtype), lattice)
        assert half.isfinite().all()
    assert out.isfinite().all()
    assert out.dtype == dtype or how == 'autocast'
    error = (out.double() - exact).norm() / exact.norm()
    assert error < (2e-2 if dtype is torch.bfloat16 else 4e-3)
    for buffer in layer.buffers():
        assert buffer.isfinite().all()
    (1e-3 * out.float() / exact.abs().max()).square().mean().backward()
    for p in layer.parameters():
        assert p.grad.isfinite().all()


@HALVES
def test_pools_in_half_precision(dtype):
    x = torch.full((2, 3, 16, 16, 16), 1e4, dtype=dtype)
    lattice = voxel_to_graph(x[0], kernel_size=3)
    small = voxel_to_graph(x[0], kernel_size=5)
    for out in (LatticeGlobalPool()(x), LatticeAvgPool(3, 1)(x),
                LatticeLowPass(2.)(x), LatticeDropout(
                    FieldType('3x0e', 'SO(3)'), 0.2)(x),
                LatticeGlobalPool()(lattice.x, lattice),
                LatticeAvgPool(3, 1)(lattice.x, lattice),
                LatticeLowPass(2.)(small.x, small)):
        assert out.dtype == dtype and out.isfinite().all()
        assert 0 < out.max() < 1.3e4


def test_features_in_double_precision():
    layer, lattice, x = case('block')
    layer = layer.float()
    assert layer(x, lattice).dtype == torch.float32
    assert layer(torch.randn(1, T.dim, 4, 4, 4).double()).dtype \
        == torch.float32
