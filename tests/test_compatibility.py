"""What works with what: docs/compatibility.md is made from this file.

Every row is a function that uses a layer in the way its users do, and holds
the verdict for each column: it works, it works with backend='reference', or it
does not, and why. A verdict that is wrong, either way, fails.

    python tests/test_compatibility.py --write    # the table anew
"""
import copy
import io
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.utils.prune
from torch._dynamo.testing import CompileCounter
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.explain import (
    Explainer,
    GNNExplainer,
    GraphMaskExplainer,
)
from torch_geometric.loader import DataLoader
from torch_geometric.nn import HeteroConv, Sequential, to_hetero
from torch_geometric.utils import to_torch_csr_tensor

from pyg_steerable import FieldType
from pyg_steerable.graph import lattice_graph
from pyg_steerable.models import QM9Net
from pyg_steerable.nn import (
    FieldBatchNorm,
    FieldDropout,
    Gate,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    LatticeSteerableConv,
    Linear,
    NormActivation,
    NormGate,
    TensorProductActivation,
)

PAGE = Path(__file__).parent.parent / 'docs' / 'compatibility.md'
TESTS = Path(__file__).parent
T, S = FieldType('2x0e + 1x1o'), FieldType('1x0e + 2x1o')

# Columns #####################################################################


class Column:
    """A layer, its inputs in several sizes, and what of them varies."""
    moves = 1  # the argument that derivatives are taken in
    sizes = [(6, 20), (9, 25), (4, 30)]

    def build(self):
        torch.manual_seed(1)
        return self.layer().eval()

    def inputs(self, k=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(k)
        n, e = self.sizes[k]
        return (torch.randn(n, T.dim, generator=generator).to(dtype),
                torch.randn(n, 3, generator=generator).to(dtype) / 2,
                torch.randint(n, (2, e), generator=generator))

    def dynamic(self):
        nodes, edges = torch.export.Dim('nodes'), torch.export.Dim('edges')
        return ({0: nodes}, {0: nodes}, {1: edges})

    def function(self, dtype=torch.float64):
        """The layer as a number that depends on one tensor."""
        module, args = self.build().to(dtype), list(self.inputs(0, dtype))

        def value(t):
            here = [*args]
            here[self.moves] = t
            return module(*here).sin().sum()

        value.module = module
        return value, args[self.moves]


class Implicit(Column):
    name = '`ImplicitSteerableConv`'

    def layer(self):
        return ImplicitSteerableConv(T, S, hidden=2)


class Harmonic(Column):
    name = '`HarmonicSteerableConv`'

    def layer(self):
        return HarmonicSteerableConv(T, S)


class Voxels(Column):
    name = '`LatticeSteerableConv`, voxels'
    moves = 0
    sizes = [(2, 5), (3, 5), (4, 5)]

    def layer(self):
        return LatticeSteerableConv(T, S, 3)

    def inputs(self, k=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(k)
        b, n = self.sizes[k]
        return (torch.randn(b, T.dim, n, n, n, generator=generator).to(dtype),
                )

    def dynamic(self):
        return ({0: torch.export.Dim('batch')}, )


class Lattice(Column):
    name = '`LatticeSteerableConv`, graphs'
    moves = 0
    sizes = [(20, 5), (30, 6), (10, 4)]

    def layer(self):
        return LatticeSteerableConv(T, S, 3)

    def inputs(self, k=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(k)
        n, size = self.sizes[k]
        coord = torch.randperm(size**3, generator=generator)[:n]
        coord = torch.stack([coord // size**2, coord // size % size,
                             coord % size], dim=1)
        return (torch.randn(n, T.dim, generator=generator).to(dtype),
                lattice_graph(coord, 3 * (size, ), kernel_size=3,
                              list_edges=True))

    def dynamic(self):
        return ({0: torch.export.Dim('nodes')}, None)


class Nodes(Column):
    name = 'layers per node'
    moves = 0

    def layer(self):
        return torch.nn.Sequential(
            Linear(T, S), FieldBatchNorm(S), NormGate(S), Linear(S, S),
            NormActivation(S), Linear(S, Gate(S).in_type), Gate(S),
            FieldDropout(S), TensorProductActivation(S))

    def inputs(self, k=0, dtype=torch.float32):
        return super().inputs(k, dtype)[:1]

    def dynamic(self):
        return super().dynamic()[:1]


class Model(Column):
    name = '`QM9Net`'

    def layer(self):
        return Molecules()

    def inputs(self, k=0, dtype=torch.float32):
        x, pos, edge_index = super().inputs(k, dtype)
        return x, pos, edge_index, torch.arange(len(x)) // 3

    def dynamic(self):
        return (*super().dynamic(), {0: super().dynamic()[0][0]})


class Molecules(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = QM9Net(T.dim, channels=2, blocks=1, invariants=3)

    def forward(self, x, pos, edge_index, batch):
        return self.net(x, pos, edge_index, batch=batch, batch_size=3)


COLUMNS = {c.__name__.lower(): c() for c in (
    Implicit, Harmonic, Voxels, Lattice, Nodes, Model)}
CONVS = ('implicit', 'harmonic')

# Verdicts ####################################################################


class Reference(str):
    """Works with backend='reference' only, because ..."""


class No(str):
    """Does not work, because ..."""


WORKS, ABSENT = 'works', None
#: To compile a whole model takes long; one row does it.
SMALL = tuple(c for c in COLUMNS if c != 'model')
#: By topic: (name of the row, function or where it is tested, verdicts).
ROWS: dict[str, list] = {}


def row(topic, name, only=tuple(COLUMNS), **verdicts):
    """Adds a row; works where nothing else is said."""
    def add(function):
        ROWS.setdefault(topic, []).append((name, function, {
            c: verdicts.get(c, WORKS) if c in only else ABSENT
            for c in COLUMNS}))
        return function

    return add


def close(a, b, tol=1e-5):
    scale = b.detach().abs().max().clamp(min=1e-6) if b.numel() else 1.
    torch.testing.assert_close(a.detach() / scale, b.detach() / scale,
                               rtol=0, atol=tol)


# PyG #########################################################################

@row('PyG', 'two sets of nodes, `(x, None)`', CONVS)
def bipartite(column):
    conv, (x, pos, edge_index) = column.build(), column.inputs()
    edge_index = edge_index[:, edge_index[1] < 4]
    out = conv((x, None), (pos, pos[:4]), edge_index)
    right = conv(x, pos, edge_index)[:4] - conv.lin(x)[:4]
    close(out - conv.lin(0 * x)[:4], right)
    assert conv((x, x[:4]), (pos, pos[:4]), edge_index,
                size=(len(x), 4)).shape == (4, S.dim)


@row('PyG', '`EdgeIndex`', CONVS)
def edge_indices(column):
    conv, (x, pos, edge_index) = column.build(), column.inputs()
    index = EdgeIndex(edge_index, sparse_size=(len(x), len(x)))
    close(conv(x, pos, index.sort_by('col')[0]), conv(x, pos, edge_index))


@row('PyG', 'sparse adjacency', CONVS)
def sparse(column):
    conv, (x, pos, edge_index) = column.build(), column.inputs()
    edge_index = edge_index.unique(dim=1)
    adj = to_torch_csr_tensor(edge_index, size=(len(x), len(x)))
    close(conv(x, pos, adj.t()), conv(x, pos, edge_index))
    coo = torch.sparse_coo_tensor(edge_index, torch.ones(
        edge_index.shape[1]), (len(x), len(x)))
    close(conv(x, pos, coo.t()), conv(x, pos, edge_index))


@row('PyG', '`HeteroConv`', CONVS)
def hetero(column):
    conv, (x, pos, edge_index) = column.build(), column.inputs()
    types = [('a', 'to', 'b'), ('b', 'to', 'b'), ('b', 'to', 'a')]
    net = HeteroConv({t: copy.deepcopy(conv) for t in types})
    out = net({'a': x, 'b': x}, {'a': pos, 'b': pos},
              dict.fromkeys(types, edge_index))
    close(out['b'], 2 * conv(x, pos, edge_index))
    close(out['a'], conv(x, pos, edge_index))


@row('PyG', '`to_hetero`', CONVS)
def to_heterogeneous(column):
    conv, (x, pos, edge_index) = column.build(), column.inputs()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x, pos, edge_index):
            return self.conv(x, pos, edge_index)

    types = (['a', 'b'], [('a', 'to', 'b'), ('b', 'to', 'a')])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        net = to_hetero(Net(), types)
    out = net({'a': x, 'b': x}, {'a': pos, 'b': pos},
              {t: edge_index for t in types[1]})
    assert out['a'].shape == (len(x), S.dim)


@row('PyG', '`Sequential`', (*CONVS, 'lattice'))
def sequential(column):
    module, args = column.build(), column.inputs()
    names = ', '.join('xyz'[:len(args)])
    net = Sequential(names, [(module, f'{names} -> x'), NormGate(S)])
    close(net(*args), NormGate(S).eval()(module(*args)), 10.)
    assert net(*args).shape == module(*args).shape


@row('PyG', 'message hooks', (*CONVS, 'lattice'))
def hooks(column):
    conv, args = column.build(), column.inputs()
    right, seen = conv(*args), []
    conv.register_message_forward_hook(
        lambda module, inputs, out: seen.append(out))
    close(conv(*args), right)
    assert seen[0].shape[1] == S.dim


@row('PyG', '`GNNExplainer`', CONVS)
def explainer(column):
    explain(column, GNNExplainer(epochs=2, log=False), 'attributes')


@row('PyG', '`GraphMaskExplainer`', CONVS)
def mask_explainer(column):
    explain(column, GraphMaskExplainer(1, epochs=1, log=False), None)


def explain(column, algorithm, node_mask):
    conv, (x, pos, edge_index) = column.build(), column.inputs()

    class Net(torch.nn.Module):  # explainers put edge_index second
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x, edge_index, pos):
            return self.conv(x, pos, edge_index)

    explanation = Explainer(
        Net(), algorithm, explanation_type='model', node_mask_type=node_mask,
        edge_mask_type='object',
        model_config=dict(mode='regression', task_level='node',
                          return_type='raw'))(x, edge_index, pos=pos)
    assert explanation.edge_mask.max() > 0


@row('PyG', '`DataLoader` with workers', CONVS)
def loader(column):
    conv, (x, pos, edge_index) = column.build(), column.inputs()
    data = 4 * [Data(x=x, pos=pos, edge_index=edge_index)]
    for batch in DataLoader(data, batch_size=2, num_workers=1):
        out = conv(batch.x, batch.pos, batch.edge_index)
        close(out[:len(x)], conv(x, pos, edge_index))


# Modules #####################################################################


@row('Modules', '`deepcopy`, `pickle`, `torch.save` of the module')
def copies(column):
    module, args = column.build(), column.inputs()
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)),
                  torch.load(buffer, weights_only=False)):
        assert torch.equal(other(*args), module(*args))


