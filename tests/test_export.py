"""Programs that leave: saved here, loaded and run in a process that imports
nothing but PyTorch (or ONNX Runtime), on graphs of other sizes.
"""
import shutil
import subprocess
import sys
import warnings

import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.models import QM9Net
from pyg_steerable.nn import (
    FieldBatchNorm,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    InvariantReadout,
    Linear,
    NormGate,
    TensorProductActivation,
)
from pyg_steerable.ops import ORDERS

SHAPES = [(12, 40), (40, 12), (7, 200), (5, 0), (1, 1), (0, 0)]
T, S = FieldType('3x0e + 2x1o'), FieldType('8x0e + 4x1o + 1x2e')


def graph(nodes, edges, dim=T.dim):
    return (torch.randn(nodes, dim), torch.randn(nodes, 3) / 2,
            torch.randint(max(1, nodes), (2, edges)))


class Molecules(torch.nn.Module):
    """As a user calls it: keywords in forward, tensors outside."""
    def __init__(self, **kwargs):
        super().__init__()
        self.net = QM9Net(T.dim, channels=2, blocks=1, invariants=4,
                          **kwargs)

    def forward(self, x, pos, edge_index, batch):
        return self.net(x, pos, edge_index, batch=batch, batch_size=3)


class Layers(torch.nn.Module):
    """What stands between convolutions."""
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            Linear(T, T), FieldBatchNorm(T), NormGate(T),
            TensorProductActivation(T), InvariantReadout(T, 3))

    def forward(self, x, pos, edge_index):
        return self.layers(x)


class Weighted(torch.nn.Module):
    """Attributes, weights, two sets of nodes, a mean."""
    def __init__(self):
        super().__init__()
        self.conv = ImplicitSteerableConv(
            T, S, FieldType('1x0e + 1x1o'), FieldType('2x0e'), hidden=2,
            aggr='mean')

    def forward(self, x, pos, edge_index):
        ones = x.new_ones(edge_index.shape[1])
        vectors = pos[edge_index[0]] - pos[edge_index[1]]
        attr = torch.cat([ones[:, None], vectors], dim=1)
        return self.conv((x, None), (pos, 2 * pos), edge_index, attr,
                         ones / 2, node_attr=x[:, :2])


MODELS = {
    'implicit': lambda: ImplicitSteerableConv(T, S, hidden=3),
    'harmonic': lambda: HarmonicSteerableConv(S, T),
    'SO(2)': lambda: ImplicitSteerableConv(
        FieldType('3x0e + 2x1o', 'SO(2)'), FieldType('2x0e + 1x1o', 'SO(2)'),
        hidden=2),
    'wide to narrow': lambda: HarmonicSteerableConv(S, FieldType('1x0e')),
    'weighted': Weighted,
    'layers': Layers,
    'qm9': Molecules,
    'qm9, atoms in kernels': lambda: Molecules(atom_dim=T.dim),
    'qm9, harmonic': lambda: Molecules(kernel='harmonic', pool='sum'),
}


def build(name):
    """A model with weights and statistics of its own, inputs of all sizes,
    and which of their sizes vary.
    """
    torch.manual_seed(3)
    model = MODELS[name]().train()
    dim = S.dim if name in ('harmonic', 'wide to narrow') else T.dim
    inputs = [graph(*shape, dim) for shape in SHAPES]
    nodes, edges = torch.export.Dim('nodes'), torch.export.Dim('edges')
    dynamic = [{0: nodes}, {0: nodes}, {1: edges}]
    if name.startswith('qm9'):
        inputs = [(*g, torch.arange(len(g[0])) % 3) for g in inputs]
        dynamic.append({0: nodes})
    model(*inputs[0])  # statistics
    return model.eval(), inputs, tuple(dynamic)


