"""What a PyG user expects of a convolution."""
import copy
import io
import os
import pickle
import shutil
import socket
import time
import warnings
from datetime import timedelta

import pytest
import torch
import torch.multiprocessing as mp
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.explain import (
    Explainer,
    GNNExplainer,
    GraphMaskExplainer,
)
from torch_geometric.nn import HeteroConv, Sequential, to_hetero
from torch_geometric.testing import withPackage
from torch_geometric.utils import to_torch_csc_tensor

from pyg_steerable import FieldType, Group
from pyg_steerable.kernels import HarmonicBasis
from pyg_steerable.nn import (
    FieldBatchNorm,
    Gate,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    InvariantReadout,
    Linear,
    NormGate,
    SteerableConv,
    calibrate,
)

CONVS = [ImplicitSteerableConv, HarmonicSteerableConv]
ORDERS = ['reference', 'aggregate', 'source']
N, E = 9, 30
convs = pytest.mark.parametrize('cls', CONVS)


def ways(order):
    """Arguments: plain messages are a backend, all else are orders."""
    return (dict(order='auto', backend='reference') if order == 'reference'
            else dict(order=order, backend='auto'))


def evaluate(conv, order):
    """The layer itself, which goes another way from now on."""
    vars(conv).update(ways(order))
    return conv


def build(cls, group='O(3)', dtype=torch.float64, **kwargs):
    kwargs.setdefault('radius', 2.)  # of normal positions
    if cls is ImplicitSteerableConv:
        kwargs.setdefault('hidden', 3)
    conv = cls(FieldType('3x0e + 2x1o', group),
               FieldType('2x0e + 2x1o + 1x2e', group), **kwargs)
    return conv.to(dtype).eval()


def graph(num_src=N, num_dst=N, num_edges=E, dtype=torch.float64, dim=9):
    """Features, positions and edges, none of them twice."""
    x = torch.randn(num_src, dim, dtype=dtype)
    pos = torch.randn(num_src, 3, dtype=dtype)
    pairs = torch.randperm(num_src * num_dst)[:num_edges]
    edge_index = torch.stack([pairs // num_dst, pairs % num_dst])
    return x, pos, edge_index


def close(a, b, tol=1e-10):
    assert a.dtype == b.dtype
    assert torch.allclose(a, b, rtol=tol, atol=tol), (a - b).abs().max()


def derivatives(conv, x, pos, edge_index, **kwargs):
    """Output, first and second derivatives, as one list."""
    x = x.clone().requires_grad_()
    pos = pos.clone().requires_grad_()
    conv.zero_grad()
    out = conv(x, pos, edge_index, **kwargs)
    inputs = [x, pos, *(p for p in conv.parameters() if p.numel())]
    grads = torch.autograd.grad(out.sin().sum(), inputs, create_graph=True)
    total = sum(g.square().sum() for g in grads)
    return [out, *grads, *torch.autograd.grad(total, inputs)]


@convs
def test_inputs(cls):
    x, pos, edge_index = graph()
    conv = build(cls)
    assert str(conv) == (
        f'{cls.__name__}(FieldType(3x0e+2x1o, O(3)), '
        f'FieldType(2x0e+2x1o+1x2e, O(3)))')
    out = conv(x, pos, edge_index)
    assert out.shape == (N, 13)

    close(conv(x, pos, edge_index.int()), out)
    for order in (None, 'row', 'col'):
        index = EdgeIndex(edge_index, sparse_size=(N, N))
        if order is not None:
            index = index.sort_by(order)[0]
        close(conv(x, pos, index), out)
    adj = to_torch_csc_tensor(edge_index, size=(N, N))
    close(conv(x, pos, adj.t()), out)
    close(conv(x, pos, adj.to_sparse_coo().t().coalesce()), out)

    weight = torch.rand(E, dtype=torch.float64)
    weighted = conv(x, pos, edge_index, edge_weight=weight)
    assert not torch.allclose(weighted, out)
    close(conv(x, pos, edge_index, edge_weight=torch.ones(E)), out)
    adj = to_torch_csc_tensor(edge_index, weight, size=(N, N))
    close(conv(x, pos, adj.t()), weighted)


@convs
@pytest.mark.parametrize('layout', ['coo', 'uncoalesced', 'csr', 'csc'])
def test_sparse_matrices(cls, layout):
    """Also compiled, as far as PyTorch can (the graph breaks there)."""
    torch._dynamo.reset()
    x, pos, edge_index = graph(6, 8)
    pos = (pos, torch.randn(8, 3).double())
    x = (x, torch.randn(8, 9).double())
    weight = torch.rand(E, dtype=torch.float64)
    if layout == 'uncoalesced':  # one edge twice
        edge_index = torch.cat([edge_index, edge_index[:, :1]], 1)
        weight = torch.cat([weight, weight[:1]])
    conv = build(cls)
    out = conv(x, pos, edge_index, edge_weight=weight)
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), weight, (8, 6))
    if layout == 'coo':
        adj_t = adj_t.coalesce()
    if layout in ('csr', 'csc'):
        adj_t = getattr(adj_t, f'to_sparse_{layout}')()
    close(conv(x, pos, adj_t), out)
    assert layout != 'uncoalesced' or not adj_t.is_coalesced()
    close(torch.compile(conv, backend='aot_eager')(x, pos, adj_t), out)
    # Values have derivatives.
    if layout != 'uncoalesced':
        adj_t.requires_grad_()
        values = torch.autograd.grad(conv(x, pos, adj_t).sum(), adj_t)[0]
        weight.requires_grad_()
        expected = torch.autograd.grad(
            conv(x, pos, edge_index, edge_weight=weight).sum(), weight)[0]
        close(values.to_dense()[edge_index[1], edge_index[0]], expected)
    with pytest.raises(ValueError, match=r'shape \[8, 6\], .*got \[6, 8\]'):
        conv(x, pos, adj_t.detach().t())