@row('Modules', '`state_dict`, loaded weights-only')
def state(column):
    module, args = column.build(), column.inputs()
    right = module(*args)
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    other = column.layer().eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(*args), right)


@row('Modules', 'built on the `meta` device')
def meta(column):
    module = column.build()
    with torch.device('meta'):
        other = column.layer().eval()
    other.to_empty(device='cpu')
    other.load_state_dict(module.state_dict())
    close(other.double()(*column.inputs(0, torch.float64)),
          module.double()(*column.inputs(0, torch.float64)), 1e-12)


@row('Modules', 'forward on the `meta` device')
def meta_forward(column):
    module, args = column.build(), column.inputs()
    out = module.to('meta')(*(a.to('meta') for a in args))
    assert out.is_meta and out.shape == column.build()(*args).shape


@row('Modules', '`FakeTensorMode`')
def fake(column):
    from torch._subclasses.fake_tensor import FakeTensorMode
    module, args = column.build(), column.inputs()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = module(*(mode.from_tensor(a) if isinstance(a, torch.Tensor)
                       else a for a in args))
    assert out.shape == module(*args).shape


@row('Modules', '`to(memory_format=torch.channels_last_3d)`')
def channels_last(column):
    module, args = column.build(), column.inputs()
    right = module(*args)
    module.to(memory_format=torch.channels_last_3d)
    close(module(*args), right)


