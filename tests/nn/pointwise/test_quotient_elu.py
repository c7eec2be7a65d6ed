import pytest
import torch
from helpers.layers import GROUPS

from pyg_steerable import FieldType, Group
from pyg_steerable.nn import (
    QuotientELU,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
    assert_equivariant,
    equivariance_error,
)


@pytest.mark.parametrize('group', [g for g in GROUPS
                                   if Group(g).is_finite])
@pytest.mark.parametrize('samples', [None, 40])
def test_quotient_elu_is_exact_for_finite_groups(group, samples):
    layer = QuotientELU(FieldType.sphere(3, 2, group), samples)
    assert_equivariant(layer, dtype=torch.float64)
    assert_equivariant(layer, dtype=torch.float32)


@pytest.mark.parametrize('group', ['SO(2)', 'SO(2)xMxInv', 'SO(3)', 'O(3)'])
def test_quotient_elu_converges(group):
    T = FieldType.sphere(8, 2, group)
    errors = [equivariance_error(QuotientELU(T, n), dtype=torch.float64,
                                 num_samples=12) for n in (30, 120, 1000)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


@pytest.mark.parametrize('group', ['SO(2)xM', 'SO(2)xF', 'SO(2)xMxInv',
                                   'O(3)'])
def test_quotient_elu_keeps_discrete_parts_exactly(group):
    layer = QuotientELU(FieldType.sphere(3, 2, group))
    error = equivariance_error(layer, elements=Group(group).components,
                               dtype=torch.float64)
    assert error < 1e-12


def test_quotient_elu_with_fewer_channels_of_higher_degree():
    T = FieldType('1x1o + 3x0e + 2x1o + 1x2e', 'O')
    layer = QuotientELU(T)
    assert_equivariant(layer, dtype=torch.float64)
    x = torch.randn(5, T.dim)
    assert layer(x).shape == x.shape
    # Three scalars, two of them in functions of higher degree.
    assert layer.degrees == [(2, 1), (1, 2)]


def test_quotient_elu_of_scalars_is_elu():
    layer = QuotientELU(FieldType('4x0e', 'SO(3)')).double()
    x = torch.randn(100, 4).double()
    ratio = layer(x) / torch.nn.functional.elu(x)
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))


def test_quotient_elu_is_not_equivariant_outside():
    layer = QuotientELU(FieldType.sphere(4, 2, 'C2'), 12)
    assert equivariance_error(layer, 'SO(3)', dtype=torch.float64) > 1e-3


class TestQuotientELU(EquivariantLayerTests):
    outside = 'SO(3)'
    smooth = False

    def make(self):
        return QuotientELU(FieldType.sphere(2, 1, 'C2'), samples=6)
