import importlib
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_steerable import FieldType
from pyg_steerable.nn import Bilinear
from pyg_steerable.ops import contract, contract_reference, dense_kernel
from pyg_steerable.ops.portable import contract_portable

# The package also has a function of this name.
chunks = importlib.import_module('pyg_steerable.ops.chunks')
operators = importlib.import_module('pyg_steerable.ops.operators')
path_module = importlib.import_module('pyg_steerable.ops.paths')
U, V, W = '3x0e + 2x1o + 1x2e', '2x0e + 3x1o', '4x0e + 2x1o + 2x2e'
GROUPS = ['O(3)', 'SO(2)', 'M', '1', 'I']
ORDERS = ['auto', 'aggregate', 'source']


def graph(kind, num_src, num_dst):
    generator = torch.Generator().manual_seed(0)

    def random(high, n):
        return torch.randint(high, (n, ), generator=generator)

    if kind == 'empty':
        return torch.zeros(2, 0, dtype=torch.long)
    src, dst = random(num_src, 30), random(num_dst, 30)
    if kind == 'hub':  # and isolated targets beside it
        dst = torch.where(random(2, 30) == 0, 1, dst.clamp(max=3))
    if kind == 'duplicates':
        src, dst = src[:5].repeat(6), dst[:5].repeat(6)
    return torch.stack([src, dst])


class Problem:
    def __init__(self, group, u=U, v=V, w=W, num_src=7, num_dst=6,
                 kind='random', dtype=torch.float64):
        torch.manual_seed(0)
        u, v, w = (FieldType(t, group) for t in (u, v, w))
        product = Bilinear(u, v, w).to(dtype)
        self.paths, self.bases = product.paths, product.bases
        self.src, self.dst = graph(kind, num_src, num_dst)
        self.num_dst, self.out_dim = num_dst, w.dim
        self.h = torch.randn(len(self.src), u.dim, dtype=dtype)
        self.x = torch.randn(num_src, v.dim, dtype=dtype)
        self.weight = (torch.zeros(0) if product.weight is None else
                       product.weight.detach())

    @property
    def inputs(self):
        return [t.clone().requires_grad_()
                for t in (self.h, self.x, self.weight)]

    def __call__(self, h, x, weight, order='aggregate'):
        return contract(h, x, self.src, self.dst, self.num_dst, weight,
                        self.bases, self.paths, self.out_dim, order)

    def derivatives(self, order):
        """Output, first and second derivatives of a curved loss."""
        inputs = self.inputs
        out = self(*inputs, order)
        c = torch.randn(out.shape, generator=torch.Generator().manual_seed(1),
                        dtype=out.dtype)
        first = torch.autograd.grad((out.sin() * c).sum(), inputs,
                                    create_graph=True)
        square = sum((t * t).sum() for t in first)
        return [out, *first, *torch.autograd.grad(square, inputs)]


def close(a, b, tol=1e-11):
    return (a - b).abs().max().item() <= tol * (1 + b.abs().max().item()) \
        if b.numel() else a.shape == b.shape


@pytest.mark.parametrize('kind', ['random', 'hub', 'duplicates', 'empty'])
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
def test_reference_against_a_loop(order):
    p = Problem('D3')
    out = torch.zeros(p.num_dst, p.out_dim, dtype=torch.float64)
    for e in range(len(p.src)):
        at = 0
        for q, Q in zip(p.paths, p.bases):
            Wq = p.weight[at:at + q.numel].view(q.mw, q.s, q.mu, q.mv)
            at += q.numel
            h = p.h[e, q.u:q.u + q.mu * q.du].view(q.mu, q.du)
            x = p.x[p.src[e], q.v:q.v + q.mv * q.dv].view(q.mv, q.dv)
            y = torch.einsum('wsuv,skij,ui,vj->wk', Wq, Q, h, x)
            out[p.dst[e], q.w:q.w + q.mw * q.dw] += y.flatten()
    assert close(p(p.h, p.x, p.weight, order), out)
    k = dense_kernel(p.h, p.weight, p.bases, p.paths, p.x.shape[1], p.out_dim)
    message = (k @ p.x[p.src, :, None]).squeeze(-1)
    assert close(out.new_zeros(out.shape).index_add(0, p.dst, message), out)


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('num_src, num_dst', [(3, 20), (20, 3), (1, 1)])
def test_bipartite(order, num_src, num_dst):
    problem = Problem('SO(2)', num_src=num_src, num_dst=num_dst)
    for a, b in zip(problem.derivatives(order),
                    problem.derivatives('reference')):
        assert close(a, b)


@pytest.mark.parametrize('order', [*ORDERS, 'reference'])
def test_nothing_to_do(order):
    problem = Problem('O(3)', num_src=0, num_dst=0, kind='empty')
    inputs = problem.inputs
    out = problem(*inputs, order)
    assert out.shape == (0, problem.out_dim)
    out.sum().backward()
    assert not inputs[2].grad.any()
    # No equivariant map at all: zeros.
    problem = Problem('O(3)', u='2x0e', v='3x0e', w='1x1o')
    assert not problem.paths
    out = problem(*problem.inputs, order)
    assert out.shape == (6, 3) and not out.any()


