"""A contraction of random numbers, and what to compare."""
import torch

from pyg_steerable import FieldType
from pyg_steerable.nn import Bilinear
from pyg_steerable.nn.pointwise.grouped import GroupedTerm
from pyg_steerable.ops import contract

U, V, W = '3x0e + 2x1o + 1x2e', '2x0e + 3x1o', '4x0e + 2x1o + 2x2e'
GROUPS = ['O(3)', 'SO(2)', 'M', '1', 'I']
KINDS = ['random', 'hub', 'duplicates', 'empty']
ORDERS = ['auto', 'aggregate', 'source']
BACKENDS = ['torch', 'portable', 'reference']


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
                 kind='random', dtype=torch.float64, groups=1):
        torch.manual_seed(0)
        u, v, w = (FieldType(t, group) for t in (u, v, w))
        product = (Bilinear(u, v, w) if groups == 1 else
                   GroupedTerm(u, v, w, groups)).to(dtype)
        self.couplings = product.couplings
        self.src, self.dst = graph(kind, num_src, num_dst)
        self.num_dst = num_dst
        self.h = torch.randn(len(self.src), u.dim, dtype=dtype)
        self.x = torch.randn(num_src, v.dim, dtype=dtype)
        self.weight = (torch.zeros(0) if product.weight is None else
                       product.weight.detach())

    @property
    def inputs(self):
        return [t.clone().requires_grad_()
                for t in (self.h, self.x, self.weight)]

    def __call__(self, h, x, weight, way='aggregate'):
        """In an order of evaluation, or through a backend."""
        order, backend = (way, 'auto') if way in ORDERS else ('auto', way)
        return contract(h, x, self.src, self.dst, self.num_dst, weight,
                        self.couplings, order, backend)

    def derivatives(self, way):
        """Output, first and second derivatives of a curved loss."""
        inputs = self.inputs
        out = self(*inputs, way)
        c = torch.randn(out.shape, generator=torch.Generator().manual_seed(1),
                        dtype=out.dtype)
        first = torch.autograd.grad((out.sin() * c).sum(), inputs,
                                    create_graph=True)
        square = sum((t * t).sum() for t in first)
        return [out, *first, *torch.autograd.grad(square, inputs)]


def close(a, b, tol=1e-11):
    return (a - b).abs().max().item() <= tol * (1 + b.abs().max().item()) \
        if b.numel() else a.shape == b.shape
