r"""Equivariant linear maps, block by block.

The matrix of a map between fields consists of blocks,

.. math::
    M_{(a i) (b j)} = \sum_s W_{s a b} \, Q_{s i j},

one for each block of the output (copies :math:`a`, components :math:`i`) and
of the input (:math:`b, j`) that equivariant maps :math:`Q` lead between. Rows
of features go through :math:`Q` and then :math:`W` of each block, or through
the matrix, which is made for the purpose: whichever is cheaper.

What is done by blocks is bilinear: the map, its transpose and the derivative
in the weights,

.. math::
    \mathbf{x} M^\top, \qquad \mathbf{g} M, \qquad
    \partial_W \langle \mathbf{g}, \mathbf{x} M^\top \rangle,

are each other's derivatives, so that two autograd functions are enough for
any order. Programs that are compiled, exported or seen by :mod:`torch.func`
hold the same in plain PyTorch.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .contract.reference import spans
from .precision import full_precision, lowers

# What is counted are multiplications. So many take the time in which one
# number is moved, that in which a number of the matrix is made, and that of
# the calls for one more block.
_MOVE, _MAKE, _CALLS = 32, 40, 2**21
# Rows, where programs are recorded for any number of them.
_ROWS = 2**10
# A table of this many numbers is kept, or of as many as there are weights.
_MAX_TABLE = 2**13


class Block(NamedTuple):
    """One block of the matrix: where it starts, copies and components in the
    output (w) and in the input (v), the number s of maps, where these are in
    the flat tensor of all maps, how many of their numbers are not zero, and,
    if there is one map, which is a multiple of the identity, the factor.
    """
    w: int
    mw: int
    dw: int
    v: int
    mv: int
    dv: int
    s: int
    start: int
    nonzero: int
    identity: float | None

    @property
    def numel(self) -> int:
        """The number of weights, in the order [s, mw, mv]."""
        return self.s * self.mw * self.mv

    def transposed(self) -> Block:
        """The block with the roles of input and output exchanged."""
        return self._replace(w=self.v, mw=self.mv, dw=self.dv, v=self.w,
                             mv=self.mw, dv=self.dw)

    def maps(self, maps: Tensor) -> Tensor:
        """The maps Q of the block, [s, (dw dv)], of those of all."""
        size = self.dw * self.dv
        return maps.narrow(0, self.start, self.s * size).view(self.s, size)


class Layout:
    """All blocks of a matrix.

    Args:
        blocks (list[Block]): The blocks, in the order of their weights.
        out_dim (int): The number of rows.
        in_dim (int): The number of columns.
    """
    def __init__(self, blocks: Sequence[Block], out_dim: int, in_dim: int):
        self.blocks = tuple(blocks)
        self.mirrored = tuple(b.transposed() for b in blocks)
        self.out_dim, self.in_dim = out_dim, in_dim
        self.sizes = [b.numel for b in blocks]
        self.numel = sum(self.sizes)
        self.rows = spans(blocks, 'w', out_dim)
        self.columns = spans(blocks, 'v', in_dim)
        products = sum(
            b.s * b.dw * b.mv * (b.mw + (0 if b.identity else b.dv))
            for b in blocks)
        moved = in_dim + out_dim + sum(
            0 if b.identity else b.s * b.dw * b.mv for b in blocks)
        self._saved = out_dim * in_dim - products - _MOVE * moved
        # So many weights stay side by side in the matrix, if its columns
        # have components before copies; tables of single numbers are as good
        # if they are small.
        terms = sum(b.nonzero * b.mw * b.mv for b in blocks)
        self.run = 1 if 3 * terms <= _MAX_TABLE else math.gcd(
            in_dim, *(b.mv for b in blocks), *(b.v for b in blocks))
        self.num_runs = terms // max(1, self.run)

    def by_blocks(self, rows: int) -> bool:
        """Whether blocks one by one are cheaper than the matrix."""
        made = _MAKE * self.out_dim * self.in_dim
        return rows * self._saved + made > _CALLS * len(self.blocks) > 0

    def split(self, weight: Tensor) -> list[Tensor]:
        """The weights of each block, [s, (mw mv)]."""
        return [W.view(b.s, -1)
                for b, W in zip(self.blocks, weight.split(self.sizes))]


class Table(NamedTuple):
    """Which runs of weights are added at which places of the matrix, times
    what. If runs are of several weights, columns there have components before
    copies: where each of ours is there, and each of theirs here.
    """
    run: Tensor
    place: Tensor
    value: Tensor
    there: Tensor
    here: Tensor


def make_table(maps: Tensor, layout: Layout) -> Table | None:
    """The table of a matrix, from float64 maps; :obj:`None` if it would be
    large beside the weights.
    """
    n = layout.run
    if 3 * layout.num_runs > max(layout.numel, _MAX_TABLE):
        return None

    def count(size):
        return torch.arange(size, device='cpu')

    first, order = 0, count(layout.in_dim)
    found = [(order[:0], order[:0], maps[:0])]
    for b in layout.blocks:
        Q = b.maps(maps).view(b.s, b.dw, b.dv)
        s, i, j = (index[:, None] for index in Q.nonzero(as_tuple=True))
        a, c = count(b.mw)[:, None, None], count(b.mv // n)
        column = j + c * b.dv if n == 1 else j * (b.mv // n) + c
        place = ((b.w + a * b.dw + i) * layout.in_dim + b.v) // n + column
        run = (first + (s * b.mw + a) * b.mv) // n + c
        value = Q[s, i, j].expand(run.shape)
        found.append((run.flatten(), place.flatten(), value.flatten()))
        first += b.numel
        here = slice(b.v, b.v + b.mv * b.dv)
        order[here] = b.v + count(b.mv * b.dv).view(b.dv, b.mv).T.flatten()
    run, place, value = map(torch.cat, zip(*found))
    if n == 1:
        return Table(run, place, value, order[:0], order[:0])
    return Table(run, place, value[:, None], order, order.argsort())


def matrix(weight: Tensor | None, maps: Tensor, table: Table | None,
           layout: Layout) -> Tensor:
    r"""The matrix, :math:`[d_{out}, d_{in}]`.

    Args:
        weight (Tensor, optional): The weights of all blocks, each [s, mw,
            mv], if there are any.
        maps (Tensor): The maps of all blocks, flat.
        table (Table, optional): Where they go, to do it at once.
        layout (Layout): The blocks.
    """
    if weight is None or not layout.blocks:
        return maps.new_zeros(layout.out_dim, layout.in_dim)
    if table is not None:
        M = _from_table(weight, table, layout)
        return M if layout.run == 1 else M.index_select(1, table.there)
    found = {}
    with full_precision(maps):
        for b, W in zip(layout.blocks, layout.split(weight)):
            block = (W.T @ b.maps(maps)).view(b.mw, b.mv, b.dw, b.dv)
            found[b.w, b.v] = block.transpose(1, 2).reshape(
                b.mw * b.dw, b.mv * b.dv)
    return torch.cat([
        torch.cat([
            found[w, v] if (w, v) in found else
            weight.new_zeros(height, width) for v, width in layout.columns
        ], dim=1) for w, height in layout.rows
    ])


def _from_table(weight: Tensor, table: Table, layout: Layout) -> Tensor:
    """The matrix with columns in the order of the table."""
    n, shape = layout.run, (layout.out_dim, layout.in_dim)
    size = layout.out_dim * layout.in_dim
    if n == 1:  # of vectors index_add is faster
        terms = weight.index_select(0, table.run) * table.value
        return weight.new_zeros(size).index_add(0, table.place, terms).view(
            shape)
    runs = weight.view(-1, n).index_select(0, table.run) * table.value
    return weight.new_zeros(size // n, n).index_add(
        0, table.place, runs).view(shape)


def linear_by_matrix(x: Tensor, weight: Tensor | None, bias: Tensor | None,
                     maps: Tensor, table: Table | None, layout: Layout
                     ) -> Tensor:
    """The map of features through its matrix, with a bias of all components.
    Few rows are brought to the order of the table, rather than the matrix to
    that of the rows.
    """
    if (weight is None or table is None or layout.run == 1
            or number_of_rows(x) >= layout.out_dim):
        M = matrix(weight, maps, table, layout)
    else:
        x = x.index_select(-1, table.here)
        M = _from_table(weight, table, layout)
    return torch.nn.functional.linear(x, M, bias)


def linear_by_blocks(x: Tensor, weight: Tensor, bias: Tensor | None,
                     maps: Tensor, layout: Layout) -> Tensor:
    r"""The map of features, without its matrix.

    Args:
        x (Tensor): The features.
        weight (Tensor): The weights of all blocks, each [s, mw, mv].
        bias (Tensor, optional): The bias of all components.
        maps (Tensor): The maps of all blocks, flat.
        layout (Layout): The blocks, at least one.

    Shapes:
        - **x:** :math:`[*, d_{in}]`, **output:** :math:`[*, d_{out}]`, in the
          dtype of the weights (under autocast in that of autocast)
    """
    device = x.device.type
    if lowers(device) and maps.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(device))
    bias = None if bias is None else bias.to(x.dtype)
    rows = x if x.dim() == 2 else x.reshape(-1, layout.in_dim)
    with full_precision(x):
        y = _call(_Map, _affine, _Fields(rows), weight, bias, maps, layout,
                  False)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], layout.out_dim)


def number_of_rows(x: Tensor) -> int:
    """Of features; a typical one where a program for any is recorded."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _ROWS
    return math.prod(x.shape[:-1])


