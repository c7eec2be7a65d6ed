"""Half precision is safe in every layer: nothing overflows that need not.

:data:`LAYERS` lists what is tried; :func:`measure` runs one of it in half
precision, under autocast or cast, on inputs with outliers of 1e4, and compares
with float64.
"""
import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis, SteerableKernel
from pyg_steerable.models import (
    AminoAcidNet,
    CathNet,
    ModelNetClassifier,
    ModelNetSegmenter,
    QM9Net,
    ShrecNet,
    TetrisNet,
)
from pyg_steerable.nn import (
    Bilinear,
    FieldBatchNorm,
    FieldDropout,
    Gate,
    GlobalPool,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    InvariantReadout,
    LatticeBlock,
    LatticeNormConv,
    LatticeSteerableConv,
    Linear,
    NormActivation,
    NormGate,
    NormMaxPool,
    QuotientELU,
    TensorProductActivation,
)

OUTLIER = 1e4
ROWS = 32
T = FieldType('4x0e + 4x1o + 2x2e', 'O(3)')
SO2 = FieldType('4x0e + 4x1o + 2x2e', 'SO(2)')


@dataclass
class Case:
    """A layer to try.

    Attributes:
        build: Makes the layer.
        inputs: Makes its floating-point inputs from a generator, float64;
            other arguments may be among them.
        returns: The dtype of the output is that of the ``'input'``, of the
            ``'weights'``, or at least ``'float32'``.
        outliers: Largest input for which the true output fits into float16.
    """
    build: Callable
    inputs: Callable
    returns: str = 'input'
    outliers: float = OUTLIER


def rows(field_type, outlier=OUTLIER):
    """Fields, one of them in each of some rows far from the others."""
    def make(generator, outlier):
        x = torch.randn(ROWS, field_type.dim, generator=generator,
                        dtype=torch.float64)
        x[::5, ::7] = outlier
        x[1, :] = -outlier
        return (x, )
    return make


def edges(generator, outlier):
    """Positions, some of them far away, and attributes."""
    pos = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)
    pos[::5] *= outlier
    return (pos, )


def pairs(generator, outlier):
    h, = rows(T)(generator, 1.)
    x, = rows(T)(generator, outlier)
    index = torch.arange(ROWS) // 4
    return h, x, torch.arange(ROWS), index, ROWS // 4


class _Convolve(torch.nn.Module):
    """A kernel as a convolution uses it."""
    def __init__(self, basis):
        super().__init__()
        self.kernel = SteerableKernel(basis, T, T, 4.)

    def forward(self, pos, x):
        index = torch.arange(len(pos), device=pos.device)
        h = self.kernel.basis(pos)
        return self.kernel.convolve(h, x, index, index // 4, len(pos) // 4)


LAYERS = {
    'Linear': Case(lambda: Linear(SO2, SO2), rows(SO2), 'weights'),
    'Bilinear': Case(lambda: Bilinear(T, T, T), pairs, 'weights', 5e3),
    'Gate': Case(lambda: Gate(T), rows(Gate(T).in_type)),
    'NormGate': Case(lambda: NormGate(T), rows(T)),
    'NormActivation': Case(lambda: NormActivation(T), rows(T)),
    'QuotientELU': Case(lambda: QuotientELU(FieldType.sphere(4, 2, 'O')),
                        rows(FieldType.sphere(4, 2, 'O'))),
    # Squares: float16 holds them to 255.
    'TensorProductActivation': Case(lambda: TensorProductActivation(T),
                                    rows(T), 'weights', 30.),
    'FieldBatchNorm': Case(lambda: FieldBatchNorm(SO2), rows(SO2)),
    'FieldDropout': Case(lambda: FieldDropout(T, 0.), rows(T)),
    'InvariantReadout': Case(lambda: InvariantReadout(SO2, 5), rows(SO2),
                             'weights'),
    'ImplicitBasis': Case(lambda: ImplicitBasis('O(3)', 4, 2), edges,
                          'float32'),
    'HarmonicBasis': Case(lambda: HarmonicBasis('O(3)', 3), edges, 'float32'),
    'SteerableKernel, implicit': Case(
        lambda: _Convolve(ImplicitBasis('O(3)', 4, 2)),
        lambda g, outlier: edges(g, outlier) + rows(T)(g, outlier),
        'float32'),
    'SteerableKernel, harmonic': Case(
        lambda: _Convolve(HarmonicBasis('O(3)', 3)),
        lambda g, outlier: edges(g, outlier) + rows(T)(g, outlier),
        'float32'),
}


def graph(field_type):
    """Features with outliers, positions and edges."""
    def make(generator, outlier):
        x, = rows(field_type)(generator, outlier)
        pos = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64)
        index = torch.randint(ROWS, (2, 6 * ROWS), generator=generator)
        return x, pos, index
    return make