@convs
def test_one_tensor_for_two_sets(cls):
    """As in PyG's PointNetConv, it belongs to the sources."""
    conv = build(cls)
    x, pos, edge_index = graph(6, 8)
    pair = (pos, torch.randn(8, 3).double())
    close(conv(x, pair, edge_index), conv((x, None), pair, edge_index))
    back = build(cls, flow='target_to_source')
    back.load_state_dict(conv.state_dict())
    close(back(x, pair[::-1], edge_index.flip(0)), conv(x, pair, edge_index))
    # Twice the same positions are one set.
    x, pos, edge_index = graph()
    close(conv(x, (pos, pos), edge_index), conv(x, pos, edge_index))
    assert (conv.in_channels, conv.out_channels) == (9, 13)


@convs
@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('aggr', ['sum', 'mean'])
def test_dtypes(cls, order, aggr):
    """Everything is cast to the dtype of the weights."""
    x, pos, edge_index = graph()
    weight = torch.rand(E).double()
    conv = build(cls, **ways(order), aggr=aggr)
    out = conv(x, pos, edge_index, edge_weight=weight)
    for layer, tol in ((torch.float64, 1e-10), (torch.float32, 1e-4),
                       (torch.bfloat16, 5e-2)):
        conv.to(layer)
        for a in (torch.float64, torch.float32, torch.bfloat16):
            for b in (torch.float64, torch.float32):
                got = conv(x.to(a), pos.to(b), edge_index,
                           edge_weight=weight.to(a))
                assert got.dtype == layer
                tolerance = max(tol, 3e-2 if a == torch.bfloat16 else
                                1e-4 if torch.float32 in (a, b) else 0.)
                assert (got - out).norm() < tolerance * out.norm()
    if cls is ImplicitSteerableConv:
        conv = build(cls, **ways(order), edge_type=FieldType('1x0e')).float()
        conv(x, pos, edge_index, weight[:, None])


def test_text_and_group():
    T = FieldType('2x1o', 'SO(2)')
    for make in CONVS:
        conv = make('2x1o', '2x1o', group='SO(2)')
        assert conv.in_type == conv.out_type == T
        assert make(T, T).in_type == make(T, '2x1o', group='SO(2)').in_type
        with pytest.raises(TypeError, match='FieldType'):
            make('2x1o', '2x1o')
        with pytest.raises(ValueError, match="'in_type' of .*SO.3.*'group'"):
            make(T, T, group='SO(3)')
    conv = ImplicitSteerableConv('1x0e', '1x0e', '1x1o', '1x0e',
                                 group='SO(2)')
    assert conv.edge_type == FieldType('1x1o', 'SO(2)')


def test_outputs_that_nothing_reaches():
    for make in CONVS:
        with pytest.raises(ValueError, match="'out_type' .*4x0o"):
            make('1x0e', '4x0o', group='O(3)')
    with pytest.warns(UserWarning, match=r'to 4x0o in .*2x1o\+4x0o'):
        HarmonicSteerableConv('1x0e', '2x1o + 4x0o', group='O(3)')
    with pytest.warns(UserWarning, match='to 1x1o, 1x2e in'):
        HarmonicSteerableConv('1x0e', '1x0e + 1x1o + 1x2e', max_degree=0,
                              group='O(3)')
    # Of a vector, rotations about z leave the third component alone.
    with pytest.warns(UserWarning, match='to a part of 1x1o in'):
        HarmonicSteerableConv('1x0e', '1x1o', max_degree=0, group='SO(2)')
    # The linear map of the nodes themselves counts, a bias does not.
    HarmonicSteerableConv('1x0o', '1x0o', max_degree=0, group='O(3)')
    with pytest.warns(UserWarning, match='to 1x2e in'):
        HarmonicSteerableConv('1x1o', '1x1o + 1x2e', max_degree=0,
                              group='SO(3)')