def elsewhere(script: str, *args) -> None:
    """Runs a script in a fresh interpreter where this package is not."""
    script = f"""
import sys
sys.path = [p for p in sys.path if 'pyg_steerable' not in p]
import torch
path, data = sys.argv[1:]
inputs, expected = torch.load(data)
{script}
assert not [m for m in sys.modules if m.split('.')[0] in (
    'pyg_steerable', 'torch_geometric', 'e3nn')]
for args, right in zip(inputs, expected):
    out = run(*args)
    scale = right.abs().max().clamp(min=1e-6) if right.numel() else 1.
    torch.testing.assert_close(out / scale, right / scale, rtol=0, atol=1e-5)
"""
    done = subprocess.run([sys.executable, '-c', script, *map(str, args)],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@torch.no_grad()
def save_results(model, inputs, path):
    torch.save((inputs, [model(*args) for args in inputs]), path)


LOAD = 'run = torch.export.load(path).module()'


def export(model, args, dynamic, strict=False):
    return torch.export.export(model, args, dynamic_shapes=dynamic,
                               strict=strict)


def test_exported_programs_run_anywhere(tmp_path):
    """All models, in one process."""
    for k, name in enumerate(MODELS):
        model, inputs, dynamic = build(name)
        torch.export.save(export(model, inputs[0], dynamic),
                          tmp_path / f'{k}.pt2')
        save_results(model, inputs, tmp_path / f'{k}.pt')
    script = f"""
all_inputs, all_expected = [], []
runs = []
for k in range({len(MODELS)}):
    path, data = f'{tmp_path}/{{k}}.pt2', f'{tmp_path}/{{k}}.pt'
    {LOAD}
    inputs, expected = torch.load(data)
    all_inputs += [(run, *args) for args in inputs]
    all_expected += expected
inputs, expected = all_inputs, all_expected
def run(function, *args): return function(*args)
"""
    elsewhere(script, tmp_path / '0.pt2', tmp_path / '0.pt')


@pytest.mark.parametrize('name', ['implicit', 'harmonic', 'weighted', 'qm9'])
def test_strict_export(name):
    model, inputs, dynamic = build(name)
    program = export(model, inputs[0], dynamic, strict=True)
    for args in inputs[:3]:
        torch.testing.assert_close(program.module()(*args), model(*args),
                                   rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('order, backend', [
    *((order, 'auto') for order in ORDERS), ('auto', 'reference')])
def test_what_is_exported_holds_no_operator_of_ours(order, backend):
    model, inputs, dynamic = build('implicit')
    model.order, model.backend = order, backend
    program = export(model, inputs[0], dynamic)
    assert 'pyg_steerable' not in str([
        node.target for module in program.graph_module.modules()
        for node in module.graph.nodes])


def test_double_and_half():
    for dtype, tol in ((torch.float64, 1e-12), (torch.bfloat16, 5e-2)):
        model, inputs, dynamic = build('implicit')
        model = model.to(dtype)
        inputs = [(x.to(dtype), pos.to(dtype), index)
                  for x, pos, index in inputs]
        run = export(model, inputs[0], dynamic).module()
        for args in inputs[:3]:
            out, right = run(*args), model(*args)
            assert out.dtype == dtype
            assert (out - right).norm() <= tol * right.norm()


def test_exported_programs_are_differentiable():
    """Forces, and a program that is trained on."""
    model, inputs, dynamic = build('implicit')
    run = export(model, inputs[0], dynamic).module()
    for args in inputs[:3]:
        grads = []
        for function in (run, model):
            x, pos, index = (t.clone() for t in args)
            pos.requires_grad_()
            function.zero_grad()
            function(x, pos, index).sin().sum().backward()
            grads.append([pos.grad] + [
                p.grad for _, p in sorted(function.named_parameters())])
        for a, b in zip(*grads):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a compiler')
def test_aot_inductor(tmp_path):
    model, inputs, dynamic = build('qm9')
    torch._inductor.aoti_compile_and_package(
        export(model, inputs[0], dynamic),
        package_path=str(tmp_path / 'model.pt2'))
    inputs = [args for args in inputs if len(args[0])]
    save_results(model, inputs, tmp_path / 'data.pt')
    elsewhere('run = torch._inductor.aoti_load_package(path)',
              tmp_path / 'model.pt2', tmp_path / 'data.pt')


@pytest.mark.parametrize('name', ['implicit', 'harmonic', 'layers', 'qm9'])
def test_onnx(name, tmp_path):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    model, inputs, dynamic = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(model, inputs[0], tmp_path / 'model.onnx',
                          dynamic_shapes=dynamic, dynamo=True, verbose=False)
    inputs = [args for args in inputs if len(args[0])]
    save_results(model, inputs, tmp_path / 'data.pt')
    elsewhere("""
import onnxruntime
session = onnxruntime.InferenceSession(path)
names = [i.name for i in session.get_inputs()]
def run(*args):
    # What a model does not use is no input.
    given = dict(zip(('x', 'pos', 'edge_index', 'batch'), args))
    out, = session.run(None, {n: given[n].numpy() for n in names})
    return torch.from_numpy(out)
""", tmp_path / 'model.onnx', tmp_path / 'data.pt')


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.filterwarnings('ignore:.*torch.jit.*:DeprecationWarning')
@pytest.mark.parametrize('name', ['implicit', 'harmonic', 'qm9'])
def test_jit_trace(name, tmp_path):
    """Deprecated, but what old C++ loads."""
    model, inputs, _ = build(name)
    torch.jit.trace(model, inputs[0]).save(tmp_path / 'model.pt')
    inputs = [args for args in inputs if len(args[0])]
    save_results(model, inputs, tmp_path / 'data.pt')
    elsewhere('run = torch.jit.load(path)', tmp_path / 'model.pt',
              tmp_path / 'data.pt')
