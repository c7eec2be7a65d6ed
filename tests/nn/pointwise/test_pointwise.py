import random
import warnings

import numpy as np
import pytest
import torch
from helpers.layers import GROUPS

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.kernels import HarmonicBasis, SteerableKernel
from pyg_steerable.nn import (
    Bilinear,
    FieldBatchNorm,
    FieldDropout,
    Gate,
    InvariantReadout,
    Linear,
    NormActivation,
    NormGate,
    QuotientELU,
    TensorProductActivation,
)
from pyg_steerable.testing import (
    assert_equivariant,
    equivariance_error,
)

#: To some fields of random types nothing leads: zeros are equivariant too.
unreached = pytest.mark.filterwarnings('ignore:The fields .* always zero')
IRREPS = ['0e', '0o', '1o', '1e', '2e', '2o', '3o']
LAYERS = {
    'Linear': lambda T: Linear(T, T),
    'Gate': Gate,
    'NormGate': NormGate,
    'NormActivation': NormActivation,
    'TensorProduct': TensorProductActivation,
    'FieldBatchNorm': FieldBatchNorm,
    'FieldDropout': FieldDropout,
}


def random_type(group, seed, size=3):
    """Some of all irreps, odd parities included, in any order, and a regular
    representation where that is small.
    """
    generator = random.Random(seed)
    blocks = [(generator.randint(1, 3), ir)
              for ir in generator.choices(IRREPS, k=size)]
    group = Group.wrap(group)
    if 1 < group.order < 9:
        rho = Representation.regular(group)
        blocks.insert(generator.randint(0, size), (2, rho))
    return FieldType(blocks, group)