def neighbourhoods(distance, n=40):
    """Stars with one target each, at some distances."""
    way = torch.nn.functional.normalize(torch.randn(n, 6, 3), dim=-1)
    pos = torch.cat([torch.zeros(n, 3), (distance * way).flatten(0, 1)])
    source = torch.arange(n, 7 * n)
    return torch.randn(7 * n, 1), pos, torch.stack([source,
                                                    (source - n) // 6])


@convs
def test_neighbours_out_of_reach(cls):
    for order in ('auto', 'reference'):
        conv = cls('1x0e', '1x0e + 1x1o', group='O(3)', **ways(order))
        args = neighbourhoods(16.)
        conv.eval()(*args)  # in training only
        with pytest.warns(UserWarning, match='100% .* beyond .*radius=16'
                          ) as caught:
            conv.train()(*args)
        assert 'calibrate' in str(caught[0].message)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            conv(*args)  # once
            for good in (0.7, 1., 1.3):
                cls('1x0e', '1x1o', group='O(3)')(*neighbourhoods(good))
            x, pos, _ = args  # a node that is its own neighbour says nothing
            cls('1x0e', '1x1o', group='O(3)')(
                x, pos, torch.arange(len(x)).expand(2, -1))
        with pytest.warns(UserWarning, match='farther than 0.01.*radius=0.01'):
            cls('1x0e', '1x1o', group='O(3)')(*neighbourhoods(0.01))


@convs
def test_no_looks_while_tracing(cls):
    torch._dynamo.reset()
    args = neighbourhoods(16.)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        conv = cls('1x0e', '1x0e', group='O(3)')
        torch.compile(conv, fullgraph=True, backend='eager')(*args)
        x, pos, edge_index = args
        torch.func.vmap(lambda x: conv(x, pos, edge_index))(x[None])
        conv.to('meta')(*(a.to('meta') for a in args))
        assert not conv._seen
        conv = cls('1x0e', '1x0e', group='O(3)')
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = [mode.from_tensor(a) for a in args]
            assert conv(*fake).shape == (len(x), 1)
        assert not conv._seen


@convs
@pytest.mark.parametrize('size', [1e-3, 1., 16., 1e4])
def test_calibrate(cls, size):
    """Then units do not matter."""
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            T = FieldType('4x0e + 2x1o')
            self.first = cls(FieldType('1x0e'), T)
            self.norm = FieldBatchNorm(T)
            self.second = cls(T, T)

        def forward(self, data):
            x = self.first(data.x, data.pos, data.edge_index)
            return self.second(self.norm(x), data.pos, data.edge_index)

    x, pos, edge_index = neighbourhoods(1 + 0.3 * torch.randn(40, 6, 1))
    data = Data(x=x, pos=size * pos, edge_index=edge_index)
    torch.manual_seed(0)
    model = Two().eval()
    before = [m.training for m in model.modules()]
    found = calibrate(model, data)
    assert list(found) == ['first', 'second']
    assert before == [m.training for m in model.modules()]
    assert model.norm.momentum == 0.1
    distance = size * (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=1)
    expected = (distance.square().mean().sqrt()
                if cls is ImplicitSteerableConv else distance.quantile(0.95))
    for conv in (model.first, model.second):
        assert abs(conv.kernel.basis.radius / expected - 1) < 0.02
    assert abs(model(data).square().mean() - 1) < 1e-2
    # Radii are saved, and change with the precision of the module alone.
    other = Two().eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(data), model(data))
    assert other.second.kernel.basis.radius == model.second.kernel.basis.radius
    # In other units the network is the same.
    torch.manual_seed(0)
    same = Two().eval()
    calibrate(same, Data(x=x, pos=pos, edge_index=edge_index))
    assert torch.allclose(
        same(Data(x=x, pos=pos, edge_index=edge_index)), model(data),
        atol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.train()(data)


@convs
def test_radius_of_old_checkpoints(cls):
    conv = build(cls, radius=1.7)
    args = graph()
    out = conv(*args)
    state = conv.state_dict()
    del state['kernel.basis.radius']
    state['lin.weight'] = state['lin.weight'] + 1
    state['lin.weight'] -= 1
    conv.load_state_dict(state)
    close(conv(*args), out)
    # After float32 and back it is exact.
    assert conv.float().double().kernel.basis.radius == 1.7


def test_rootless_layers_have_no_empty_parameters():
    T = FieldType('2x1o')
    conv = ImplicitSteerableConv(T, T, root_weight=False)
    assert all(p.numel() for p in conv.parameters())
    old = {**conv.state_dict(), 'lin.weight': torch.empty(0),
           'lin.bias': torch.empty(0)}
    conv.load_state_dict(old)


@withPackage('torch_sparse')
@convs
def test_sparse_tensor(cls):
    from torch_sparse import SparseTensor
    x, pos, edge_index = graph()
    conv = build(cls)
    adj = SparseTensor.from_edge_index(edge_index, sparse_sizes=(N, N))
    close(conv(x, pos, adj.t()), conv(x, pos, edge_index))


@convs
@pytest.mark.parametrize('order', ORDERS)
def test_bipartite(cls, order):
    conv = build(cls, **ways(order))
    x_src, pos_src, edge_index = graph(6, 8)
    x_dst, pos_dst = torch.randn(8, 9).double(), torch.randn(8, 3).double()
    pos = (pos_src, pos_dst)
    out = conv((x_src, x_dst), pos, edge_index)
    assert out.shape == (8, 13)
    adj = to_torch_csc_tensor(edge_index, size=(6, 8)).t()
    close(conv((x_src, x_dst), pos, adj), out)

    # The same graph with all nodes in one set.
    joint = edge_index + torch.tensor([[0], [6]])
    both = conv(torch.cat([x_src, x_dst]), torch.cat(pos), joint)
    close(both[6:], out)

    alone = conv((x_src, None), pos, edge_index)
    close(alone, conv((x_src, torch.zeros_like(x_dst)), pos, edge_index))
    close(conv((x_src, None), pos, edge_index, size=(6, 8)), alone)


@convs
@pytest.mark.parametrize('order', ORDERS)
def test_flow(cls, order):
    x, pos, edge_index = graph()
    forth = build(cls, **ways(order))
    back = build(cls, **ways(order), flow='target_to_source')
    back.load_state_dict(forth.state_dict())
    close(back(x, pos, edge_index.flip(0)), forth(x, pos, edge_index))

    pos = (pos[:6], pos[6:])
    edge_index = torch.randint(3, (2, 10))
    a = forth((x[:6], x[6:]), pos, edge_index)
    b = back((x[6:], x[:6]), pos[::-1], edge_index.flip(0))
    close(a, b)


@convs
@pytest.mark.parametrize('order', ORDERS)
def test_mean(cls, order):
    x, pos, edge_index = graph()
    edge_index = edge_index[:, edge_index[1] != 4]  # 4 has no neighbours
    mean = build(cls, **ways(order), aggr='mean')
    total = build(cls, **ways(order), aggr='sum')
    total.load_state_dict(mean.state_dict())
    degree = edge_index[1].bincount(minlength=N).clamp(min=1).view(-1, 1)
    root = mean.lin(x)
    close(mean(x, pos, edge_index) - root,
          (total(x, pos, edge_index) - root) / degree)
    assert build(cls, aggr='add').aggr == 'sum'


@convs
def test_attributes(cls):
    if cls is HarmonicSteerableConv:
        pytest.skip('has no attributes')
    x, pos, edge_index = graph()
    conv = build(cls, edge_type=FieldType('1x0e + 1x1o'),
                 node_type=FieldType('2x0e'))
    edge_attr = torch.randn(E, 4).double()
    node_attr = torch.randn(N, 2).double()
    out = conv(x, pos, edge_index, edge_attr, node_attr=node_attr)
    close(conv(x, pos, edge_index, edge_attr,
               node_attr=(node_attr, node_attr)), out)
    moved = conv(x, pos, edge_index, edge_attr + 1, node_attr=node_attr)
    assert not torch.allclose(moved, out)
    reference = copy.deepcopy(conv)
    evaluate(reference, 'reference')
    close(reference(x, pos, edge_index, edge_attr, node_attr=node_attr), out)
    # Values of a sparse matrix with more than one dimension are attributes.
    conv = build(cls, edge_type=FieldType('1x0e + 1x1o'))
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), edge_attr,
                                    size=(N, N, 4)).coalesce()
    out = conv(x, pos, edge_index, edge_attr)
    close(conv(x, pos, adj_t), out)
    evaluate(conv, 'reference')
    close(conv(x, pos, adj_t), out)