@row('Modules', '`torch.func.functional_call`')
def functional(column):
    module, args = column.build(), column.inputs()
    right = module(*args)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    torch.nn.init.zeros_(next(p for p in module.parameters() if p.numel()))
    assert torch.equal(torch.func.functional_call(module, state, args), right)


def weights(module):
    """Modules with a parameter named weight."""
    return [m for m in module.modules()
            if isinstance(getattr(m, 'weight', None), torch.nn.Parameter)
            and m.weight.numel()]


@row('Modules', '`parametrize`, `weight_norm`')
def parametrized(column):
    module, args = column.build(), column.inputs()
    right = module(*args)
    for m in weights(module):
        if isinstance(m, FieldBatchNorm):
            continue
        torch.nn.utils.parametrizations.weight_norm(
            m, dim=0 if m.weight.dim() > 1 else None)
    close(module(*args), right)
    module(*args).sum().backward()


@row('Modules', '`torch.nn.utils.prune`')
def pruned(column):
    module, args = column.build(), column.inputs()
    for m in weights(module):
        torch.nn.utils.prune.l1_unstructured(m, 'weight', 0.5)
    assert module(*args).isfinite().all()
    module(*args).sum().backward()


@row('Modules', '`AveragedModel`, `update_bn`')
def averaged(column):
    """Statistics are those of the data, averaged over batches."""
    module = column.build().train()
    average = torch.optim.swa_utils.AveragedModel(module)
    average.update_parameters(module)
    statistics = [b for name, b in average.named_buffers()
                  if name.endswith(('running_mean', 'running_var'))
                  and b.numel()]

    class Star(torch.nn.Module):  # update_bn takes the first of a list
        def __init__(self):
            super().__init__()
            self.net = average

        def forward(self, args):
            return self.net(*args)

    found = []
    for start in (7., 3.):  # of which nothing is left
        for b in statistics:
            b.fill_(start)
        torch.optim.swa_utils.update_bn(
            [[column.inputs(k)] for k in range(3)], Star())
        found.append([b.clone() for b in statistics])
    for a, b in zip(*found):
        close(a, b)
    assert average(*column.inputs()).isfinite().all()


