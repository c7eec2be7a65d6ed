"""The contract of layers: types, checks, grids and examples."""
import itertools

import pytest
import torch
from torch_geometric.nn import MessagePassing

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    FieldBatchNorm,
    FieldModule,
    Gate,
    LatticeAvgPool,
    LatticeBlock,
    LatticeGate,
    LatticeGlobalPool,
    LatticeLowPass,
    LatticeSteerableConv,
    LatticeSteerableConvTranspose,
    Linear,
    NormActivation,
    NormGate,
    lattice_stack,
)
from pyg_steerable.nn.chain import Chain, as_field_module
from pyg_steerable.nn.kernel.kernel import Matrices
from pyg_steerable.nn.pointwise.axis import OnAxis, on_axis
from pyg_steerable.symmetry.grid import box_symmetries, cube_symmetries
from pyg_steerable.testing import assert_equivariant

T = FieldType('2x0e + 1x1o', 'SO(3)')
GATED = LatticeGate(T).in_type


class Twice(FieldModule):
    """The least that a layer has."""
    def __init__(self, field_type):
        super().__init__()
        self.set_types(field_type)

    def forward(self, x):
        self.check_input(x)
        return 2 * x


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Types and input ###########################################################


def test_types():
    layer = Twice(T)
    assert layer.in_type is T and layer.out_type is T
    layer.set_types(GATED, T)
    assert (layer.in_type, layer.out_type) == (GATED, T)
    with pytest.raises(ValueError, match='of one group'):
        layer.set_types(T, FieldType('0e', 'O(3)'))
    with pytest.raises(TypeError, match='Expected a FieldType'):
        layer.set_types('2x0e + 1x1o')
    assert (layer.in_type, layer.out_type) == (GATED, T)
    assert FieldModule().in_type is FieldModule().out_type is None


@pytest.mark.parametrize('x, error, words', [
    ([1.], TypeError, "'x' to be a tensor of fields"),
    (torch.ones(3, 5).to_sparse(), TypeError, 'dense'),
    (torch.ones(3, 5).long(), TypeError, 'int64'),
    (torch.ones(3, 4), ValueError, r'5 numbers in its last.*\[3, 4\]'),
    (torch.ones(()), ValueError, r'\[\]'),
    (torch.ones(3, 5, device='meta'), ValueError, 'one device'),
])
def test_input_is_checked(x, error, words):
    layer = FieldBatchNorm(T)
    with pytest.raises(error, match=words):
        layer.check_input(x)
    with pytest.raises(error, match=words):
        layer(x)


def test_input_is_checked_along_the_axis_and_by_its_name():
    layer = LatticeGate(T)
    with pytest.raises(ValueError, match="'voxels'.*6 numbers in its second"):
        layer.check_input(torch.ones(6), 'voxels')
    layer.check_input(torch.ones(2, 6, 3, 3, 3))
    # Without numbers of its own a layer is where its parts are, or anywhere.
    Twice(T).check_input(torch.ones(3, 5, device='meta'))
    with pytest.raises(ValueError, match='one device'):
        NormGate(T).check_input(torch.ones(3, 5, device='meta'))


def test_fields_of_any_type_are_dense_tensors():
    pool = LatticeLowPass(2.)
    pool.check_input(torch.ones(2, 7, 3, 3, 3))
    with pytest.raises(TypeError, match="'x' to be a tensor of fields"):
        pool.check_input([1.])


def test_dtype():
    assert Twice(T).dtype == torch.get_default_dtype()
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert Linear(T, T).to(dtype).dtype == dtype
        assert NormGate(T).to(dtype).dtype == dtype
        assert LatticeLowPass(2.).to(dtype).dtype == dtype


class Sum(MessagePassing, FieldModule):
    """Mixed with a layer of PyG's."""
    def __init__(self, field_type):
        super().__init__(aggr='sum')
        self.set_types(field_type)
        self.register_constant('factor', torch.tensor(1 / 3).double())

    def forward(self, x, edge_index):
        self.check_input(x)
        return self.factor * self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j

    def example(self, generator):
        edge_index = torch.randint(10, (2, 30), generator=generator)
        return super().example(generator).beside(edge_index)


def test_message_passing_is_a_field_module():
    layer = Sum(T)
    assert_equivariant(layer)
    assert layer.double().factor == torch.tensor(1 / 3).double()  # exact
    assert layer.dtype == torch.float64


# Another axis ##############################################################


def test_one_gate_for_both_axes():
    class Second(Gate):
        channel_axis = 1

    x = torch.randn(2, GATED.dim, 3, 4, 5)
    expected = Gate(T)(x.movedim(1, -1)).movedim(-1, 1)
    assert torch.equal(Second(T)(x), expected)
    rows = torch.randn(7, GATED.dim)
    assert torch.equal(Second(T)(rows), Gate(T)(rows))


def test_any_layer_along_another_axis():
    act = NormActivation(T)
    layer, x = on_axis(act, 1), torch.randn(2, T.dim, 3, 4, 5)
    assert torch.equal(layer(x), act(x.movedim(1, -1)).movedim(-1, 1))
    assert (layer.in_type, layer.channel_axis) == (T, 1)
    assert_equivariant(layer)
    gate = LatticeGate(T)
    assert on_axis(gate, 1) is gate and on_axis(act, -1) is act
    plain = on_axis(torch.nn.Tanh(), 1)
    assert isinstance(plain, OnAxis) and torch.equal(plain(x), x.tanh())
    with torch.no_grad():
        act.weight.zero_()
    layer.reset_parameters()
    assert act.weight.eq(1).all()
    assert list(layer.state_dict()) == ['layer.weight', 'layer.bias']