# The map, its transpose, and the derivative in the weights ##################


class _Fields:
    """The blocks of features [n, d], each made once with components first
    and copies last.
    """
    def __init__(self, x: Tensor, known: dict[int, Tensor] | None = None):
        self.x = x
        self.known = {} if known is None else known

    def block(self, start: int, copies: int, components: int) -> Tensor:
        """One block, [d, n, m]."""
        if start not in self.known:
            block = self.x.narrow(1, start, copies * components)
            self.known[start] = block[None] if components == 1 else (
                block.reshape(self.x.shape[0], copies, components).permute(
                    2, 0, 1).contiguous())
        return self.known[start]

    def through(self, b: Block, maps: Tensor, transposed: bool = False
                ) -> tuple[Tensor, float]:
        """The input of a block after its maps, [s, (dw n), mv], and a factor
        that it lacks.
        """
        x = self.block(b.v, b.mv, b.dv)
        if b.identity is not None:
            return _rows(x)[None], b.identity
        Q, rows = b.maps(maps).to(x.dtype), self.x.shape[0]
        if transposed:
            Q = Q.view(b.s, b.dv, b.dw).mT
        x = Q.reshape(b.s * b.dw, b.dv) @ x.reshape(b.dv, rows * b.mv)
        return x.view(b.s, b.dw * rows, b.mv), 1.


