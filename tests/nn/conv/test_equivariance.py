import random

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.nn import (
    FieldBatchNorm,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    LatticeSteerableConv,
    NormGate,
    calibrate,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
    assert_equivariant,
    equivariance_error,
)

GROUPS = ['1', 'Inv', 'M', 'F', 'C3', 'C4', 'C6', 'D2', 'D3', 'D4', 'T', 'O',
          'I', 'C4xM', 'D3xInv', 'TxInv', 'OxInv', 'IxInv', 'SO(2)',
          'SO(2)xM', 'SO(2)xF', 'SO(2)xInv', 'SO(2)xMxInv', 'O(2)', 'SO(3)',
          'O(3)']
IRREPS = ['0e', '0o', '1o', '1e', '2e', '2o']


def random_type(group, seed):
    generator = random.Random(f'{group}{seed}')
    return FieldType([(generator.randint(1, 3), ir)
                      for ir in generator.choices(IRREPS, k=3)], group)


def both_precisions(conv, **kwargs):
    with torch.no_grad():
        for p in conv.parameters():
            p.add_(0.1 * torch.randn_like(p))
    # Built in float32, then moved: constants must not stay rounded.
    assert_equivariant(conv, dtype=torch.float32, **kwargs)
    assert_equivariant(conv, dtype=torch.float64, **kwargs)
    assert_equivariant(conv.eval(), dtype=torch.float64, **kwargs)


@pytest.mark.parametrize('attributes', ['none', 'scalars', 'vectors',
                                        'nodes'])
@pytest.mark.parametrize('group', GROUPS)
def test_implicit_kernels(group, attributes):
    torch.manual_seed(0)
    types = {
        'none': (None, None),
        'scalars': (FieldType('3x0e', group), None),
        'vectors': (FieldType('1x1o + 1x0e + 1x1e', group), None),
        'nodes': (FieldType('1x0o', group), FieldType('1x0e + 1x1o', group)),
    }[attributes]
    both_precisions(ImplicitSteerableConv(
        random_type(group, 1), random_type(group, 2), *types, hidden=4,
        max_degree=2))


@pytest.mark.parametrize('group', GROUPS)
def test_harmonic_kernels(group):
    torch.manual_seed(0)
    both_precisions(HarmonicSteerableConv(
        random_type(group, 1), random_type(group, 2), max_degree=3))


@pytest.mark.parametrize('groups', ['depthwise', 2])
@pytest.mark.parametrize('group', GROUPS)
def test_kernels_that_keep_channels_apart(group, groups):
    torch.manual_seed(0)
    types = random_type(group, 1), random_type(group, 2)
    conv = ImplicitSteerableConv(*types, FieldType('1x1o + 1x0e', group),
                                 hidden=4, max_degree=2, groups=groups)
    assert conv.kernel.groups == groups and conv.kernel.mix is not None
    both_precisions(conv)
    both_precisions(HarmonicSteerableConv(*types, max_degree=3,
                                          groups=groups))
    both_precisions(LatticeSteerableConv(*types, 3, groups=groups))


@pytest.mark.parametrize('aggr', ['sum', 'mean'])
@pytest.mark.parametrize('order', ['aggregate', 'source', 'reference'])
def test_orders_and_aggregations(order, aggr):
    torch.manual_seed(0)
    T = FieldType('2x0e + 2x1o', 'SO(2)')
    way = 'backend' if order == 'reference' else 'order'
    both_precisions(ImplicitSteerableConv(T, T, hidden=4, aggr=aggr,
                                          num_layers=3, **{way: order}))


@pytest.mark.parametrize('group', ['C4', 'D3', 'C3xInv'])
def test_regular_fields(group):
    torch.manual_seed(0)
    rho = Representation.regular(group)
    T = FieldType([(2, rho), (1, '1o')], group)
    both_precisions(ImplicitSteerableConv(T, T, FieldType(rho, group),
                                          hidden=4))
    both_precisions(HarmonicSteerableConv(T, T, max_degree=2))


@pytest.mark.parametrize('axis', ['x', (1., 2., 3.)])
def test_other_axes(axis):
    group = Group('SO(2)xM', axis=axis)
    T = FieldType('2x0e + 2x1o', group)
    conv = ImplicitSteerableConv(T, T, hidden=4)
    both_precisions(conv)
    assert equivariance_error(conv, 'SO(2)xM') > 1e-2


@pytest.mark.parametrize('conv', [ImplicitSteerableConv,
                                  HarmonicSteerableConv])
@pytest.mark.parametrize('group', [g for g in GROUPS if g != 'O(3)'])
def test_no_equivariance_outside(group, conv):
    torch.manual_seed(0)
    T = FieldType('2x0e + 1x1o + 1x1e + 1x2e + 1x3o', group)
    conv = conv(T, T, max_degree=3).double()
    assert equivariance_error(conv) < 1e-10
    assert equivariance_error(conv, 'O(3)') > 1e-2
    if group in ('SO(2)', 'SO(2)xF', 'SO(3)', 'I', 'T', 'O'):
        # It tells an object from its mirror image.
        assert equivariance_error(
            conv, elements=-torch.eye(3).double()[None]) > 1e-2


