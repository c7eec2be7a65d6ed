r"""Neighbours' features through one matrix for each stencil offset.

.. math::
    \mathbf{y}_i = \sum_k \sum_{e: j \to i, \, k_e = k} \mathbf{W}_k^\top
    \mathbf{x}_j

is evaluated offset by offset: gather the sources, multiply by one matrix,
scatter to the targets. The edges come in runs of equal offsets, listed or
found on the way, and nothing of a run is kept: memory is bounded by one
offset. Backward goes through the edges again.

The map is multilinear. Its derivative in the features is the same map with
sources and targets exchanged, that in the matrices is a correlation, and the
derivatives of both are these two again: any order of derivative works.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

#: Starts over the edges: (first offset, edges of each offset from there on,
#: their sources, their targets), as LatticeData.runs.
Runs = Callable[[], Iterable[tuple[int, list[int], Tensor, Tensor]]]


def lattice_conv(x: Tensor, weight: Tensor, runs: Runs, num_dst: int,
                 transposed: bool = False) -> Tensor:
    r"""Sums the neighbours' features, each times the matrix (or the number)
    of its offset.

    Linear in :obj:`x` and :obj:`weight`; differentiable any number of times
    in both. It costs :math:`2 E d_{in} d_{out}` operations and, beside its
    inputs and output, memory for the edges of one offset.

    Args:
        x (Tensor): Features of the source nodes.
        weight (Tensor): A matrix or a number for each offset.
        runs (callable): Iterates over the edges, see
            :meth:`pyg_steerable.graph.lattice.LatticeData.runs`.
        num_dst (int): The number of target nodes.
        transposed (bool, optional): If set to :obj:`True`, the edges run
            from their targets to their sources. (default: :obj:`False`)

    Shapes:
        - **x:** :math:`[N_{src}, d_{in}]`, **weight:**
          :math:`[K, d_{in}, d_{out}]` or :math:`[K]`, **output:**
          :math:`[N_{dst}, d_{out}]`
    """
    with torch.autocast(x.device.type, enabled=False):
        return _Convolve.apply(x.to(weight.dtype), weight, runs, num_dst,
                               transposed)


def _transposed(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 1 else weight.mT


def _parts(runs: Runs, swapped: bool):
    """The edges, and where each offset has its own in a run."""
    for first, sizes, src, dst in runs():
        if len(src):
            starts, start = [], 0
            for k, n in enumerate(sizes, first):
                if n:
                    starts.append((k, start, start + n))
                start += n
            yield (dst, src, starts) if swapped else (src, dst, starts)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, runs, num_dst, swapped):
        width = x.shape[1] if weight.dim() == 1 else weight.shape[2]
        out = x.new_zeros(num_dst, width)
        for src, dst, parts in _parts(runs, swapped):
            x_j = x.index_select(0, src)
            y = x.new_empty(len(src), width)
            for k, start, end in parts:
                multiply = torch.mul if weight.dim() == 1 else torch.mm
                multiply(x_j[start:end], weight[k], out=y[start:end])
            out.index_add_(0, dst, y)
        return out

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, ctx.runs, _, ctx.swapped = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        gx = gw = None
        if ctx.needs_input_grad[0]:
            gx = _Convolve.apply(g, _transposed(weight), ctx.runs, len(x),
                                 not ctx.swapped)
        if ctx.needs_input_grad[1]:
            gw = _Correlate.apply(x, g, ctx.runs, ctx.swapped, weight.shape)
        return gx, gw, None, None, None


class _Correlate(torch.autograd.Function):
    """The derivative of <g, y> in the matrices (or numbers)."""
    @staticmethod
    def forward(x, g, runs, swapped, shape):
        out = x.new_zeros(shape)
        for src, dst, parts in _parts(runs, swapped):
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
        x, g, ctx.runs, ctx.swapped, _ = inputs
        ctx.save_for_backward(x, g)

    @staticmethod
    def backward(ctx, c):
        x, g = ctx.saved_tensors
        gx = gg = None
        if ctx.needs_input_grad[0]:
            gx = _Convolve.apply(g, _transposed(c), ctx.runs, len(x),
                                 not ctx.swapped)
        if ctx.needs_input_grad[1]:
            gg = _Convolve.apply(x, c, ctx.runs, len(g), ctx.swapped)
        return gx, gg, None, None, None
