import pytest
import torch
from contract_problem import Problem, close

from pyg_steerable.ops import contract
from pyg_steerable.ops.contract import operators
from pyg_steerable.ops.contract.couplings import flatten, pack


@pytest.mark.parametrize('kind', ['random', 'empty'])
def test_opcheck(kind):
    p = Problem('SO(2)', u='1x0e + 1x1o', v='2x0e + 1x1o', w='1x0e + 1x1o',
                kind=kind)
    layout = flatten(p.couplings.terms)
    bases = pack(p.couplings.bases, torch.float64)
    h, x, weight = p.inputs
    torch.library.opcheck(
        operators._forward, (h, x, p.src, p.dst, p.num_dst, weight, bases,
                             layout, p.couplings.w_dim))
    g = torch.randn(p.num_dst, p.couplings.w_dim).double().requires_grad_()
    for needs in ([True, True, True], [False, True, False],
                  [True, False, True]):
        torch.library.opcheck(
            operators._backward,
            (g, h, x, p.src, p.dst, weight, bases, layout, needs))


BATCHED = {  # batched arguments of f(h, x, weight)
    'features': (0, None, None), 'sources': (None, 1, None),
    'weights': (None, None, 0), 'two': (0, 0, None), 'all': (1, 0, 0),
}


@pytest.mark.parametrize('order', ['aggregate', 'source'])
@pytest.mark.parametrize('entries', BATCHED)
def test_vmap(order, entries):
    """Of values, of gradients and of gradients of gradients."""
    in_dims = BATCHED[entries]
    p = Problem('SO(2)', num_src=4, num_dst=5, u='1x0e + 1x1o',
                v='2x0e + 1x1o', w='1x0e + 1x1o')
    args = [t if d is None else torch.randn(
        *t.shape[:d], 3, *t.shape[d:]).double()
        for t, d in zip((p.h, p.x, p.weight), in_dims)]
    p.src, p.dst = p.src % 4, p.dst % 5

    def value(*args):
        return p(*args, order).sin().sum()

    def square(*args):
        grads = torch.func.grad(value, (0, 1, 2))(*args)
        return sum(g.square().sum() for g in grads)

    for function in (lambda *args: (p(*args, order), ),
                     torch.func.grad(value, (0, 1, 2)),
                     torch.func.grad(square, (0, 1, 2))):
        got = torch.func.vmap(function, in_dims)(*args)
        each = [function(*(a if d is None else a.select(d, b)
                           for a, d in zip(args, in_dims)))
                for b in range(3)]
        for a, b in zip(got, zip(*each)):
            assert close(a, torch.stack(b))


def test_vmap_of_graphs():
    p = Problem('O(3)', num_src=4, num_dst=5)
    src, dst = torch.randint(4, (3, 30)), torch.randint(5, (30, 3))

    def value(src, dst):
        return contract(p.h, p.x, src, dst, 5, p.weight, p.couplings,
                        'aggregate')

    got = torch.func.vmap(value, (0, 1))(src, dst)
    for b in range(3):
        assert close(got[b], value(src[b], dst[:, b]))


@pytest.mark.parametrize('order', ['aggregate', 'source'])
@pytest.mark.parametrize('kind', ['random', 'empty'])
def test_forward_mode(order, kind):
    """Tangents, tangents of gradients and tangents of tangents, and batches
    of all of them.
    """
    results = []
    for which in (order, 'reference'):
        p = Problem('M', u='1x0e + 1x1o', v='1x0e + 1x1o', w='1x0e + 1x1o',
                    num_src=3, num_dst=4, kind=kind)
        p.src, p.dst, p.h = p.src[:5] % 3, p.dst[:5] % 4, p.h[:5]
        inputs = (p.h, p.x, p.weight)

        def value(*args, p=p, which=which):
            return p(*args, which).sin().sum()

        both = (0, 1, 2)
        found = [torch.func.jvp(value, inputs, inputs)]
        for outer, inner in [(torch.func.jacfwd, torch.func.jacrev),
                             (torch.func.jacfwd, torch.func.jacfwd),
                             (torch.func.jacrev, torch.func.jacfwd)]:
            found.append(outer(inner(value, both), both)(*inputs))
        results.append(torch.utils._pytree.tree_leaves(found))
    assert len(results[0]) == 29
    for a, b in zip(*results):
        assert close(a, b)


@pytest.mark.parametrize('order', ['aggregate', 'source'])
def test_batched_gradients(order):
    """Also those without torch.func, which batch in another way."""
    p = Problem('SO(2)', u='1x0e + 1x1o', v='1x0e + 1x1o', w='1x0e + 1x1o',
                num_src=3, num_dst=3)
    p.src, p.dst, p.h = p.src[:5] % 3, p.dst[:5] % 3, p.h[:5]
    inputs = p.inputs
    out = p(*inputs, order).flatten()
    got = torch.autograd.grad(out, inputs, torch.eye(len(out)).double(),
                              is_grads_batched=True)
    expected = torch.autograd.functional.jacobian(
        lambda *t: p(*t, 'reference').flatten(), tuple(inputs))
    for a, b in zip(got, expected):
        assert close(a, b)

    def value(*t):
        return p(*t, order).sin().sum()

    inputs = tuple(t.detach() for t in inputs)
    hessians = [
        torch.autograd.functional.hessian(value, inputs),
        torch.autograd.functional.hessian(value, inputs, vectorize=True),
        torch.autograd.functional.hessian(
            value, inputs, vectorize=True,
            outer_jacobian_strategy='forward-mode')]
    for other in hessians[1:]:
        for a, b in zip(*map(torch.utils._pytree.tree_leaves,
                             (other, hessians[0]))):
            assert close(a, b)


def test_checks_of_all_modes():
    p = Problem('M', u='1x0e + 1x1o', v='1x0e + 1x1o', w='1x0e + 1x1o',
                num_src=3, num_dst=4)
    p.src, p.dst, p.h = p.src[:5] % 3, p.dst[:5] % 4, p.h[:5]
    for order in ('aggregate', 'source'):
        assert torch.autograd.gradcheck(
            lambda *t: p(*t, order), p.inputs,  # noqa: B023
            check_forward_ad=True, check_batched_grad=True,
            check_batched_forward_grad=True)
        assert torch.autograd.gradgradcheck(
            lambda *t: p(*t, order), p.inputs,  # noqa: B023
            check_fwd_over_rev=True, check_rev_over_rev=True)


def test_meta_shapes():
    p = Problem('SO(2)')
    meta = [t.detach().to('meta').requires_grad_() for t in p.inputs]
    p.src, p.dst = p.src.to('meta'), p.dst.to('meta')
    p.couplings = p.couplings._replace(
        bases=tuple(Q.to('meta') for Q in p.couplings.bases))
    for order in ('aggregate', 'source'):
        out = p(*meta, order)
        assert out.shape == (p.num_dst, p.couplings.w_dim) and out.is_meta
        grads = torch.autograd.grad(out.sum(), meta)
        assert [g.shape for g in grads] == [t.shape for t in meta]