@convs
@pytest.mark.parametrize('order', ['auto', *ORDERS])
def test_little(cls, order):
    x, pos, edge_index = graph()
    conv = build(cls, **ways(order))
    none = edge_index[:, :0]
    for training in (False, True):
        conv.train(training)
        close(conv(x, pos, none), conv.lin(x))
        assert conv(x[:0], pos[:0], none).shape == (0, 13)
        assert conv((x, None), (pos, pos[:0]), none).shape == (0, 13)
        assert conv((x[:0], None), (pos[:0], pos), none).shape == (N, 13)
        close(conv(x[:1], pos[:1], none), conv.lin(x[:1]))
        loop = torch.zeros(2, 1, dtype=torch.long)
        assert conv(x[:1], pos[:1], loop).isfinite().all()
        # Derivatives exist too.
        for d in derivatives(conv, x, pos, none):
            assert d.isfinite().all()
        inside = edge_index[:, (edge_index < 5).all(0)]
        out = conv(x, pos, inside)
        close(out[5:], conv.lin(x[5:]))


@convs
@pytest.mark.parametrize('group', ['O(3)', 'SO(2)', 'C4'])
@pytest.mark.parametrize('aggr', ['sum', 'mean'])
def test_orders_agree(cls, group, aggr):
    x, pos, edge_index = graph()
    weight = torch.rand(E, dtype=torch.float64)
    conv = build(cls, group, aggr=aggr).train()
    expected = None
    for order in ('reference', 'auto', 'aggregate', 'source'):
        evaluate(conv, order)
        got = derivatives(conv, x, pos, edge_index, edge_weight=weight)
        expected = expected or got
        for a, b in zip(got, expected):
            close(a / b.norm(), b / b.norm())