@row('Modules', 'activation checkpointing')
def checkpointed(column):
    module, args = column.build(), column.inputs()
    grads = []
    for call in (module, lambda *a: torch.utils.checkpoint.checkpoint(
            module, *a, use_reentrant=False)):
        module.zero_grad()
        call(*args).sin().sum().backward()
        grads.append([p.grad for p in module.parameters()
                      if p.grad is not None])
    for a, b in zip(*grads):
        close(a, b)


@row('Modules', 'optimisers, `clip_grad_norm_`, `foreach`')
def optimised(column):
    module, args = column.build().train(), column.inputs()
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2, foreach=True)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (module(*args) - 1).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 10.)
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < values[0]


# Precision ###################################################################


@row('Precision', 'float64 features into a float32 layer')
def mixed(column):
    module, args = column.build(), column.inputs()
    close(module(*column.inputs(0, torch.float64)).float(), module(*args))


@row('Precision', '`.double()`')
def double(column):
    out = column.build().double()(*column.inputs(0, torch.float64))
    assert out.dtype == torch.float64
    close(out, column.build()(*column.inputs()).double(), 1e-5)


@row('Precision', '`.bfloat16()`')
def half(column):
    module = column.build().bfloat16()
    out = module(*column.inputs(0, torch.bfloat16))
    assert out.dtype == torch.bfloat16
    close(out.float(), column.build()(*column.inputs()), 0.1)
    module(*column.inputs(0, torch.bfloat16)).sum().backward()


