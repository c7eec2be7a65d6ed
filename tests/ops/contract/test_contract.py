import pytest
import torch
from contract_problem import BACKENDS, ORDERS, Problem, close

from pyg_steerable.ops import contract


@pytest.mark.parametrize('way', [*ORDERS, *BACKENDS])
def test_nothing_to_do(way):
    problem = Problem('O(3)', num_src=0, num_dst=0, kind='empty')
    inputs = problem.inputs
    out = problem(*inputs, way)
    assert out.shape == (0, problem.couplings.w_dim)
    out.sum().backward()
    assert not inputs[2].grad.any()
    # No equivariant map at all: zeros.
    with pytest.warns(UserWarning, match='1x1o .* always zero'):
        problem = Problem('O(3)', u='2x0e', v='3x0e', w='1x1o')
    assert not problem.couplings.terms
    out = problem(*problem.inputs, way)
    assert out.shape == (6, 3) and not out.any()


def test_float32():
    problem, exact = Problem('SO(2)', dtype=torch.float32), Problem('SO(2)')
    args = [t.double() for t in problem.inputs]
    expected = exact(*args, 'reference')
    for way in [*ORDERS, *BACKENDS]:
        out = problem(*problem.inputs, way)
        assert out.dtype == torch.float32
        assert close(out.double(), expected, 1e-5)


@pytest.mark.parametrize('way', [*ORDERS, *BACKENDS])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sums_in_float32(dtype, way):
    """One rounding, at the end: not one for each edge."""
    p = Problem('O(3)', u='1x0e', v='1x0e', w='1x0e', num_src=1, num_dst=1)
    p.src, p.dst = p.src.new_zeros(2, 5000)
    p.h, p.x = torch.ones(5000, 1).to(dtype), torch.ones(1, 1).to(dtype)
    weight = torch.ones(1).to(dtype)
    out = p(p.h, p.x, weight, way)
    scale = float(p.couplings.bases[0].abs().max())
    assert out.dtype == dtype
    assert abs(float(out.abs()) / (5000 * scale) - 1) < torch.finfo(dtype).eps


@pytest.mark.parametrize('change, error, message', [
    (dict(order='fastest'), ValueError, "'order' to be one of 'auto', "),
    (dict(order='reference'), ValueError, "backend='reference'"),
    (dict(backend='fastest'), ValueError, "'backend' to be one of 'auto', "),
    (dict(backend=None), ValueError, "'backend'"),
    (dict(couplings=[]), TypeError, "'couplings' to be Couplings"),
    (dict(h=torch.zeros(30, 3)), ValueError, r"'h' of shape \[E, 14\]"),
    (dict(x=torch.zeros(7, 3)), ValueError, r"'x' of shape \[N, 11\]"),
    (dict(x=torch.zeros(3, 11)), ValueError, "'src'"),
    (dict(weight=torch.zeros(3)), ValueError, 'the weights of all couplings'),
    (dict(weight=None), TypeError, "'weight'"),
    (dict(num_dst=2), ValueError, "'dst'"),
    (dict(num_dst=-1), ValueError, "'num_dst'"),
    (dict(num_dst='2'), TypeError, "'num_dst'"),
    (dict(src=torch.zeros(3, dtype=torch.long)), ValueError, "'src'"),
])
def test_bad_input(change, error, message):
    p = Problem('O(3)')
    args = dict(h=p.h, x=p.x, src=p.src, dst=p.dst, num_dst=p.num_dst,
                weight=p.weight, couplings=p.couplings)
    contract(**args)
    with pytest.raises(error, match=message):
        contract(**{**args, **change})
