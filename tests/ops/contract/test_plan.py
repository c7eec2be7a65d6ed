import torch
from contract_problem import Problem

from pyg_steerable.ops.contract.plan import (
    cheapest_order,
    costs,
    prefers_matrix,
)
from pyg_steerable.ops.limits import LIMITS


def test_auto_chooses_the_cheaper_order():
    def order(num_src, num_dst, mv, mw):
        p = Problem('O(3)', u='4x0e', v=f'{mv}x0e', w=f'{mw}x0e')
        return cheapest_order(100, num_src, num_dst, p.couplings,
                              p.h.device)

    assert order(1000, 10, 8, 8) == 'aggregate'
    assert order(10, 1000, 8, 8) == 'source'
    assert order(100, 100, 2, 64) == 'aggregate'
    assert order(100, 100, 64, 2) == 'source'


def test_one_matrix_up_to_a_size(monkeypatch):
    p = Problem('1', u='2x0e', v='2x0e', w='2x0e')
    dims = (2, 2, 2)
    assert prefers_matrix(p.couplings.terms, dims, p.weight)
    monkeypatch.setitem(LIMITS, 'cpu', LIMITS['cpu']._replace(
        matrix_bytes=0))
    # Never refused is twice the size of the weights.
    assert prefers_matrix(p.couplings.terms, dims, p.weight)
    assert not prefers_matrix(p.couplings.terms, dims, p.weight[:3])


def test_moves_count(monkeypatch):
    terms = Problem('O(3)').couplings.terms
    factored, expanded = costs(terms, 100, 10, torch.device('cpu'))
    monkeypatch.setitem(LIMITS, 'cpu', LIMITS['cpu']._replace(move=0))
    assert expanded == 1000
    assert costs(terms, 100, 10, torch.device('cpu'))[0] == sum(
        c.mu * c.mv * c.s * c.dw * (c.du * c.dv + c.mw) for c in terms)
    assert costs(terms, 100, 10, torch.device('cuda'))[0] == factored