def test_attributes_are_used():
    torch.manual_seed(0)
    T, z = FieldType('2x0e + 1x1o', 'O(3)'), FieldType('1x1o', 'O(3)')
    conv = ImplicitSteerableConv(T, T, z, z, hidden=4).double().eval()
    x, pos = torch.randn(6, T.dim).double(), torch.randn(6, 3).double()
    edge_index = torch.randint(6, (2, 20))
    edge_attr, node_attr = torch.randn(20, 3), torch.randn(6, 3)
    edge_attr, node_attr = edge_attr.double(), node_attr.double()
    out = conv(x, pos, edge_index, edge_attr, node_attr=node_attr)
    other = conv(x, pos, edge_index, -edge_attr, node_attr=node_attr)
    assert (out - other).abs().max() > 1e-2
    other = conv(x, pos, edge_index, edge_attr, node_attr=-node_attr)
    assert (out - other).abs().max() > 1e-2


def neighbours(n=400, k=15):
    """Points of a Gaussian cloud with a root mean square distance of
    neighbours of one, the typical inputs of a basis.
    """
    pos = np.random.default_rng(0).normal(size=(n, 3))
    index = cKDTree(pos).query(pos, k + 1)[1][:, 1:]
    relative = pos[index] - pos[:, None]
    pos = torch.from_numpy(pos / np.sqrt((relative**2).sum(-1).mean()))
    src = torch.from_numpy(index.reshape(-1))
    dst = torch.arange(n).repeat_interleave(k)
    return pos.float(), torch.stack([src, dst])


@pytest.mark.parametrize('make', [ImplicitSteerableConv,
                                  HarmonicSteerableConv])
@pytest.mark.parametrize('group', ['M', 'O', 'SO(2)', 'SO(3)', 'O(3)'])
def test_unit_variance_of_fresh_layers(group, make):
    torch.manual_seed(0)
    pos, edge_index = neighbours()
    T = FieldType('8x0e + 4x1o + 2x2e', group)
    for _ in range(10):
        conv = make(T, T, num_neighbors=15.).eval()
        out = conv(torch.randn(len(pos), T.dim), pos, edge_index)
        assert 0.5 < out.var() < 2


class Stack(torch.nn.Module):
    """Ten fresh convolutions, with what is between them."""
    def __init__(self, make, field_type, between=None):
        super().__init__()
        self.convs = torch.nn.ModuleList(
            make(field_type, field_type) for _ in range(10))
        self.between = torch.nn.ModuleList(
            between(field_type) if between else torch.nn.Identity()
            for _ in range(10))

    def forward(self, x, pos, edge_index):
        variances = []
        for conv, between in zip(self.convs, self.between):
            x = conv(x, pos, edge_index)
            variances.append(float(x.detach().var()))
            x = between(x)
        return variances


def normed(field_type):
    return torch.nn.Sequential(FieldBatchNorm(field_type),
                               NormGate(field_type))


def stack_input(field_type):
    pos, edge_index = neighbours()
    return torch.randn(len(pos), field_type.dim), pos, edge_index


@pytest.mark.parametrize('group', ['SO(3)', 'O(3)', 'SO(2)xM', 'O', 'M'])
@pytest.mark.parametrize('make', [ImplicitSteerableConv,
                                  HarmonicSteerableConv])
def test_scale_of_a_deep_network(make, group):
    torch.manual_seed(0)
    T = FieldType.sphere(16, 2, group)
    stack = Stack(make, T, normed)
    # As built, for typical neighbourhoods; and measured.
    variances = stack(*stack_input(T))
    assert all(0.4 < v < 3 for v in variances), str(variances)
    calibrate(stack, *stack_input(T))
    variances = stack(*stack_input(T))  # other features
    assert all(0.5 < v < 2 for v in variances), str(variances)


@pytest.mark.parametrize('group', ['SO(3)', 'SO(2)xM', 'O'])
@pytest.mark.parametrize('make', [ImplicitSteerableConv,
                                  HarmonicSteerableConv])
def test_unit_scale_of_a_calibrated_linear_stack(make, group):
    torch.manual_seed(0)
    T = FieldType.sphere(16, 2, group)
    stack = Stack(make, T).eval()
    found = calibrate(stack, *stack_input(T))
    assert list(found) == [f'convs.{i}' for i in range(10)]
    variances = stack(*stack_input(T))  # other features
    assert all(0.5 < v < 2 for v in variances), str(variances)


@pytest.mark.parametrize('make', [ImplicitSteerableConv,
                                  HarmonicSteerableConv])
def test_mean_has_the_scale_of_the_sum(make):
    torch.manual_seed(0)
    pos, edge_index = neighbours()
    T = FieldType('8x0e + 4x1o', 'SO(2)')
    conv = make(T, T, num_neighbors=15., aggr='mean').eval()
    out = conv(torch.randn(len(pos), T.dim), pos, edge_index)
    assert 0.5 < out.var() < 2


class TestImplicit(EquivariantLayerTests):
    outside = 'O(3)'

    def make(self):
        T = FieldType('1x0e + 1x1o', 'SO(2)')
        return ImplicitSteerableConv(T, T, FieldType('1x1o', 'SO(2)'),
                                     FieldType('1x0e', 'SO(2)'), hidden=3)


class TestHarmonic(EquivariantLayerTests):
    def make(self):
        T = FieldType('1x0e + 1x1o', 'O(3)')
        return HarmonicSteerableConv(T, T)


class TestImplicitBasis(EquivariantLayerTests):
    def make(self):
        T = FieldType('1x0e', 'O(3)')
        return ImplicitSteerableConv(T, T, FieldType('1x1o')).kernel.basis


class TestHarmonicBasis(EquivariantLayerTests):
    def make(self):
        T = FieldType('1x0e + 1x1o', 'O(3)')
        return HarmonicSteerableConv(T, T).kernel.basis