@row('Precision', 'autocast, bfloat16 and float16')
def autocast(column):
    module, args = column.build(), column.inputs()
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype=dtype):
            out = module(*args)
        close(out.float(), module(*args), 0.1)
        out.sum().backward()
        assert {p.grad.dtype for p in module.parameters()
                if p.grad is not None} == {torch.float32}


@row('Precision', '`torch.set_default_dtype(torch.float64)`')
def default_dtype(column):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        out = column.build()(*column.inputs(0, torch.float64))
        assert out.dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


# Derivatives #################################################################


def hessian(column):
    """By two passes of backward, row by row."""
    value, t = column.function()
    reference(value.module)
    t = t.clone().requires_grad_()
    grad, = torch.autograd.grad(value(t), t, create_graph=True)
    rows = [torch.autograd.grad(g, t, retain_graph=True)[0].flatten()
            for g in grad.flatten()[:4]]
    return grad.detach(), torch.stack(rows)


def reference(module):
    for m in module.modules():
        if hasattr(m, 'backend'):
            m.backend = 'reference'


@row('Derivatives', 'backward twice')
def twice(column):
    value, t = column.function()
    t = t.clone().requires_grad_()
    grad, = torch.autograd.grad(value(t), t, create_graph=True)
    second, = torch.autograd.grad(grad.flatten()[:4].sum(), t)
    right = hessian(column)
    close(grad, right[0], 1e-10)
    close(second.flatten(), right[1].sum(0), 1e-10)


@row('Derivatives', '`is_grads_batched`, `hessian(vectorize=True)`')
def batched(column):
    value, t = column.function()
    n = t.numel()
    t = t.clone().requires_grad_()
    grad, = torch.autograd.grad(value(t), t, create_graph=True)
    vectors = torch.eye(n, dtype=t.dtype)[:4].view(4, *t.shape)
    got, = torch.autograd.grad(grad, t, vectors, is_grads_batched=True)
    close(got.flatten(1), hessian(column)[1], 1e-10)
    if n < 40:
        got = torch.autograd.functional.hessian(value, t, vectorize=True)
        close(got.view(n, n)[:4], hessian(column)[1], 1e-10)


@row('Derivatives', '`torch.func`: `grad`, `vjp`, `jacrev`')
def functions(column):
    value, t = column.function()
    close(torch.func.grad(value)(t), hessian(column)[0], 1e-10)
    n = t.numel()
    rows = torch.func.jacrev(
        lambda t: torch.func.grad(value)(t).flatten()[:4])(t)
    close(rows.view(4, n), hessian(column)[1], 1e-10)


@row('Derivatives', '`torch.func`: `hessian`, `jacfwd`, `jvp`')
def forward_mode(column):
    value, t = column.function()
    grad, rows = hessian(column)
    n, d = t.numel(), torch.randn_like(t)
    close(torch.func.jvp(value, (t, ), (d, ))[1], (grad * d).sum(), 1e-10)
    got = torch.func.jacfwd(
        lambda t: torch.func.grad(value)(t).flatten()[:4])(t)
    close(got.view(4, n), rows, 1e-10)
    if n < 40:
        close(torch.func.hessian(value)(t).view(n, n)[:4], rows, 1e-10)