def _rows(block: Tensor) -> Tensor:
    """A block [d, n, m] as [(d n), m]."""
    d, n, m = block.shape
    return block[0] if d == 1 else block.view(d * n, m)


def _map(x: _Fields, weight, maps, layout, transposed) -> Tensor:
    """The map of rows [n, d_in], or the transposed map of [n, d_out]."""
    sums: dict[int, tuple[Block, Tensor, int]] = {}
    nothing = x.x.new_zeros(())
    blocks = layout.mirrored if transposed else layout.blocks
    for b, W in zip(blocks, layout.split(weight.to(x.x.dtype))):
        # [s, mv, mw]
        W = W.view(b.s, b.mv, b.mw) if transposed else (
            W.view(b.s, b.mw, b.mv).mT)
        after, factor = x.through(b, maps, transposed)
        _, y, beta = sums.get(b.w, (b, nothing, 0))
        for x_s, W_s in zip(after.unbind(), W.unbind()):
            y = torch.addmm(y, x_s, W_s, beta=beta, alpha=factor)
            beta = 1
        sums[b.w] = b, y, beta
    rows, width = x.x.shape[0], (layout.in_dim if transposed else
                                 layout.out_dim)
    full = sum(b.mw * b.dw for b, *_ in sums.values()) == width
    out = (y.new_empty if full else y.new_zeros)(rows, width)
    for b, y, _ in sums.values():
        place = out.narrow(1, b.w, b.mw * b.dw)
        if b.dw == 1:
            place.copy_(y)
        else:
            place.view(rows, b.mw, b.dw).copy_(
                y.view(b.dw, rows, b.mw).permute(1, 2, 0))
    return out


