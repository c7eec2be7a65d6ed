"""Couplings whose copies fall into groups."""
import pytest
import torch
from contract_problem import GROUPS, KINDS, Problem, close

from pyg_steerable.ops import Coupling, dense_kernel
from pyg_steerable.ops.contract import grouped
from pyg_steerable.ops.contract.couplings import split_weights
from pyg_steerable.ops.contract.grouped import contract_grouped

V = '4x0e + 6x1o + 2x2e'


def in_a_loop(p):
    """Edge by edge and copy by copy, as the formula says."""
    out = torch.zeros(p.num_dst, p.couplings.w_dim, dtype=torch.float64)
    weights = split_weights(p.weight, p.couplings.terms)
    for e, (j, i) in enumerate(zip(p.src, p.dst)):
        for c, Q, W in zip(p.couplings.terms, p.couplings.bases, weights):
            h = p.h[e, c.u:c.u + c.mu * c.du].view(c.mu, c.du)
            x = p.x[j, c.v:c.v + c.mv * c.dv].view(c.mv, c.dv)
            for w in range(c.mw):
                group = w // (c.mw // c.groups)
                seen = c.mv // c.groups
                y = torch.einsum('suv,skij,ui,vj->k', W[w], Q, h,
                                 x[group * seen:(group + 1) * seen])
                at = c.w + w * c.dw
                out[i, at:at + c.dw] += y
    return out


@pytest.mark.parametrize('groups', ['depthwise', 2])
def test_against_a_loop(groups):
    p = Problem('D3', v=V, groups=groups)
    assert p.couplings.is_grouped
    out = in_a_loop(p)
    assert out.abs().max() > 1
    for way in ('auto', 'portable', 'reference'):
        assert close(p(p.h, p.x, p.weight, way), out), way
    k = dense_kernel(p.h, p.weight, p.couplings)
    message = (k @ p.x[p.src, :, None]).squeeze(-1)
    assert close(out.new_zeros(out.shape).index_add(0, p.dst, message), out)


@pytest.mark.parametrize('many', [False, True])
@pytest.mark.parametrize('groups', ['depthwise', 2])
@pytest.mark.parametrize('v', [V, '2x0e + 2x1o'])
def test_ways(many, groups, v, monkeypatch):
    """Maps that come last, and kernels of all edges; also where copies of
    the output share one of the input.
    """
    monkeypatch.setattr(grouped, '_many', lambda c: many)
    p = Problem('O(3)', v=v, groups=groups)
    assert close(p(p.h, p.x, p.weight, 'auto'), in_a_loop(p))
    for own, plain in zip(p.derivatives('auto'), p.derivatives('reference')):
        assert close(own, plain)


def test_both_ways_are_taken():
    for group, ways in (('O(3)', {True, False}), ('1', {True})):
        terms = Problem(group, v=V, groups='depthwise').couplings.terms
        assert {grouped._many(c) for c in terms} == ways


@pytest.mark.parametrize('groups', ['depthwise', 2])
@pytest.mark.parametrize('group', GROUPS)
def test_derivatives(group, groups):
    p = Problem(group, v=V, groups=groups)
    for own, plain in zip(p.derivatives('auto'), p.derivatives('reference')):
        assert close(own, plain)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('groups', ['depthwise', 3])
def test_graphs(kind, groups):
    p = Problem('SO(2)', v='3x0e + 6x1o', kind=kind, groups=groups)
    assert close(p(p.h, p.x, p.weight, 'auto'),
                 p(p.h, p.x, p.weight, 'reference'))


def test_fewer_weights():
    full, apart = (Problem('O(3)', v=V, groups=g)
                   for g in (1, 'depthwise'))
    assert len(apart.weight) < len(full.weight) / 2
    plain, weight = apart.couplings.ungrouped(apart.weight)
    assert not plain.is_grouped
    assert weight.count_nonzero() == apart.weight.count_nonzero()
    assert len(weight) == sum(c.numel for c in plain.terms)
    same, own = full.couplings.ungrouped(full.weight)
    assert same is full.couplings and own is full.weight


def test_copies_of_the_output_that_share_a_group():
    """Two copies of the output in each group of three of the input."""
    torch.manual_seed(0)
    p = Problem('O(3)', u='2x0e', v='6x1o', w='4x1o')
    Q, = p.couplings.bases
    terms = (Coupling(0, 2, 1, 0, 6, 3, 0, 4, 3, len(Q), 2), )
    p.couplings = p.couplings._replace(terms=terms).check()
    p.weight = torch.randn(terms[0].numel, dtype=torch.float64)
    assert terms[0].shape == (4, 1, 2, 3)
    assert close(contract_grouped(p.h, p.x, p.src, p.dst, p.num_dst, p.weight,
                                  p.couplings), in_a_loop(p))
    assert close(p(p.h, p.x, p.weight, 'auto'), in_a_loop(p))


def test_groups_that_divide_nothing():
    p = Problem('O(3)', u='2x0e', v='6x1o', w='4x1o')
    term = p.couplings.terms[0]
    for groups in (0, 4, 3):
        wrong = p.couplings._replace(terms=(term._replace(groups=groups), ))
        with pytest.raises(ValueError, match=rf"'groups' .*\(got {groups}\)"):
            wrong.check()