@row('Derivatives', '`torch.autograd.forward_ad`')
def dual(column):
    from torch.autograd import forward_ad
    value, t = column.function()
    with forward_ad.dual_level():
        out = value(forward_ad.make_dual(t, t))
        tangent = forward_ad.unpack_dual(out).tangent
    close(tangent, (hessian(column)[0] * t).sum(), 1e-10)


@row('Derivatives', '`torch.func.linearize`')
def linearized(column):
    value, t = column.function()
    _, push = torch.func.linearize(value, t)
    close(push(t), (hessian(column)[0] * t).sum(), 1e-10)


@row('Derivatives', '`vmap` over inputs')
def mapped(column):
    value, t = column.function()
    ts = torch.stack([t, 2 * t, -t])
    close(torch.func.vmap(value)(ts), torch.stack([value(t) for t in ts]),
          1e-10)


@row('Derivatives', 'gradients of single samples')
def per_sample(column):
    value, t = column.function()
    parameters = {k: p.detach() for k, p in value.module.named_parameters()}
    args = list(column.inputs(0, torch.float64))

    def loss(parameters, t):
        args[column.moves] = t
        return torch.func.functional_call(value.module, parameters,
                                          tuple(args)).sin().sum()

    ts = torch.stack([t, 2 * t])
    got = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, ts)
    for k, t in enumerate(ts):
        for name, grad in torch.func.grad(loss)(parameters, t).items():
            close(got[name][k], grad, 1e-10)


@row('Derivatives', 'ensembles: `stack_module_state`')
def ensemble(column):
    models = [column.layer().eval().double() for _ in range(2)]
    args = column.inputs(0, torch.float64)
    parameters, buffers = torch.func.stack_module_state(models)

    def call(parameters, buffers):
        return torch.func.functional_call(models[0], (parameters, buffers),
                                          args)

    got = torch.func.vmap(call)(parameters, buffers)
    for k, model in enumerate(models):
        close(got[k], model(*args), 1e-10)


# Compilers ###################################################################

TABLE = 'neighbours are found from values, outside of the compiled graph'


def gradients(call, module, args):
    module.zero_grad()
    out = call(*args)
    out.sin().sum().backward()
    return [out, *(p.grad.clone() for p in module.parameters()
                   if p.grad is not None)]


@row('Compilers', '`torch.compile`, forward and backward', SMALL)
def compiled(column):
    torch._dynamo.reset()
    module, args = column.build(), column.inputs()
    call = torch.compile(module, backend='aot_eager')
    for a, b in zip(gradients(call, module, args),
                    gradients(module, module, args)):
        close(a, b)


@row('Compilers', '`torch.compile(fullgraph=True, dynamic=True)`: one graph '
     'for all sizes', lattice=No(TABLE))
def compiled_once(column):
    torch._dynamo.reset()
    module, counter = column.build(), CompileCounter()
    call = torch.compile(module, fullgraph=True, dynamic=True,
                         backend=counter)
    for k in range(3):
        args = column.inputs(k)
        close(call(*args), module(*args))
    assert counter.frame_count == 1


@row('Compilers', '`torch.compile` of a sparse adjacency', CONVS)
def compiled_sparse(column):
    torch._dynamo.reset()
    conv, (x, pos, edge_index) = column.build(), column.inputs()
    coo = torch.sparse_coo_tensor(edge_index, torch.ones(
        edge_index.shape[1]), (len(x), len(x))).coalesce()
    adj = coo.t().coalesce()
    close(torch.compile(conv, backend='eager')(x, pos, adj),
          conv(x, pos, adj))


@row('Compilers', '`torch.compile`, second derivatives', SMALL,
     **dict.fromkeys(SMALL, No('PyTorch refuses ("does not currently support '
                               'double backward"), see below')))
def compiled_twice(column):
    torch._dynamo.reset()
    value, t = column.function()
    t = t.clone().requires_grad_()
    out = torch.compile(value, backend='aot_eager')(t)
    grad, = torch.autograd.grad(out, t, create_graph=True)
    grad.square().sum().backward()


