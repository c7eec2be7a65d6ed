"""Kernels that keep the channels of their input apart, then mix them."""
import pytest
import torch
from contract_problem import close

from pyg_steerable import FieldType
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis
from pyg_steerable.kernels import SteerableKernel as Kernel
from pyg_steerable.nn import ImplicitSteerableConv, calibrate
from pyg_steerable.nn.pointwise.grouped import GroupedTerm
from pyg_steerable.testing import assert_equivariant

IN, OUT = '4x0e + 6x1o + 1x2e', '6x0e + 3x1o + 2x0e'


def types(group):
    return FieldType(IN, group), FieldType(OUT, group)


@pytest.mark.parametrize('groups', [1, 2, 'depthwise'])
@pytest.mark.parametrize('group', ['O(3)', 'SO(2)', 'M', 'I'])
def test_one_map_two_ways(group, groups):
    """Matrices of kernels times features are what the convolution sums."""
    torch.manual_seed(0)
    basis = ImplicitBasis(group, max_degree=2, hidden=4)
    k = Kernel(basis, *types(group), groups=groups).double().eval()
    pos = torch.randn(30, 3, dtype=torch.float64)
    x = torch.randn(8, k.in_type.dim, dtype=torch.float64)
    src, dst = torch.randint(8, (2, 30))
    summed = k.convolve(k.basis(pos), x, src, dst, 8)
    messages = (k(pos) @ x[src, :, None]).squeeze(-1)
    assert close(summed, torch.zeros_like(summed).index_add(0, dst, messages))


@pytest.mark.parametrize('groups', [2, 3, 'depthwise'])
def test_groups_of_the_product(groups):
    kernel = Kernel(HarmonicBasis('O(3)', 2), *types('O(3)'), groups=groups)
    own = {c.v: c.groups for c in kernel.product.couplings.terms}
    expected = {2: [2, 2, 1], 3: [1, 3, 1], 'depthwise': [4, 6, 1]}[groups]
    assert list(own.values()) == expected
    assert all(c.mw == c.mv for c in kernel.product.couplings.terms)
    assert kernel.mix.in_type.dim == kernel.product.w_type.dim
    assert kernel.mix.out_type == kernel.out_type


def test_channels_stay_apart_before_they_are_mixed():
    torch.manual_seed(0)
    T = FieldType('5x0e + 3x1o', 'SO(2)')
    product = GroupedTerm(FieldType('2x0e + 2x1o', 'SO(2)'), T, T,
                          'depthwise').double()
    h = torch.randn(1, product.u_type.dim, dtype=torch.float64)
    seen = product.dense(h)[0] != 0
    at = 0
    for (copies, rep), c in zip(product.w_type.blocks,
                                product.couplings.terms):
        block = seen[at:at + copies * rep.dim, c.v:c.v + c.mv * c.dv]
        block = block.view(copies, rep.dim, c.mv, c.dv).any(3).any(1)
        assert torch.equal(block, torch.eye(copies, dtype=torch.bool))
        at += copies * rep.dim
    assert at == product.w_type.dim


@pytest.mark.parametrize('groups', [1, 2, 'depthwise'])
def test_outputs_of_unit_variance(groups):
    torch.manual_seed(0)
    n = 4000
    T = FieldType('32x0e + 16x1o', 'SO(2)')
    basis = ImplicitBasis('SO(2)', hidden=8)
    kernel = Kernel(basis, T, T, num_neighbors=8., groups=groups).eval()
    pos = torch.randn(8 * n, 3) / 3**0.5
    with torch.no_grad():
        out = kernel.convolve(kernel.basis(pos), torch.randn(n, T.dim),
                              torch.randint(n, (8 * n, )),
                              torch.arange(n).repeat(8), n)
    for part in out.split([32, 48], 1):
        assert 0.6 < part.square().mean().sqrt() < 1.6


def test_whatever_the_features_of_a_network_are():
    """Trained a step, calibrated, and with attributes, it is equivariant."""
    torch.manual_seed(0)
    T = FieldType('4x0e + 2x1o', 'SO(2)xM')
    conv = ImplicitSteerableConv(T, T, FieldType('2x0e', 'SO(2)xM'),
                                 groups='depthwise', hidden=6)
    x, pos = torch.randn(20, T.dim), torch.randn(20, 3)
    edges, attr = torch.randint(20, (2, 60)), torch.rand(60, 2)
    calibrate(conv, x, pos, edges, attr)
    optimizer = torch.optim.SGD(conv.parameters(), 0.1)
    before = conv(x, pos, edges, attr).square().mean()
    before.backward()
    assert all(p.grad.any() for p in conv.parameters())
    optimizer.step()
    assert conv(x, pos, edges, attr).square().mean() < before
    assert_equivariant(conv.eval().double(), dtype=torch.float64)


@pytest.mark.filterwarnings('ignore:Nothing leads')
def test_what_nothing_leads_to():
    group = 'O(3)'
    for groups in (1, 'depthwise'):
        kernel = Kernel(HarmonicBasis(group, 1), FieldType('2x0e', group),
                        FieldType('2x0e + 2x1e + 1x1o', group), groups=groups)
        assert kernel.unreached == [kernel.out_type.blocks[1]]


@pytest.mark.parametrize('groups, error', [
    (0, ValueError), (-1, ValueError), ('all', ValueError),
    (2.5, ValueError), (None, TypeError), (True, ValueError)])
def test_bad_groups(groups, error):
    with pytest.raises(error, match="'groups'"):
        Kernel(HarmonicBasis('O(3)', 1), *types('O(3)'), groups=groups)
    with pytest.raises(error, match="'groups'"):
        ImplicitSteerableConv(*types('O(3)'), groups=groups)
