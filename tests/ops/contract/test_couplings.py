import pytest
import torch
from contract_problem import Problem, close

from pyg_steerable.ops import Coupling, Couplings, dense_kernel
from pyg_steerable.ops.contract.couplings import (
    flatten,
    pack,
    parse,
    split_weights,
    unpack,
)


def test_coupling():
    c = Problem('SO(2)').couplings.terms[1]
    assert c.transposed().transposed() == c
    assert c.numel == c.mw * c.s * c.mu * c.mv


def test_transposed():
    """The kernels of the transposed map are the transposed kernels."""
    p = Problem('SO(2)')
    mirrored = p.couplings.transposed()
    weight = torch.cat([W.transpose(0, 3).flatten() for W in split_weights(
        p.weight, p.couplings.terms)])
    k = dense_kernel(p.h, p.weight, p.couplings)
    assert close(dense_kernel(p.h, weight, mirrored), k.mT)


def test_there_and_back():
    terms, bases, *_ = Problem('SO(2)').couplings
    layout = flatten(terms)
    assert parse(layout) == list(terms)
    assert all(map(torch.equal, unpack(pack(bases, torch.float64), layout),
                   bases))


GOOD = Couplings((Coupling(0, 2, 1, 0, 3, 1, 1, 1, 3, 2), ),
                 (torch.zeros(2, 3, 1, 1), ), 2, 3, 4)


@pytest.mark.parametrize('parts, error, message', [
    (dict(terms=None), TypeError, "'terms' to be a tuple of Coupling"),
    (dict(terms=(tuple(GOOD.terms[0]), )), TypeError, "'terms'"),
    (dict(bases=(1, )), TypeError, "'bases' to be a tuple of Tensor"),
    (dict(bases=()), ValueError, "'bases' to hold one tensor for each"),
    (dict(bases=(torch.zeros(2, 1, 3, 1), )), ValueError,
     r"'bases' of shape \[2, 3, 1, 1\]"),
    (dict(u_dim=1), ValueError, "'u_dim' to be an integer, >= 2"),
    (dict(v_dim=2), ValueError, "'v_dim' to be an integer, >= 3"),
    (dict(w_dim=3), ValueError, "'w_dim' to be an integer, >= 4"),
    (dict(w_dim='4'), TypeError, "'w_dim'"),
])
def test_parts_that_do_not_fit(parts, error, message):
    assert GOOD.check() is GOOD
    with pytest.raises(error, match=message):
        GOOD._replace(**parts).check()