@convs
def test_message_path(cls):
    x, pos, edge_index = graph()
    conv = build(cls)
    assert conv.propagate.__module__.endswith('_propagate')
    fast = conv(x, pos, edge_index)
    seen = {}
    handles = [
        conv.register_message_forward_hook(
            lambda *args: seen.update(message=args[-1])),
        conv.register_propagate_forward_hook(
            lambda *args: seen.update(propagate=args[-1])),
        conv.register_aggregate_forward_pre_hook(
            lambda *args: seen.update(aggregate=args[-1][0])),
    ]
    out = conv(x, pos, edge_index)
    close(out, fast)
    assert seen['message'].shape == (E, 13)
    expected = conv.kernel(pos[edge_index[0]] - pos[edge_index[1]])
    expected = torch.einsum('eij,ej->ei', expected, x[edge_index[0]])
    close(seen['message'], expected)
    close(seen['propagate'], fast - conv.lin(x))
    for handle in handles:
        handle.remove()
    assert not conv._wants_messages
    # A hook may change messages.
    handle = conv.register_message_forward_hook(lambda *args: 0 * args[-1])
    close(conv(x, pos, edge_index), conv.lin(x))
    handle.remove()
    close(conv(x, pos, edge_index), fast)


class Explained(torch.nn.Module):
    """PyG's explainers put edge_index second."""
    def __init__(self, conv):
        super().__init__()
        self.conv, self.lin = conv, InvariantReadout(conv.out_type, 1)

    def forward(self, x, edge_index, pos):
        return self.lin(self.conv(x, pos, edge_index))


@convs
def test_explain(cls):
    T = FieldType('1x0e')
    SteerableConv(T, T, HarmonicBasis('O(3)', 1))  # a base class, built first
    x, pos, edge_index = graph(dtype=torch.float32)
    model = Explained(build(cls, dtype=torch.float32)).eval()
    before = model(x, edge_index, pos)
    explainer = Explainer(
        model, GNNExplainer(epochs=5, log=False), explanation_type='model',
        node_mask_type='attributes', edge_mask_type='object',
        model_config=dict(mode='regression', task_level='node',
                          return_type='raw'))
    explanation = explainer(x, edge_index, pos=pos)
    assert explanation.edge_mask.shape == (E, )
    assert explanation.edge_mask.max() > 0
    assert explanation.validate()
    close(model(x, edge_index, pos), before, 1e-6)
    explainer = Explainer(
        model, GraphMaskExplainer(1, epochs=3, log=False),
        explanation_type='model', node_mask_type='attributes',
        edge_mask_type='object',
        model_config=dict(mode='regression', task_level='node',
                          return_type='raw'))
    explanation = explainer(x, edge_index, pos=pos)
    assert explanation.edge_mask.shape == (E, )


@convs
def test_reset_parameters(cls):
    conv = build(cls)
    torch.manual_seed(3)
    conv.reset_parameters()
    first = copy.deepcopy(conv.state_dict())
    torch.manual_seed(3)
    conv.reset_parameters()
    for name, value in conv.state_dict().items():
        assert torch.equal(value, first[name]), name
    # A fresh layer draws the same, in the precision it is built in.
    torch.manual_seed(3)
    a = build(cls, dtype=torch.float32).state_dict()
    torch.manual_seed(3)
    b = build(cls, dtype=torch.float32).state_dict()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    # Statistics are forgotten.
    x, pos, edge_index = graph()
    conv.train()(x, pos / 2, edge_index)
    torch.manual_seed(3)
    conv.reset_parameters()
    for name, value in conv.state_dict().items():
        assert torch.equal(value, first[name]), name