def _affine(x: _Fields, weight, bias, maps, layout, transposed) -> Tensor:
    """The same and a bias. (Not in place: it may be one of a batch.)"""
    out = _map(x, weight, maps, layout, transposed)
    return out if bias is None else out + bias


def _weight_grad(g: _Fields, x: _Fields, maps, layout) -> Tensor:
    """The derivative of <g, map of x> in the weights."""
    parts, nothing = [], x.x.new_zeros(())
    for b in layout.blocks:
        after, factor = x.through(b, maps)
        G = _rows(g.block(b.w, b.mw, b.dw)).T
        parts += [torch.addmm(nothing, G, x_s, beta=0, alpha=factor).view(-1)
                  for x_s in after.unbind()]
    return torch.cat(parts).to(maps.dtype)


# Derivatives ###############################################################

# Autograd would keep a node for each step of each block. What torch.func
# derives is plain PyTorch, so that no rules for its batches are needed.


class _Map(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, maps, layout, transposed):
        fields = _Fields(x)
        out = _map(fields, weight, maps, layout, transposed)
        if bias is not None:
            out.add_(bias)
        # The blocks are kept for backward: it takes longer to make them.
        ctx.starts = list(fields.known) if ctx.needs_input_grad[1] else []
        ctx.save_for_backward(x, weight, maps, *(fields.known[start]
                                                 for start in ctx.starts))
        ctx.save_for_forward(x, weight, maps)
        ctx.options = layout, transposed
        return out

    @staticmethod
    def backward(ctx, g):
        x, weight, maps, *blocks = ctx.saved_tensors
        layout, transposed = ctx.options
        x, g = _Fields(x, dict(zip(ctx.starts, blocks))), _Fields(g)
        gx = gw = gb = None
        with full_precision(g.x):
            if ctx.needs_input_grad[0]:
                gx = _call(_Map, _affine, g, weight, None, maps, layout,
                           not transposed)
            if ctx.needs_input_grad[1]:
                ends = (x, g) if transposed else (g, x)
                gw = _call(_WeightGrad, _weight_grad, *ends, maps, layout)
            if ctx.needs_input_grad[2]:
                gb = g.x.sum(0)
        return gx, gw, gb, None, None, None

    @staticmethod
    def jvp(ctx, x_t, weight_t, bias_t, *_):
        x, weight, maps, *_ = ctx.saved_tensors
        terms = [_map(_Fields(a), b, maps, *ctx.options)
                 for a, b in ((x_t, weight), (x, weight_t))
                 if a is not None and b is not None]
        if bias_t is not None:
            terms.append(bias_t.expand(x.shape[0], -1))
        return _sum(terms)


class _WeightGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, x, maps, layout):
        ctx.save_for_backward(g, x, maps)
        ctx.save_for_forward(g, x, maps)
        ctx.layout = layout
        return _weight_grad(_Fields(g), _Fields(x), maps, layout)

    @staticmethod
    def backward(ctx, weight):
        g, x, maps = ctx.saved_tensors
        gg = gx = None
        with full_precision(g):
            if ctx.needs_input_grad[0]:
                gg = _call(_Map, _affine, _Fields(x), weight, None, maps,
                           ctx.layout, False)
            if ctx.needs_input_grad[1]:
                gx = _call(_Map, _affine, _Fields(g), weight, None, maps,
                           ctx.layout, True)
        return gg, gx, None, None

    @staticmethod
    def jvp(ctx, g_t, x_t, *_):
        g, x, maps = ctx.saved_tensors
        return _sum(_weight_grad(_Fields(a), _Fields(b), maps, ctx.layout)
                    for a, b in ((g_t, x), (g, x_t))
                    if a is not None and b is not None)


def _sum(terms) -> Tensor:
    total, *rest = terms
    for term in rest:
        total = total + term
    return total


def _call(function, plain, *args) -> Tensor:
    """An autograd function, or what it calculates where nobody derives that,
    or others do: compilers, recorders of programs and torch.func.
    """
    if (not torch.is_grad_enabled() or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or torch._C._are_functorch_transforms_active()):
        return plain(*args)
    return function.apply(*(a.x if isinstance(a, _Fields) else a
                            for a in args))