def test_targets_without_edges_are_zero():
    problem = Problem('SO(2)', kind='hub')
    out = problem(problem.h, problem.x, problem.weight)
    assert not out[4:].any() and out[1].abs().min() > 0


@pytest.mark.parametrize('order', ['aggregate', 'source'])
@pytest.mark.parametrize('size', [1, 500, 4000])
def test_chunk_boundaries(order, size, monkeypatch):
    problem = Problem('SO(2)', kind='hub')
    expected = problem.derivatives('reference')
    monkeypatch.setattr(chunks, 'CHUNK_BYTES', {'cpu': size, 'cuda': size})
    for a, b in zip(problem.derivatives(order), expected):
        assert close(a, b)


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


def test_float32():
    problem = Problem('SO(2)', dtype=torch.float32)
    exact = Problem('SO(2)')
    for order in ORDERS:
        out = problem(*problem.inputs, order)
        assert out.dtype == torch.float32
        expected = contract_reference(
            problem.h.double(), problem.x.double(), problem.src, problem.dst,
            problem.num_dst, problem.weight.double(), exact.bases,
            problem.paths, problem.out_dim)
        assert close(out.double(), expected, 1e-5)


class _Largest(TorchDispatchMode):
    """The size of the largest tensor that an operator returns."""
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                # What is stored, not what an expanded view shows.
                numel = t.untyped_storage().nbytes() // t.element_size()
                self.numel = max(self.numel, numel)
        return out


@pytest.mark.parametrize('order', ['aggregate', 'source'])
def test_no_kernel_is_stored(order, monkeypatch):
    n, degree = 60, 15
    problem = Problem('SO(2)', u='4x0e + 4x1o', v='8x0e + 8x1o',
                      w='8x0e + 8x1o', num_src=n, num_dst=n)
    E = n * degree
    problem.src = torch.randint(n, (E, ))
    problem.dst = torch.arange(n).repeat_interleave(degree)
    problem.h = torch.randn(E, 16).double()
    monkeypatch.setattr(chunks, 'CHUNK_BYTES', {'cpu': 2**16, 'cuda': 2**16})
    sizes = {}
    for which in (order, 'reference'):
        with _Largest() as largest:
            problem(*problem.inputs, which).sin().sum().backward()
        sizes[which] = largest.numel
    kernels = E * 32 * 32
    inputs = max(E * 17, problem.weight.numel(), 2 * n * 32)
    assert sizes['reference'] >= kernels
    # Inputs, a chunk, or the maps multiplied out: nothing else.
    assert sizes[order] <= max(inputs, 2**16 // 8, 16 * 32 * 32)
    assert sizes[order] < kernels / 20


@pytest.mark.parametrize('kind', ['random', 'hub', 'duplicates', 'empty'])
@pytest.mark.parametrize('group', GROUPS)
def test_portable(group, kind):
    """What is exported is the same, also in its derivatives."""
    problem = Problem(group, kind=kind)
    other = Problem(group, kind=kind)
    other.__class__ = type('Portable', (Problem, ), {
        '__call__': lambda p, h, x, weight, order: contract_portable(
            h, x, p.src, p.dst, p.num_dst, weight, p.bases, p.paths,
            p.out_dim)})
    for a, b in zip(other.derivatives('auto'),
                    problem.derivatives('reference')):
        assert close(a, b)


@pytest.mark.parametrize('kind', ['random', 'empty'])
def test_opcheck(kind):
    p = Problem('SO(2)', u='1x0e + 1x1o', v='2x0e + 1x1o', w='1x0e + 1x1o',
                kind=kind)
    layout = path_module.flatten(p.paths)
    bases = torch.cat([Q.flatten() for Q in p.bases])
    h, x, weight = p.inputs
    torch.library.opcheck(
        operators._forward, (h, x, p.src, p.dst, p.num_dst, weight, bases,
                          layout, p.out_dim))
    g = torch.randn(p.num_dst, p.out_dim).double().requires_grad_()
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
        return contract(p.h, p.x, src, dst, 5, p.weight, p.bases, p.paths,
                        p.out_dim, 'aggregate')

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
    p.bases = [Q.to('meta') for Q in p.bases]
    for order in ('aggregate', 'source'):
        out = p(*meta, order)
        assert out.shape == (p.num_dst, p.out_dim) and out.is_meta
        grads = torch.autograd.grad(out.sum(), meta)
        assert [g.shape for g in grads] == [t.shape for t in meta]


def test_auto_chooses_the_cheaper_order():
    def order(num_src, num_dst, mv, mw):
        p = Problem('O(3)', u='4x0e', v=f'{mv}x0e', w=f'{mw}x0e')
        return path_module.cheapest_order(100, num_src, num_dst, 4, mv, mw,
                                     p.paths)

    assert order(1000, 10, 8, 8) == 'aggregate'
    assert order(10, 1000, 8, 8) == 'source'
    assert order(100, 100, 2, 64) == 'aggregate'
    assert order(100, 100, 64, 2) == 'source'


def test_path():
    p = Problem('SO(2)').paths[0]
    assert p.transposed().transposed() == p
    assert p.numel == math.prod((p.mw, p.s, p.mu, p.mv))


def test_unknown_order():
    p = Problem('O(3)')
    with pytest.raises(ValueError, match="'order'"):
        p(*p.inputs, 'fastest')