def molecules(generator, outlier):
    """Eight of them: a single output may be a difference of large terms."""
    return *graph(SCALARS)(generator, outlier), None, torch.arange(ROWS) // 4


def cloud(generator, outlier):
    """Three clouds in the unit ball, some points of which are far away."""
    pos, = edges(generator, outlier)
    return pos / 3, torch.arange(ROWS) * 3 // ROWS


def voxels(channels, size):
    def make(generator, outlier):
        x = torch.randn(2, channels, *3 * (size, ), generator=generator,
                        dtype=torch.float64)
        x[:, :, ::3, 1, 2] = outlier
        return (x, )
    return make


SCALARS = FieldType('5x0e', 'O(3)')
S = FieldType('4x0e + 4x1o', 'SO(3)')
#: Convolutions and whole networks: the same, with less to ask of the error.
NETWORKS = {
    'ImplicitSteerableConv': Case(
        lambda: ImplicitSteerableConv(T, T, hidden=4, radius=2.), graph(T),
        'weights'),
    'HarmonicSteerableConv': Case(
        lambda: HarmonicSteerableConv(T, T, radius=3.), graph(T), 'weights'),
    'LatticeSteerableConv': Case(lambda: LatticeSteerableConv(S, S, 3),
                                 voxels(S.dim, 6), 'weights'),
    'LatticeNormConv': Case(lambda: LatticeNormConv(S, S, 3),
                            voxels(S.dim, 6), 'weights'),
    'LatticeBlock': Case(lambda: LatticeBlock(S, S, 3, norm=True),
                         voxels(S.dim, 6), 'weights'),
    'GlobalPool': Case(lambda: GlobalPool(T), rows(T)),
    'NormMaxPool': Case(lambda: NormMaxPool(T), rows(T)),
    'QM9Net': Case(lambda: QM9Net(blocks=1, channels=4, invariants=8,
                                  radius=2.), molecules, 'weights', 1e3),
    'ModelNetClassifier': Case(
        lambda: ModelNetClassifier(4, channels=4, invariants=8, mlp=8, k=6,
                                   ratios=(1., 1.), num_points=ROWS // 3,
                                   dropout=0.), cloud, 'weights'),
    'ModelNetSegmenter': Case(
        lambda: ModelNetSegmenter(4, channels=4, mlp=8, k=6, ratios=(1., 1.),
                                  num_points=ROWS // 3, dropout=0.), cloud,
        'weights'),
    'TetrisNet': Case(
        lambda: TetrisNet(4, fields=['4x0e + 4x1o'], strides=(1, 1),
                          invariants=8, dropout=0.), voxels(1, 8), 'weights'),
    'ShrecNet': Case(
        lambda: ShrecNet(4, fields=['4x0e + 4x1o'], strides=(1, 1),
                         invariants=8), voxels(1, 8), 'weights'),
    'CathNet': Case(
        lambda: CathNet(4, channels=(2, 2), blocks=(1, 1), max_degree=1,
                        invariants=8, dropout=0.), voxels(1, 16), 'weights'),
    'AminoAcidNet': Case(
        lambda: AminoAcidNet(4, 2, size=37, channels=(1, 1, 1, 1),
                             max_degree=1, hidden=8, dropout=0.),
        voxels(2, 37), 'weights'),
}
WAYS = ['autocast', 'cast', 'input']
HALF = [torch.float16, torch.bfloat16]


def _floating(values, dtype=None, grad=False):
    """Copies, with tensors of floating-point numbers in a dtype."""
    return [v.to(dtype or v.dtype).detach().clone().requires_grad_(grad)
            if isinstance(v, torch.Tensor) and v.is_floating_point() else v
            for v in values]


@dataclass
class Result:
    """What a layer did in half precision."""
    out: torch.Tensor
    error: float
    statistics: dict
    gradients: dict


def measure(case: Case, way: str, dtype: torch.dtype, training: bool = True,
            seed: int = 0, outlier: float | None = None,
            settled: bool = False) -> Result:
    """The output in half precision, and its error against float64 relative
    to the norm of the output, with the same rounded inputs and weights.

    ``way`` is ``'autocast'`` (a float32 layer and float32 inputs),
    ``'cast'`` (layer and inputs in half precision) or ``'input'`` (a float32
    layer without autocast, half-precision inputs). In eval mode
    ``settled`` gives norms the statistics of the inputs first.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = case.build().train(training)
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.1 * torch.randn_like(p))
    inputs = case.inputs(generator, case.outliers if outlier is None else
                         outlier)
    # What is rounded on the way in is no error of the layer.
    inputs = _floating(_floating(inputs, dtype), torch.float64)
    if not training and settled:
        # Statistics of these inputs: without any, a network of norms is none
        # of norms, and true values leave float16.
        norms = [m for m in layer.modules()
                 if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            layer.train()(*_floating(inputs, torch.float32))
        layer.eval()
    if way == 'cast':
        layer = layer.to(dtype)
    exact = copy.deepcopy(layer).double()
    with torch.no_grad():
        expected = exact(*inputs)
    given = _floating(inputs, torch.float32 if way == 'autocast' else dtype,
                      grad=True)
    with torch.autocast('cpu', dtype=dtype, enabled=way == 'autocast'):
        out = layer(*given)
    weight = torch.randn(out.shape, generator=generator).to(out.dtype)
    (out * weight).float().mean().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()
                 if p.grad is not None}
    gradients.update({f'input {i}': t.grad for i, t in enumerate(given)
                      if isinstance(t, torch.Tensor) and t.grad is not None})
    statistics = {name: b for name, b in layer.named_buffers()
                  if name.endswith(('running_mean', 'running_var', 'scale'))}
    error = (out.detach().double() - expected).norm() / expected.norm()
    return Result(out, error.item(), statistics, gradients)


def expected_dtype(case: Case, way: str, dtype: torch.dtype):
    if case.returns == 'float32':
        return torch.float32
    if case.returns == 'input':
        return torch.float32 if way == 'autocast' else dtype
    return dtype if way == 'cast' else torch.float32


@pytest.mark.parametrize('dtype', HALF, ids=['float16', 'bfloat16'])
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', LAYERS)
def test_half_precision(name, way, dtype):
    case = LAYERS[name]
    for training in (True, False):
        result = measure(case, way, dtype, training)
        if name == 'Linear' and way == 'autocast':
            assert result.out.dtype == dtype  # as torch.nn.Linear
        else:
            assert result.out.dtype == expected_dtype(case, way, dtype)
        assert result.out.isfinite().all()
        assert result.error < 8 * torch.finfo(dtype).eps
        for key, value in (result.statistics | result.gradients).items():
            assert value.isfinite().all(), key
        assert all(v.dtype == torch.float32
                   for v in result.statistics.values())
        assert result.gradients


@pytest.mark.parametrize('dtype', HALF, ids=['float16', 'bfloat16'])
@pytest.mark.parametrize('way', ['autocast', 'cast'])
@pytest.mark.parametrize('name', NETWORKS)
def test_networks_in_half_precision(name, way, dtype):
    for training in (True, False):
        result = measure(NETWORKS[name], way, dtype, training, settled=True)
        assert result.out.isfinite().all()
        for key, value in (result.statistics | result.gradients).items():
            assert value.isfinite().all(), key
        assert result.error < 32 * torch.finfo(dtype).eps
        assert result.gradients


@pytest.mark.parametrize('dtype', HALF, ids=['float16', 'bfloat16'])
@pytest.mark.parametrize('name', ['Gate', 'NormGate', 'NormActivation',
                                  'QuotientELU', 'FieldBatchNorm',
                                  'InvariantReadout', 'Bilinear',
                                  'TensorProductActivation'])
def test_large_inputs_under_autocast(name, dtype):
    """Squares are no longer numbers of float16, sums are no longer exact."""
    result = measure(LAYERS[name], 'autocast', dtype, outlier=6e4)
    assert result.out.isfinite().all()
    assert result.error < 8 * torch.finfo(dtype).eps


def test_one_outlier_among_ones():
    norm = FieldBatchNorm(FieldType('2x0e'))
    x = torch.ones(8, 2)
    x[0, 0] = 1000
    with torch.autocast('cpu', dtype=torch.float16):
        norm(x)
    assert norm.running_var.isfinite().all()
    x = torch.full((8, 2), 6e4).half()
    x[0] = -6e4
    norm = FieldBatchNorm(FieldType('2x0e')).half()
    assert norm(x).isfinite().all() and norm(x).dtype == torch.float16
    assert norm.running_var.dtype == torch.float32
    assert norm.running_var.isfinite().all()


def test_variance_about_a_large_mean():
    """Two passes: the mean square would have lost it."""
    norm = FieldBatchNorm(FieldType('1x0e'), momentum=1.)
    x = torch.randn(1000, 1, dtype=torch.float64)
    norm((1e4 + x).float())
    assert torch.allclose(norm.running_var.double(), x.var(0,
                          unbiased=False), rtol=1e-2)


def test_statistics_follow_up_not_down():
    norm = FieldBatchNorm(FieldType('1x0e'))
    norm.running_var.fill_(1e9)
    for cast in (norm.half, norm.bfloat16, norm.float, norm.half):
        cast()
        assert norm.running_var.dtype == torch.float32
        assert norm.running_var == 1e9
    assert norm.weight.dtype == torch.float16
    assert norm.double().running_var.dtype == torch.float64
    assert norm.to('meta').running_var.is_meta
    assert norm.half().running_var.dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16,
                                   torch.bfloat16])
@pytest.mark.parametrize('name', LAYERS)
def test_default_dtype(name, dtype):
    before = torch.get_default_dtype()
    generator = torch.Generator().manual_seed(0)
    try:
        torch.set_default_dtype(dtype)
        layer = LAYERS[name].build()
        out = layer(*_floating(LAYERS[name].inputs(generator, 1.), dtype))
    finally:
        torch.set_default_dtype(before)
    assert all(p.dtype == dtype for p in layer.parameters())
    assert out.isfinite().all()
    full = torch.promote_types(dtype, torch.float32)
    assert out.dtype == (full if LAYERS[name].returns == 'float32' else dtype)


@pytest.mark.parametrize('module, x', [
    (torch.float32, torch.float64), (torch.float64, torch.float32),
    (torch.float64, torch.float16), (torch.float16, torch.float32),
    (torch.bfloat16, torch.float16), (torch.float16, torch.float64)])
@pytest.mark.parametrize('name', LAYERS)
def test_mixed_dtypes(name, module, x):
    """One rule: element by element the dtype stays that of the input, maps
    return that of their weights.
    """
    case = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    layer = case.build().to(module).eval()
    inputs = _floating(case.inputs(generator, 3.), x)
    out = layer(*inputs)
    if case.returns != 'float32':
        assert out.dtype == (x if case.returns == 'input' else module)
    exact = copy.deepcopy(layer).double()(*_floating(inputs, torch.float64))
    eps = max(torch.finfo(module).eps, torch.finfo(x).eps)
    assert (out.double() - exact).norm() < 8 * eps * exact.norm()


def markdown() -> str:
    """The errors against float64 as a table."""
    lines = ['| layer | ' + ' | '.join(
        f'{way}, {str(d)[6:]}' for way in ('autocast', 'cast')
        for d in HALF) + ' |', '|---' * 5 + '|']
    for name, case in (LAYERS | NETWORKS).items():
        errors = [max(measure(case, way, d, training, seed,
                              settled=name in NETWORKS).error
                      for training in (True, False) for seed in range(3))
                  for way in ('autocast', 'cast') for d in HALF]
        lines.append(f'| {name} | ' + ' | '.join(f'{e:.0e}' for e in errors)
                     + ' |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(markdown())