# Grids #####################################################################


@pytest.mark.parametrize('size, stride, padding', [*itertools.product(
    (1, 3, 5), (1, 2, 3), (0, 1, 2))])
@pytest.mark.parametrize('build', [
    lambda *n: LatticeSteerableConv(T, T, n[0], stride=n[1], padding=n[2]),
    lambda *n: LatticeBlock(T, T, n[0], stride=n[1], padding=n[2]),
    lambda *n: LatticeAvgPool(*n),
    lambda *n: LatticeSteerableConvTranspose(T, T, n[0], stride=n[1],
                                             padding=n[2]),
])
def test_the_grid_of_the_output(build, size, stride, padding):
    layer = build(size, stride, padding)
    for n in range(1, 8):
        grid = layer.grid_after((n, n + stride, n))
        if grid is None:
            continue
        x = torch.randn(1, T.dim, n, n + stride, n)
        assert layer(x).shape[2:] == grid
        if not isinstance(layer, LatticeSteerableConvTranspose):
            # The last voxel is as far from its side as the first one.
            assert (grid[0] - 1) * stride + size == n + 2 * padding


def test_what_does_not_fit_is_no_grid():
    conv = LatticeSteerableConv(T, T, 3, stride=2)
    assert conv.grid_after((5, 5, 5)) == (3, 3, 3)
    assert conv.grid_after((4, 4, 4)) is None  # off the centre
    assert conv.grid_after((1, 5, 5)) is None  # too few
    up = LatticeSteerableConvTranspose(T, T, 3, stride=2, padding=2)
    assert up.grid_after((1, 1, 1)) is None
    assert LatticeGate(T).grid_after((4, 1, 2)) == (4, 1, 2)


def test_the_grid_of_an_example_is_the_smallest():
    for strides, side in (([1], 3), ([2], 3), ([2, 2], 5), ([2, 2, 2], 9)):
        net = Chain(lattice_stack([T] * (len(strides) + 1), strides,
                                  kernel_size=3))
        voxels, = net.example(generator()).inputs
        assert voxels.shape == (1, T.dim, side, side, side)
    never = Chain(LatticeAvgPool(3, 2, 1), LatticeAvgPool(1, 2, 0),
                  LatticeSteerableConv(T, T, 1, stride=300, padding=0))
    with pytest.raises(ValueError, match='keeps the centre'):
        never.example(generator())


def test_symmetries():
    assert len(cube_symmetries()) == len(box_symmetries()) == 48
    assert len(box_symmetries((2., 1., 1.))) == 16
    assert len(box_symmetries((2., 1., 1.), (1, 1, 3))) == 8
    flat = box_symmetries((2., 1., 1.))  # z by itself
    assert flat[:, 2, :2].eq(0).all() and flat[:, :2, 2].eq(0).all()
    along = [LatticeSteerableConv(T, T, 3, spacing=spacing) for spacing in
             ((2., 1., 1.), (1., 1., 2.))]
    assert len(Chain(*along).symmetries()) == 8
    assert len(Chain(along[0], LatticeGate(T)).symmetries()) == 16


# Examples ##################################################################


def test_examples():
    rows = Twice(T).example(generator())
    assert rows.inputs[0].shape == (10, T.dim)
    assert (rows.in_types, rows.out_types) == ((T, ), (T, ))
    assert rows.inputs[0].dtype == torch.float64 and rows.allowed is None
    with_index = rows.beside(torch.arange(10), 3)
    assert with_index.in_types == (T, None, None)
    assert with_index.inputs[2] == 3 and len(with_index.inputs) == 3
    empty = FieldType([], 'SO(3)')
    assert Twice(empty).example(generator()).in_types == (empty, )
    pooled = LatticeGlobalPool().example(generator())
    assert isinstance(pooled.out_types[0], FieldType)


def test_chains():
    plain = torch.nn.Sequential(
        LatticeLowPass(2.), torch.nn.Sequential(
            LatticeSteerableConv(T, GATED, 3), LatticeGate(T)),
        LatticeGlobalPool())
    chain = as_field_module(plain)
    assert (chain.in_type, chain.out_type) == (T, T)
    assert chain.channel_axis == 1
    example = chain.example(generator())
    assert example.out_types == (T, )
    assert torch.equal(chain.double()(*example.inputs),
                       plain(*example.inputs))
    assert as_field_module(chain) is chain


def test_matrices_turn():
    kind = Matrices(T, FieldType('1x2e + 1x0e', 'SO(3)'))
    R, S = kind.group.sample(2, generator=generator())
    k = torch.randn(4, 6, T.dim, dtype=torch.float64)
    x = torch.randn(4, T.dim, dtype=torch.float64)
    y = (k @ x[:, :, None])[..., 0]
    turned = (kind.act(k, R) @ T.act(x, R)[:, :, None])[..., 0]
    assert torch.allclose(turned, kind.out_type.act(y, R), atol=1e-12)
    assert torch.allclose(kind.act(kind.act(k, S), R), kind.act(k, R @ S),
                          atol=1e-12)
