import copy

import pytest
import torch
from helpers.models_lattice import NETS, ROTATIONS, A, B, turned
from torch_geometric.data import Batch

from pyg_steerable import FieldType
from pyg_steerable.graph import voxel_to_graph
from pyg_steerable.models import (
    CathNet,
    ShrecNet,
)
from pyg_steerable.nn import (
    FieldBatchNorm,
    LatticeBlock,
    LatticeDropout,
    LatticeGate,
    LatticeNormConv,
    LatticeSteerableConv,
    NormActivation,
    QuotientELU,
    TensorProductActivation,
    lattice_stack,
)

MIRROR = torch.diag(torch.tensor([-1., 1., 1.], dtype=torch.float64))


def randn(field_type, size, batch=1):
    return torch.randn(batch, field_type.dim, *3 * [size],
                       dtype=torch.float64)


@pytest.mark.parametrize('activation', [
    LatticeGate, NormActivation, TensorProductActivation, None
])
def test_blocks_are_equivariant(activation):
    torch.manual_seed(0)
    block = LatticeBlock(A, B, 3, activation=activation, norm=True).double()
    x = randn(A, 5, 2)
    out = block(x)  # in training: statistics commute with rotations, too
    assert out.shape == (2, B.dim, 5, 5, 5)
    for R in ROTATIONS[::2]:
        error = (block(turned(x, A, R)) - turned(out, B, R)).abs().max()
        assert error < 1e-12 * out.abs().max()
    moved = turned(block(turned(x, A, MIRROR)), B, MIRROR)
    assert (moved - out).abs().max() > 1e-3


def test_quotient_activation_on_voxels():
    T = FieldType.sphere(2, 1, 'O')  # a finite group: exact
    torch.manual_seed(0)
    block = LatticeBlock(T, T, 3, activation=QuotientELU).double()
    x, R = randn(T, 4), ROTATIONS[7]
    error = block(turned(x, T, R)) - turned(block(x), T, R)
    assert error.abs().max() < 1e-12


def test_gate():
    gate = LatticeGate(B)  # blocks 1x0e, 2x1o, 1x0e, gates first
    assert gate.num_gates == 2
    x = torch.randn(4, gate.in_type.dim, 2, 2, 2)
    out = gate(x)
    assert torch.equal(out[:, 0], x[:, 2].relu())
    assert torch.equal(out[:, 7], x[:, 9].relu())
    for copy_ in range(2):
        here = slice(1 + 3 * copy_, 4 + 3 * copy_)
        expected = x[:, 2:][:, here] * x[:, copy_, None].sigmoid()
        assert torch.allclose(out[:, here], expected)
    nodes = x.movedim(1, -1).flatten(0, 3)
    assert torch.allclose(gate(nodes), out.movedim(1, -1).flatten(0, 3))


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('normalization', ['component', 'norm'])
def test_folded_norm(bias, training, normalization):
    """As the norm and the convolution one after the other, where no voxels
    are missing.
    """
    torch.manual_seed(0)
    options = dict(momentum=0.3, normalization=normalization)
    conv = LatticeNormConv(A, B, 3, padding=0, bias=bias, **options).double()
    plain = LatticeSteerableConv(A, B, 3, padding=0, bias=bias).double()
    norm = FieldBatchNorm(A, affine=False, **options).double()
    plain.load_state_dict(conv.state_dict(), strict=False)
    if bias:
        torch.nn.init.normal_(plain.lin.bias)
        conv.lin.bias.data = plain.lin.bias.data.clone()
    x = (3 * randn(A, 5, 2) + 2).requires_grad_()
    for layer in (conv, norm):
        layer(x if layer is conv else x.movedim(1, -1))  # statistics
        layer.train(training)
    expected = plain(norm(x.movedim(1, -1)).movedim(-1, 1))
    out = conv(x)
    assert torch.allclose(out, expected, atol=1e-12, rtol=0)
    assert torch.allclose(norm.running_mean, conv.norm.running_mean)
    assert torch.allclose(norm.running_var, conv.norm.running_var)
    for y in (out, expected):
        x.grad = None
        (y**3).sum().backward()
        grads = (x.grad,
                 (conv if y is out else plain).kernel.product.weight.grad)
        if y is out:
            ours = grads
    for mine, theirs in zip(ours, grads):
        assert torch.allclose(mine, theirs, atol=1e-10 * theirs.abs().max())


def test_norms_of_the_papers_networks():
    """Scalars less their mean have unit variance, and other fields a mean
    square norm of one, whatever their degree.
    """
    x = 3 * torch.randn(500, A.dim).double() + 1
    y = FieldBatchNorm(A, eps=0., affine=False,
                       normalization='norm').double()(x)
    one = torch.tensor(1.).double()
    for fields in (y[:, :1], y[:, 1:2], y[:, 2:5], y[:, 5:]):
        assert torch.allclose(fields.square().sum(1).mean(), one)
    assert torch.allclose(y[:, :2].mean(0), 0 * one)
    for model in (ShrecNet(fields=7 * ('1x0e + 1x1o', ), invariants=1),
                  CathNet(channels=4 * (1, ), blocks=4 * (1, ))):
        sizes = {float(m.norm.size_of.sum()) / m.in_type.dim
                 for m in model.modules() if isinstance(m, LatticeNormConv)}
        assert sizes == {1.}  # no division by the number of components
    with pytest.raises(ValueError, match="'normalization'"):
        FieldBatchNorm(A, normalization='max')