@convs
def test_copies(cls, tmp_path):
    x, pos, edge_index = graph()
    conv = build(cls, 'SO(2)')
    out = conv(x, pos, edge_index)
    copies = [copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))]
    torch.save(conv, tmp_path / 'conv.pt')
    copies.append(torch.load(tmp_path / 'conv.pt', weights_only=False))
    torch.save(conv.state_dict(), tmp_path / 'state.pt')
    other = build(cls, 'SO(2)')
    assert not torch.allclose(other(x, pos, edge_index), out)
    other.load_state_dict(torch.load(tmp_path / 'state.pt',
                                     weights_only=True))
    for copied in [*copies, other]:
        assert torch.equal(copied(x, pos, edge_index), out)
        evaluate(copied, 'reference')  # also through PyG's templates
        close(copied(x, pos, edge_index), out)


@convs
@pytest.mark.parametrize('group', ['O(3)', 'SO(2)xF'])
def test_meta_device(cls, group):
    x, pos, edge_index = graph()
    conv = build(cls, group, dtype=torch.float32)
    with torch.device('meta'):
        other = build(cls, group, dtype=torch.float32)
    assert all(p.is_meta for p in other.parameters())
    other.to_empty(device='cpu')
    other.load_state_dict(conv.state_dict())
    close(other.double()(x, pos, edge_index),
          conv.double()(x, pos, edge_index))


@convs
def test_reset_after_meta(cls):
    x, pos, edge_index = graph(dtype=torch.float32)
    with torch.device('meta'):
        conv = build(cls, dtype=torch.float32)
    conv.to_empty(device='cpu').reset_parameters()
    torch.manual_seed(5)
    conv.reset_parameters()
    other = build(cls, dtype=torch.float32)
    torch.manual_seed(5)
    other.reset_parameters()
    close(conv(x, pos, edge_index), other(x, pos, edge_index))


@convs
@pytest.mark.parametrize('group', ['O(3)', 'SO(2)', 'O'])
def test_double_after_float(cls, group):
    """Constants are taken anew from their float64 originals."""
    x, pos, edge_index = graph()
    conv = build(cls, group, dtype=torch.float32)
    conv(x.float(), pos.float(), edge_index)
    conv = conv.half().float().double()
    R = Group(group).sample(1)[0]
    out = conv(conv.in_type.transform(x, R), pos @ R.T + 1, edge_index)
    close(out, conv.out_type.transform(conv(x, pos, edge_index), R))


@convs
def test_strict_dtypes(cls):
    """No float32 inside a float64 layer, and the other way round."""
    x, pos, edge_index = graph()
    inside = []

    class Record(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.is_floating_point():
                inside.append(out.dtype)
            return out

    for dtype in (torch.float64, torch.float32):
        conv = build(cls, dtype=dtype, aggr='mean').train()
        for order in ORDERS:
            evaluate(conv, order)
            inside.clear()
            with Record():
                out = conv(x.to(dtype), pos.to(dtype), edge_index)
            assert out.dtype == dtype
            assert set(inside) == {dtype}


@convs
def test_autocast(cls):
    x, pos, edge_index = graph(dtype=torch.float32)
    conv = build(cls, dtype=torch.float32)
    for order in ORDERS:
        evaluate(conv, order)
        out = conv(x, pos, edge_index)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            low = conv(x, pos, edge_index)
            from_low = conv(x.bfloat16(), pos, edge_index)
        assert (low - out).norm() / out.norm() < 4e-3
        assert (from_low - out).norm() / out.norm() < 8e-3
        # Only the self-interaction is in bfloat16: not the sum of messages.
        with torch.autocast('cpu', dtype=torch.bfloat16):
            low = low - conv.lin(x)
        close(low, out - conv.lin(x), 1e-5)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            conv(x, pos, edge_index).sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in conv.parameters()
                   if p.numel())


class Net(torch.nn.Module):
    """conv -> activation -> conv, on features without names."""
    def __init__(self, cls, activation=NormGate, dtype=torch.float32):
        super().__init__()
        self.conv1 = build(cls, dtype=dtype)
        hidden = FieldType('3x0e + 2x1o')
        self.mix = Linear(self.conv1.out_type, hidden)
        self.act = activation(hidden)
        self.conv2 = build(cls, dtype=dtype)
        self.to(dtype)

    def forward(self, x, pos, edge_index):
        x = self.act(self.mix(self.conv1(x, pos, edge_index)))
        return self.conv2(x, pos, edge_index)


@convs
def test_sequential(cls):
    x, pos, edge_index = graph(dtype=torch.float32)
    net = Net(cls)
    model = Sequential('x, pos, edge_index', [
        (net.conv1, 'x, pos, edge_index -> x'),
        net.mix,
        net.act,
        (net.conv2, 'x, pos, edge_index -> x'),
    ])
    close(model(x, pos, edge_index), net(x, pos, edge_index), 1e-6)