@row('Compilers', '`torch.compile` of `torch.func.grad`', SMALL,
     lattice=Reference('in a compiled `torch.func`, PyTorch knows no '
                       'derivatives of custom operators'))
def compiled_grad(column):
    torch._dynamo.reset()
    value, t = column.function()
    call = torch.compile(torch.func.grad(value), backend='aot_eager')
    close(call(t), torch.func.grad(value)(t), 1e-10)


@row('Compilers', '`make_fx` of a gradient, then `torch.compile`',
     only=('implicit', 'harmonic', 'voxels', 'nodes', 'model'))
def traced_forces(column):
    """The way to train forces with the compiler."""
    from torch.fx.experimental.proxy_tensor import make_fx
    torch._dynamo.reset()
    value, t = column.function()

    def force(t):
        t = t.detach().requires_grad_()
        return torch.autograd.grad(value(t), t, create_graph=True)[0]

    graph = make_fx(force)(t)
    close(torch.compile(graph, backend='aot_eager')(t), force(t), 1e-10)


@row('Compilers', '`torch.export`, all sizes free', lattice=No(TABLE))
def exported(column):
    module = column.build()
    program = torch.export.export(module, column.inputs(),
                                  dynamic_shapes=column.dynamic())
    for k in range(3 if column.moves else 1):
        args = column.inputs(k)
        close(program.module()(*args), module(*args))


@row('Compilers', '`torch.jit.trace`', lattice=No(TABLE))
def traced(column):
    module, args = column.build(), column.inputs()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        call = torch.jit.trace(module, args, check_trace=False)
    for k in range(3):
        args = column.inputs(k)
        close(call(*args), module(*args))


OLD = 'deprecated by PyTorch; `torch.export` takes its place'
PYG = 'reads values and shapes, as all layers of PyG do; `torch.export` works'


@row('Compilers', '`torch.jit.script`', **dict.fromkeys(COLUMNS, No(OLD)))
def scripted(column):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.script(column.build())


@row('Compilers', '`torch.fx.symbolic_trace`',
     **dict.fromkeys(COLUMNS, No(PYG)))
def symbolic(column):
    torch.fx.symbolic_trace(column.build())


# Elsewhere ###################################################################

#: (topic, row, test, columns): what takes processes or packages of its own.
ELSEWHERE = [
    ('Compilers', 'exported, then run where only PyTorch is',
     'test_export.py::test_exported_programs_run_anywhere',
     ('implicit', 'harmonic', 'nodes', 'model')),
    ('Compilers', 'AOTInductor', 'test_export.py::test_aot_inductor',
     ('model', )),
    ('Compilers', 'ONNX (`torch.onnx.export(dynamo=True)`)',
     'test_export.py::test_onnx', ('implicit', 'harmonic', 'nodes', 'model')),
    ('Compilers', '`torch.compile` with Inductor',
     'nn/conv/test_steerable.py::test_compile_inductor', ('implicit', )),
    ('Training', 'Lightning: `32-true`, `64-true`, `bf16-mixed`, `bf16-true`,'
     ' `16-true`', 'test_lightning.py::test_trainer', ('harmonic', 'model')),
    ('Training', '`GradScaler`',
     'test_lightning.py::test_plain_loop_with_autocast',
     ('harmonic', 'model')),
]


def test_tests_elsewhere_exist():
    for *_, test, _ in ELSEWHERE:
        file, name = test.split('::')
        assert f'def {name}(' in (TESTS / file).read_text(), test


# The page ####################################################################

HEAD = """# Compatibility

What works with which layer, on a CPU with torch 2.13 and PyG 2.8. This page
is made by `tests/test_compatibility.py`, which runs each line in the way that
a user would; a line that is wrong, either way, fails there.

*Layers per node* are `Linear`, `FieldBatchNorm`, `FieldDropout`, `NormGate`,
`Gate`, `NormActivation` and `TensorProductActivation`, one after the other.
An empty place: there is nothing to say, or nothing was tried.
"""