def ways(path):
    return {'backend' if path == 'reference' else 'order': path}


@pytest.mark.parametrize('path', ['graph', 'dense', 'reference'])
@pytest.mark.parametrize('training', [False, True])
def test_norm_on_graphs(path, training):
    torch.manual_seed(0)
    block = LatticeBlock(A, B, 3, norm=True, **ways(path)).double()
    x = randn(A, 5, 2) + 1
    block(x)
    block.train(training)
    twin = copy.deepcopy(block)
    lattice = Batch.from_data_list([voxel_to_graph(v, 3) for v in x])
    out = lattice.scatter(block(lattice.x, lattice))
    assert torch.allclose(out, twin(x), atol=1e-12, rtol=0)
    for mine, theirs in zip(block.buffers(), twin.buffers()):
        assert torch.allclose(mine, theirs)


def test_norm_on_sparse_graphs_counts_nodes_only():
    torch.manual_seed(0)
    x, mask = randn(A, 5)[0] + 1, torch.rand(5, 5, 5) < 0.6
    outs, states = [], []
    for path in ('graph', 'dense'):
        torch.manual_seed(1)
        conv = LatticeNormConv(A, B, 3, order=path).double()
        lattice = voxel_to_graph(x, 3, mask=mask)
        outs.append(conv(lattice.x, lattice))
        states.append(conv.norm.running_mean)
    assert torch.allclose(*outs, atol=1e-12, rtol=0)
    assert torch.equal(*states)
    mean = lattice.x.mean(0)[:2]
    assert torch.allclose(states[0].abs(), 0.1 * mean.abs())


def test_export_holds_the_norm():
    torch.manual_seed(0)
    conv = LatticeNormConv(A, B, 3, stride=2).double()
    x = randn(A, 7, 2) + 1
    conv(x)
    conv.eval()
    assert torch.allclose(conv.to_conv3d()(x), conv(x), atol=1e-12, rtol=0)
    conv.reset_parameters()
    assert not conv.norm.running_mean.any()


def test_norm_under_autocast():
    torch.manual_seed(0)
    conv = LatticeNormConv(A, B, 3)
    x = randn(A, 5, 2).float()
    expected = conv(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = conv(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out - expected).norm() < 3e-2 * expected.norm()


def test_dropout():
    torch.manual_seed(0)
    T = FieldType('40x0e + 40x1o', 'SO(3)')
    drop, x = LatticeDropout(T, 0.25), torch.ones(3, T.dim, 3, 3, 3)
    out = drop(x)
    assert torch.equal(out, out[..., :1, :1, :1].expand_as(out))
    vectors = out[:, 40:, 0, 0, 0].unflatten(1, (40, 3))
    assert torch.equal(vectors, vectors[..., :1].expand_as(vectors))
    assert set(out.unique().tolist()) == {0., float(out.max())}
    assert out.max() == pytest.approx(4 / 3)
    assert 0.6 < (out > 0).float().mean() < 0.9
    assert not torch.equal(out[0], out[1])
    lattice = Batch.from_data_list([voxel_to_graph(v, 3) for v in x])
    nodes = lattice.scatter(drop(lattice.x, lattice))
    assert torch.equal(nodes, nodes[..., :1, :1, :1].expand_as(nodes))
    assert not torch.equal(nodes[0], nodes[1])
    assert drop.eval()(x) is x


def test_stack():
    rough = lattice_stack([A, B, A], [2, 1], kernel_size=3)
    smooth = lattice_stack([A, B, A], [2, 1], kernel_size=3, smooth=True)
    x = torch.randn(1, A.dim, 7, 7, 7)
    assert rough(x).shape == smooth(x).shape == (1, A.dim, 4, 4, 4)
    assert rough[0].conv.stencil.stride == (2, 2, 2)
    assert smooth[0].conv.stencil.stride == (1, 1, 1)
    before = rough[0].conv.kernel.product.weight.clone()
    rough[0].reset_parameters()
    assert not torch.equal(rough[0].conv.kernel.product.weight, before)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('how', ['cast', 'autocast'])
@pytest.mark.parametrize('name', NETS)
def test_half_precision_with_outliers(name, how, dtype):
    torch.manual_seed(0)
    cls, size, small = NETS[name]
    model = cls(**small).float().train()
    x = torch.rand(2, model.in_channels, size, size, size)
    x.view(-1)[::997] = 1e4
    if how == 'cast':
        out = model.to(dtype)(x.to(dtype))
        assert out.dtype == dtype
    else:
        with torch.autocast('cpu', dtype):
            out = model(x)
    assert out.isfinite().all()
    assert all(b.isfinite().all() for b in model.buffers())
    # Voxels of other types are taken, too.
    assert model(x.double()).isfinite().all()
