import pytest
import torch
from contract_problem import GROUPS, KINDS, ORDERS, Problem, close


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('group', GROUPS)
def test_against_the_reference(group, order, kind):
    problem = Problem(group, kind=kind)
    expected = problem.derivatives('reference')
    if kind != 'empty':
        assert all(t.abs().max() > 1e-3 for t in expected)
    for a, b in zip(problem.derivatives(order), expected):
        assert close(a, b)


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('num_src, num_dst', [(3, 20), (20, 3), (1, 1)])
def test_bipartite(order, num_src, num_dst):
    problem = Problem('SO(2)', num_src=num_src, num_dst=num_dst)
    for a, b in zip(problem.derivatives(order),
                    problem.derivatives('reference')):
        assert close(a, b)


def test_targets_without_edges_are_zero():
    problem = Problem('SO(2)', kind='hub')
    out = problem(problem.h, problem.x, problem.weight)
    assert not out[4:].any() and out[1].abs().min() > 0


@pytest.mark.parametrize('group', ['O(3)', 'M'])
@pytest.mark.parametrize('order', ['aggregate', 'source'])
def test_gradcheck(group, order):
    problem = Problem(group, u='1x0e + 2x1o', v='1x0e + 1x1o',
                      w='2x0e + 1x1o', num_src=3, num_dst=3)
    problem.src, problem.dst = problem.src[:6] % 3, problem.dst[:6] % 3
    problem.h = problem.h[:6]
    args = (lambda *t: problem(*t, order), problem.inputs)
    assert torch.autograd.gradcheck(*args)
    assert torch.autograd.gradgradcheck(*args)


@pytest.mark.parametrize('order', ['aggregate', 'source'])
def test_third_derivatives(order):
    results = []
    for which in (order, 'reference'):
        problem = Problem('SO(2)', u='1x0e + 1x1o', v='1x0e + 1x1o',
                          w='1x0e + 1x1o')
        inputs = problem.inputs
        value = problem(*inputs, which).sin().sum()
        for _ in range(3):
            grads = torch.autograd.grad(value, inputs, create_graph=True)
            value = sum((g / 10).sin().sum() for g in grads)
        results.append(grads)
    for a, b in zip(*results):
        assert close(a, b, 1e-10)


@pytest.mark.parametrize('needs', [(True, False, False), (False, True, False),
                                   (False, False, True)])
@pytest.mark.parametrize('order', ['aggregate', 'source'])
def test_some_inputs_only(order, needs):
    problem = Problem('SO(2)')
    grads = []
    for which in (order, 'reference'):
        inputs = [t.detach().requires_grad_(need)
                  for t, need in zip(problem.inputs, needs)]
        problem(*inputs, which).sin().sum().backward()
        assert [t.grad is not None for t in inputs] == list(needs)
        grads.append(inputs[needs.index(True)].grad)
    assert close(*grads)