def hetero_graph():
    x_dict = {'a': torch.randn(5, 9), 'b': torch.randn(7, 9)}
    pos_dict = {'a': torch.randn(5, 3), 'b': torch.randn(7, 3)}
    edge_index_dict = {
        ('a', 'to', 'b'): torch.randint(5, (2, 12)),
        ('b', 'to', 'a'): torch.randint(5, (2, 12)),
        ('b', 'by', 'b'): torch.randint(7, (2, 12)),
    }
    return x_dict, pos_dict, edge_index_dict


@convs
def test_hetero_conv(cls):
    x_dict, pos_dict, edge_index_dict = hetero_graph()
    layers = {key: build(cls, dtype=torch.float32)
              for key in edge_index_dict}
    conv = HeteroConv(layers, aggr='sum')
    out = conv(x_dict, pos_dict, edge_index_dict)
    assert {k: v.shape for k, v in out.items()} == {
        'a': (5, 13), 'b': (7, 13)}
    key = ('b', 'to', 'a')
    close(out['a'], layers[key]((x_dict['b'], x_dict['a']),
                                (pos_dict['b'], pos_dict['a']),
                                edge_index_dict[key]), 1e-6)


@convs
def test_to_hetero(cls):
    x_dict, pos_dict, edge_index_dict = hetero_graph()
    net = Net(cls)
    net = to_hetero(net, (list(x_dict), list(edge_index_dict)))
    out = net(x_dict, pos_dict, edge_index_dict)
    assert {k: v.shape for k, v in out.items()} == {
        'a': (5, 13), 'b': (7, 13)}


def with_edges(num_nodes, num_edges):
    x, pos = torch.randn(num_nodes, 9), torch.randn(num_nodes, 3)
    return x, pos, torch.randint(num_nodes, (2, num_edges))


def losses(model, x, pos, edge_index):
    """Output and all derivatives."""
    pos = pos.clone().requires_grad_()
    out = model(x, pos, edge_index)
    inputs = [pos, *(p for p in model.parameters() if p.numel())]
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


def compare(compiled, model, args, tol=1e-4):
    for a, b in zip(losses(compiled, *args), losses(model, *args)):
        scale = b.detach().abs().max() + 1e-6
        close(a / scale, b / scale, tol)


@convs
def test_compile(cls):
    """Without graph breaks, and with its derivatives."""
    torch._dynamo.reset()
    model, args = build(cls, dtype=torch.float32), with_edges(12, 40)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    compare(compiled, model, args)


@convs
@pytest.mark.parametrize('order', ['auto', *ORDERS])
def test_compile_dynamic(cls, order):
    """One graph serves four shapes."""
    if order == 'reference' and torch.__version__ < '2.7':
        pytest.skip('PyTorch 2.6 and before do not trace sorted() of symbols')
    torch._dynamo.reset()
    model = build(cls, dtype=torch.float32, **ways(order)).train()
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True,
                             backend=counter)
    for shape in [(12, 70), (20, 110), (7, 33), (30, 200)]:
        args = with_edges(*shape)
        close(compiled(*args), copy.deepcopy(model)(*args), 1e-4)
    assert counter.frame_count == 1


@convs
def test_compile_dynamic_backward(cls):
    torch._dynamo.reset()
    model = build(cls, dtype=torch.float32)
    compiled = torch.compile(model, fullgraph=True, dynamic=True,
                             backend='aot_eager')
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in [(12, 70), (20, 110), (7, 33), (30, 200)]:
            compare(compiled, model, with_edges(*shape))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a compiler')
def test_compile_inductor():
    torch._dynamo.reset()
    model = Net(ImplicitSteerableConv)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for shape in [(12, 70), (20, 110)]:
        compare(compiled, model, with_edges(*shape))


@convs
def test_export(cls):
    model, args = build(cls, dtype=torch.float32), with_edges(12, 40)
    nodes, edges = torch.export.Dim('nodes'), torch.export.Dim('edges')
    program = torch.export.export(
        model, args, dynamic_shapes=({0: nodes}, {0: nodes}, {1: edges}))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for shape in [(12, 40), (15, 77)]:
        args = with_edges(*shape)
        close(loaded(*args), model(*args), 1e-5)


