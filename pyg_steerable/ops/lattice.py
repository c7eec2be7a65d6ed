r"""Neighbours' features through one matrix for each stencil offset.

.. math::
    \mathbf{y}_i = \sum_k \sum_{e: j \to i, \, k_e = k} \mathbf{W}_k^\top
    \mathbf{x}_j

is evaluated in one of two orders. Where neighbours are few, offset by offset:
gather the sources, multiply by one matrix, scatter to the targets. Where most
are there, target by target: gather the sources of a block of targets at all
offsets, zeros for those that are missing, and multiply by all matrices at
once; nothing is scattered. Neighbours come listed or are found on the way,
and nothing of a run or block is kept: memory is bounded by one offset.
Backward goes through the edges again.

The map is multilinear. Its derivative in the features is the same map with
sources and targets exchanged, that in the matrices is a correlation, and the
derivatives of both are these two again: any order of derivative works.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

#: Numbers to gather at once, on CPUs about what their caches hold.
_AT_ONCE = {'cpu': 2**18}
_AT_ONCE_ELSEWHERE = 2**24


class Edges(Protocol):
    """The neighbours, as :class:`~pyg_steerable.graph.lattice.LatticeData`
    has them.
    """
    def runs(self) -> Iterable[tuple[int, list[int], Tensor, Tensor]]:
        """First offset, numbers of edges from there on, sources, targets."""

    def rows(self, at_once: int, transposed: bool
             ) -> Iterable[tuple[int, Tensor]] | None:
        """First target, and the sources at all offsets from there on."""


# The loops depend on the data: tracing would unroll them for each lattice.
@torch.compiler.disable
def lattice_conv(x: Tensor, weight: Tensor, edges: Edges, num_dst: int,
                 transposed: bool = False) -> Tensor:
    r"""Sums the neighbours' features, each times the matrix (or the number)
    of its offset.

    Linear in :obj:`x` and :obj:`weight`; differentiable any number of times
    in both. It costs :math:`2 E d_{in} d_{out}` operations, or :math:`2 K
    N_{dst} d_{in} d_{out}` where that is at most about twice as many, and,
    beside its inputs and output, memory for the edges of one offset.

    Args:
        x (Tensor): Features of the source nodes.
        weight (Tensor): A matrix or a number for each offset.
        edges (LatticeData): Who is whose neighbour, see :class:`Edges`.
        num_dst (int): The number of target nodes.
        transposed (bool, optional): If set to :obj:`True`, the edges run
            from their targets to their sources. (default: :obj:`False`)

    Shapes:
        - **x:** :math:`[N_{src}, d_{in}]`, **weight:**
          :math:`[K, d_{in}, d_{out}]` or :math:`[K]`, **output:**
          :math:`[N_{dst}, d_{out}]`
    """
    with torch.autocast(x.device.type, enabled=False):
        return _Convolve.apply(x.to(weight.dtype), weight, edges, num_dst,
                               transposed)


def _transposed(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 1 else weight.mT


def _rows(edges: Edges, x: Tensor, shape: torch.Size, swapped: bool):
    """Blocks of targets, and their sources' features [n, K, d_in]; None
    where the other order is cheaper.
    """
    width = x.shape[1]
    most = _AT_ONCE.get(x.device.type, _AT_ONCE_ELSEWHERE)
    # At least as many numbers as in the matrices: these are read each time.
    most = max(most, shape.numel())
    rows = edges.rows(most // max(1, width), swapped)
    if rows is None:
        return None
    x = F.pad(x, (0, 0, 0, 1))  # the last source is none
    return ((slice(start, start + len(src)),
             x.index_select(0, src.flatten()).view(*src.shape, width))
            for start, src in rows)


def _runs(edges: Edges, swapped: bool):
    """The edges, and where each offset has its own in a run."""
    for first, sizes, src, dst in edges.runs():
        if len(src):
            starts, start = [], 0
            for k, n in enumerate(sizes, first):
                if n:
                    starts.append((k, start, start + n))
                start += n
            yield (dst, src, starts) if swapped else (src, dst, starts)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, edges, num_dst, swapped):
        width = x.shape[1] if weight.dim() == 1 else weight.shape[2]
        out = x.new_zeros(num_dst, width)
        blocks = _rows(edges, x, weight.shape, swapped)
        if blocks is not None:
            matrix = weight.flatten(0, 1) if weight.dim() > 1 else None
            for here, x_j in blocks:
                if matrix is None:
                    torch.matmul(weight, x_j, out=out[here])
                else:
                    torch.mm(x_j.flatten(1), matrix, out=out[here])
            return out
        for src, dst, parts in _runs(edges, swapped):
            x_j = x.index_select(0, src)
            y = x.new_empty(len(src), width)
            for k, start, end in parts:
                multiply = torch.mul if weight.dim() == 1 else torch.mm
                multiply(x_j[start:end], weight[k], out=y[start:end])
            out.index_add_(0, dst, y)
        return out

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, ctx.edges, _, ctx.swapped = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        gx = gw = None
        if ctx.needs_input_grad[0]:
            gx = _Convolve.apply(g, _transposed(weight), ctx.edges, len(x),
                                 not ctx.swapped)
        if ctx.needs_input_grad[1]:
            gw = _Correlate.apply(x, g, ctx.edges, ctx.swapped, weight.shape)
        return gx, gw, None, None, None


class _Correlate(torch.autograd.Function):
    """The derivative of <g, y> in the matrices (or numbers)."""
    @staticmethod
    def forward(x, g, edges, swapped, shape):
        out = x.new_zeros(shape)
        blocks = _rows(edges, x, shape, swapped)
        if blocks is not None:
            for here, x_j in blocks:
                if len(shape) == 1:
                    out += (x_j @ g[here].unsqueeze(-1)).sum((0, 2))
                else:
                    out.flatten(0, 1).addmm_(x_j.flatten(1).T, g[here])
            return out
        for src, dst, parts in _runs(edges, swapped):
            x_j, g_i = x.index_select(0, src), g.index_select(0, dst)
            for k, start, end in parts:
                if len(shape) == 1:
                    out[k] = torch.vdot(x_j[start:end].flatten(),
                                        g_i[start:end].flatten())
                else:
                    torch.mm(x_j[start:end].T, g_i[start:end], out=out[k])
        return out

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, g, ctx.edges, ctx.swapped, _ = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx, c):
        x, g = ctx.saved_tensors
        gx = gg = None
        if ctx.needs_input_grad[0]:
            gx = _Convolve.apply(g, _transposed(c), ctx.edges, len(x),
                                 not ctx.swapped)
        if ctx.needs_input_grad[1]:
            gg = _Convolve.apply(x, c, ctx.edges, len(g), ctx.swapped)
        return gx, gg, None, None, None