def stir(module):
    """Biases and other zeros must not hide anything."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


@unreached
@pytest.mark.parametrize('name', list(LAYERS))
@pytest.mark.parametrize('group', GROUPS)
def test_equivariance(group, name):
    torch.manual_seed(0)
    size = 2 if name == 'TensorProduct' else 4
    layer = stir(LAYERS[name](random_type(group, f'{group}{name}', size)))
    assert_equivariant(layer, dtype=torch.float32)
    assert_equivariant(layer, dtype=torch.float64)


@unreached
@pytest.mark.parametrize('group', GROUPS)
def test_equivariance_between_types(group):
    torch.manual_seed(0)
    a, b = random_type(group, 1), random_type(group, 2)
    assert_equivariant(stir(Linear(a, b)), dtype=torch.float64)
    readout = stir(InvariantReadout(a, 5))
    assert_equivariant(readout, dtype=torch.float32)
    assert_equivariant(readout, dtype=torch.float64)


@unreached
@pytest.mark.parametrize('group', GROUPS)
def test_equivariance_of_products(group):
    torch.manual_seed(0)
    types = [random_type(group, seed, 2) for seed in (1, 2, 3)]
    assert_equivariant(Bilinear(*types), dtype=torch.float64)


@pytest.mark.parametrize('group', [g for g in GROUPS if g != 'O(3)'])
def test_no_equivariance_outside(group):
    torch.manual_seed(0)
    # Up to degree 2 the icosahedron cannot be told from the sphere.
    T = FieldType('2x0e + 2x0o + 2x1o + 1x1e + 1x2e + 1x3o', group)
    layer = stir(Linear(T, T))
    assert equivariance_error(layer, 'O(3)', dtype=torch.float64) > 0.05
    assert equivariance_error(layer, dtype=torch.float64) < 1e-10


@pytest.mark.parametrize('group', ['1', 'M', 'O', 'SO(2)', 'SO(3)', 'O(3)'])
def test_unit_variance(group):
    torch.manual_seed(0)
    T = FieldType('32x0e + 32x1o + 32x2e', group)
    x = torch.randn(1000, T.dim)
    y = Linear(T, T)(x)
    for s in T.slices:
        assert 0.8 < y[:, s].var() < 1.25
    x = torch.randn(1000, T.dim)
    assert 0.8 < QuotientELU(T)(x).square().mean() < 1.25
    # One after another it drifts with the non-zero mean of ELU, slowly.
    for _ in range(6):
        x = QuotientELU(T)(Linear(T, T)(x))
    assert 0.4 < x.square().mean() < 2.5


@pytest.mark.parametrize('group', ['SO(2)', 'O', 'O(3)'])
def test_unit_variance_of_products(group):
    torch.manual_seed(0)
    T = FieldType('8x0e + 8x1o + 4x2e', group)
    h, x = torch.randn(2, 600, T.dim)
    index = torch.arange(600)
    y = Bilinear(T, T, T)(h, x, index, index, 600)
    for s in T.slices:
        assert 0.8 < y[:, s].square().mean() < 1.25


SO2 = FieldType('2x0e + 1x1o', 'SO(2)')
O3 = FieldType('2x0e + 1x1o', 'O(3)')
WIDE = torch.zeros(3, 6)


def product(h=WIDE[:, :5], src=None, dst=None, num_dst=3, order='auto'):
    src, dst = (torch.arange(3) if i is None else i for i in (src, dst))
    return Bilinear(SO2, SO2, SO2)(h, WIDE[:, :5], src, dst, num_dst, order)


@pytest.mark.parametrize('make, match', [
    (lambda: Linear(SO2, O3), 'one group'),
    (lambda: Bilinear(SO2, SO2, O3), 'one group'),
    (lambda: TensorProductActivation(SO2, O3), 'one group'),
    (lambda: Linear(SO2, SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: NormGate(SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: NormActivation(SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: Gate(SO2)(WIDE[:, :5]), "'x'.*6 numbers"),
    (lambda: QuotientELU(SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: TensorProductActivation(SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: FieldBatchNorm(SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: FieldDropout(SO2)(WIDE), "'x'.*5 numbers"),
    (lambda: InvariantReadout(SO2, 3)(WIDE), "'x'.*5 numbers"),
    (lambda: FieldDropout(SO2, 1.5), "'p'"),
    (lambda: FieldDropout(SO2, -0.1), "'p'"),
    (lambda: FieldBatchNorm(SO2, eps=-.5), "'eps'.*>= 0"),
    (lambda: FieldBatchNorm(SO2, momentum=2.), "'momentum'"),
    (lambda: FieldBatchNorm(SO2, normalization='l2'), "'normalization'"),
    (lambda: NormActivation(SO2, eps=-1), "'eps'.*positive"),
    (lambda: InvariantReadout(SO2, 3, eps=float('nan')), "'eps'"),
    (lambda: InvariantReadout(SO2, -1), "'out_channels'"),
    (lambda: QuotientELU(O3, 0), "'samples'"),
    (lambda: product(src=torch.arange(2)), "'src'.*as many.*got .2"),
    (lambda: product(dst=torch.arange(4)), "'dst'.*as many.*got .4"),
    (lambda: product(src=torch.tensor([0, 1, 3])), r"'src' in \[0, 3\)"),
    (lambda: product(dst=torch.tensor([0, -1, 1])), "'dst'.*from -1"),
    (lambda: product(num_dst=-1), "'num_dst'.*got -1"),
    (lambda: product(num_dst=2**40), "'num_dst'"),
    (lambda: product(h=WIDE), "'h'.*5 numbers"),
    (lambda: product(order='fast'), "'order'.*got 'fast'"),
    (lambda: QuotientELU(FieldType('2x1o')), 'multiplicities'),
    (lambda: QuotientELU(FieldType('2x0e + 1x1e')), 'sphere.*1e'),
    (lambda: QuotientELU(FieldType([(1, Representation.regular('C4'))],
                                   'C4')), 'sphere'),
    (lambda: QuotientELU(SO2.restrict('1'), 10**6), 'samples'),
])
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize('layer', [Gate, NormGate, NormActivation,
                                   QuotientELU, FieldBatchNorm, FieldDropout,
                                   TensorProductActivation])
def test_a_string_is_no_type(layer):
    with pytest.raises(TypeError, match='Build one with'):
        layer('2x0e')


def test_numbers_of_numpy():
    assert InvariantReadout(SO2, np.int64(3)).out_channels == 3
    assert FieldDropout(SO2, np.float32(0.5)).p == 0.5
    assert FieldBatchNorm(SO2, np.float64(1e-3)).eps == 1e-3
    assert QuotientELU(O3, np.int32(20)).samples == 20


def test_unreached_fields_are_named():
    """In the line that builds the layer, once for each layer."""
    a, b = FieldType('2x0e'), FieldType('2x0e + 3x1o + 1x0o')
    for build in (lambda: Linear(a, b), lambda: Bilinear(a, a, b),
                  lambda: TensorProductActivation(a, b)):
        with pytest.warns(UserWarning, match='3x1o . 1x0o.*always z'
                          ) as caught:
            layer = build()
        assert caught[0].filename == __file__ and len(caught) == 1
        unreached = getattr(layer, 'product', layer).unreached
        assert [(m, str(r)) for m, r in unreached] == [(3, '1o'), (1, '0o')]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not Linear(b, a).unreached
        assert not Linear(FieldType('1x0e', 'M'),
                          FieldType('1x1o', 'M')).unreached  # by the bias
        Linear(FieldType([]), b)  # nothing comes from nothing
        NormGate(b)
    unreached = SteerableKernel(HarmonicBasis('O(3)', 1), a, b).unreached
    assert [str(r) for _, r in unreached] == ['0o']


def test_no_parameter_without_numbers():
    """Distributed training waits for the gradient of each parameter."""
    T, none = FieldType('2x1o'), FieldType([])
    for layer in (Linear(none, T), Linear(T, none), FieldBatchNorm(T),
                  FieldBatchNorm(none), Bilinear(none, T, T)):
        assert all(p.numel() for p in layer.parameters())
        layer.reset_parameters()
        state = layer.state_dict()
        # Old checkpoints have them.
        old = {name: torch.empty(0) for name in layer._parameters}
        layer.load_state_dict({**old, **state})
        with pytest.raises(RuntimeError, match='Unexpected key'):
            layer.load_state_dict({**state, 'other': torch.empty(0)})
    x = torch.randn(4, 6)
    assert Bilinear(none, T, T).dense(x[:, :0]).shape == (4, 6, 6)
    assert Linear(none, T)(x[:, :0]).eq(0).all()
    assert Linear(T, none)(x).shape == (4, 0)
    assert FieldBatchNorm(T)(x).isfinite().all()