@convs
@pytest.mark.parametrize('order', ORDERS)
def test_functional_transforms(cls, order):
    x, pos, edge_index = graph()
    conv = build(cls, **ways(order))
    xs = torch.randn(3, *x.shape, dtype=x.dtype)
    batched = torch.func.vmap(lambda x: conv(x, pos, edge_index))(xs)
    close(batched, torch.stack([conv(x, pos, edge_index) for x in xs]))
    many = torch.randn(3, *pos.shape, dtype=x.dtype)
    batched = torch.func.vmap(lambda p: conv(x, p, edge_index))(many)
    close(batched, torch.stack([conv(x, p, edge_index) for p in many]))

    def function(pos):
        return conv(x, pos, edge_index)[:2]

    jacobian = torch.func.jacrev(function)(pos)
    close(jacobian, torch.autograd.functional.jacobian(function, pos))

    def energy(pos):
        return function(pos).sin().sum()

    hessian = torch.func.jacrev(torch.func.jacrev(energy))(pos)
    close(hessian, torch.autograd.functional.hessian(energy, pos))


class Energy(torch.nn.Module):
    def __init__(self, cls, activation, group='O(3)'):
        super().__init__()
        one, two = FieldType('2x0e', group), FieldType('2x0e + 1x1o', group)
        self.act = activation(two)
        kwargs = dict(hidden=2) if cls is ImplicitSteerableConv else {}
        self.conv1 = cls(one, getattr(self.act, 'in_type', two), **kwargs)
        self.conv2 = cls(two, two, **kwargs)
        self.readout = InvariantReadout(two, 1)

    def forward(self, x, pos, edge_index):
        x = self.act(self.conv1(x, pos, edge_index))
        return self.readout(self.conv2(x, pos, edge_index)).sum()


@convs
@pytest.mark.parametrize('activation', [NormGate, Gate])
def test_forces(cls, activation):
    """With self-loops and two points in one place."""
    model = Energy(cls, activation).double().eval()
    x = torch.randn(4, 2).double()
    pos = torch.randn(4, 3).double()
    pos[3] = pos[2]
    edge_index = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
    pos.requires_grad_()

    def function(pos):
        return model(x, pos, edge_index)

    assert torch.autograd.gradcheck(function, pos, eps=1e-6, atol=1e-6)
    # The softening of the harmonic basis makes third derivatives large.
    assert torch.autograd.gradgradcheck(function, pos, eps=1e-6, atol=1e-5,
                                        rtol=1e-4)
    force, = torch.autograd.grad(function(pos), pos, create_graph=True)
    assert force.isfinite().all() and force.abs().max() > 0
    close(force.sum(0), torch.zeros(3).double())  # nothing moves by itself
    force.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all()
               for p in [pos, *model.parameters()])


@convs
@pytest.mark.parametrize('group', ['O(3)', 'SO(2)'])
def test_forces_are_equivariant(cls, group):
    model = Energy(cls, NormGate, group).double().eval()
    x, pos = torch.randn(6, 2).double(), torch.randn(6, 3).double()
    edge_index = torch.randint(6, (2, 20))

    def force(pos):
        pos = pos.clone().requires_grad_()
        return torch.autograd.grad(model(x, pos, edge_index), pos)[0]

    R = Group(group).sample(1)[0]
    close(force(pos @ R.T + 1), force(pos) @ R.T)


def _ddp_model():
    torch.manual_seed(7)
    return Net(ImplicitSteerableConv, dtype=torch.float64).eval()


def _ddp_batch():
    torch.manual_seed(8)
    return [graph(6, 6, 15), graph(9, 9, 40)]


def _free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def _ddp_worker(rank, folder, port):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank,
        world_size=2, timeout=timedelta(seconds=60))
    model = torch.nn.parallel.DistributedDataParallel(
        _ddp_model(), find_unused_parameters=True).eval()
    model(*_ddp_batch()[rank]).square().sum().backward()
    if rank == 0:
        grads = [p.grad for p in model.parameters()]
        torch.save(grads, f'{folder}/grads.part')
        os.replace(f'{folder}/grads.part', f'{folder}/grads.pt')
    time.sleep(600)  # until killed: gloo's own clean-up can hang


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason='no gloo')
def test_distributed(tmp_path):
    """Two processes find the gradient of one with both graphs."""
    workers = mp.spawn(_ddp_worker, args=(str(tmp_path), _free_port()),
                       nprocs=2, join=False)
    limit = time.time() + 120
    while not (tmp_path / 'grads.pt').exists() and time.time() < limit:
        time.sleep(0.1)
    for process in workers.processes:
        process.kill()
        process.join()
    (x1, pos1, index1), (x2, pos2, index2) = _ddp_batch()
    model = _ddp_model()
    out = model(torch.cat([x1, x2]), torch.cat([pos1, pos2]),
                torch.cat([index1, index2 + len(x1)], dim=1))
    out.square().sum().backward()
    grads = torch.load(tmp_path / 'grads.pt')
    for p, grad in zip(model.parameters(), grads):
        if p.numel():
            close(2 * grad, p.grad)  # processes are averaged