FOOT = """
## Programs that leave

Nothing has to be switched on: what is exported or traced is plain PyTorch
(`backend='portable'`) and runs where this package is not installed.

```python
nodes, edges = torch.export.Dim('nodes'), torch.export.Dim('edges')
program = torch.export.export(
    conv.eval(), (x, pos, edge_index),
    dynamic_shapes=({0: nodes}, {0: nodes}, {1: edges}))
torch.export.save(program, 'conv.pt2')        # torch.export.load anywhere
torch._inductor.aoti_compile_and_package(program, package_path='aoti.pt2')
torch.onnx.export(program, dynamo=True).save('conv.onnx')
```

A program of an energy is differentiable: load it and call
`torch.autograd.grad(run(x, pos, edge_index).sum(), pos)` for forces
(`torch.export` does not take a gradient inside of a model).

Such a program holds the outer products of all edges at once, one pair of
blocks of fields at a time; the layer itself holds those of a few nodes.
Indices are not checked in it.

## Second derivatives with the compiler

`torch.compile` refuses to go through backward twice. Trace the gradient first;
the trace holds for graphs of one size:

```python
from torch.fx.experimental.proxy_tensor import make_fx

def force(pos):
    pos = pos.detach().requires_grad_()
    return torch.autograd.grad(energy(pos), pos, create_graph=True)[0]

force = torch.compile(make_fx(force)(pos))
```

## Not tried

CUDA graphs, quantisation (`torch.ao`), TensorRT, `captum`.
"""


def page() -> str:
    notes: list[str] = []

    def cell(verdict):
        if not isinstance(verdict, (Reference, No)):
            return verdict or ''
        if verdict not in notes:
            notes.append(str(verdict))
        what = 'no' if isinstance(verdict, No) else "`backend='reference'`"
        return f'{what} [{notes.index(str(verdict)) + 1}]'

    lines = [HEAD]
    topics = {topic: list(rows) for topic, rows in ROWS.items()}
    for topic, name, _, columns in ELSEWHERE:
        topics.setdefault(topic, []).append((name, None, {
            c: WORKS if c in columns else ABSENT for c in COLUMNS}))
    for topic, rows in topics.items():
        lines.append(f'## {topic}\n')
        names = [c.name for c in COLUMNS.values()]
        lines.append('| ' + ' | '.join(['', *names]) + ' |')
        lines.append('|---' * (1 + len(names)) + '|')
        lines += ['| ' + ' | '.join([name, *map(cell, verdicts.values())]) +
                  ' |' for name, _, verdicts in rows]
        lines.append('')
    lines += [f'{k}. {note}' for k, note in enumerate(notes, 1)]
    return '\n'.join(lines) + '\n' + FOOT


CELLS = [
    pytest.param(function, column, verdict, id=f'{function.__name__}-{column}')
    for rows in ROWS.values() for _, function, verdicts in rows
    for column, verdict in verdicts.items() if verdict is not ABSENT]


@pytest.mark.parametrize('function, column, verdict', CELLS)
def test_verdict(function, column, verdict):
    column = copy.copy(COLUMNS[column])
    if verdict == WORKS:
        function(column)
        return
    try:
        function(column)
    except Exception as error:
        assert not isinstance(error, NameError), error
    else:
        pytest.fail(f'It works: change the verdict of {function.__name__} '
                    f'for {column.name}')
    if isinstance(verdict, Reference):
        build = column.layer

        def layer():
            module = build()
            reference(module)
            return module

        column.layer = layer
        function(column)


def test_page():
    assert PAGE.read_text() == page(), (
        'Run: python tests/test_compatibility.py --write')


if __name__ == '__main__' and '--write' in sys.argv:
    PAGE.write_text(page())
