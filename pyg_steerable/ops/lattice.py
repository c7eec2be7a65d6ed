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
derivatives of both are these two again: any order of derivative works,
backward and forward. Compilers see two opaque operators, whose loops depend
on the data.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Optional

import torch
from torch import Tensor
from torch.autograd import forward_ad as fw

from .lattice_edges import LatticeEdges, num_offsets
from .limits import limits_of
from .precision import at_least_float32, full_precision


def lattice_conv(x: Tensor, weight: Tensor, edges: LatticeEdges,
                 transposed: bool = False) -> Tensor:
    r"""Sums the neighbours' features, each times the matrix (or the number)
    of its offset.

    Linear in :obj:`x` and :obj:`weight`; differentiable any number of times
    in both. It costs :math:`2 E d_{in} d_{out}` operations, or :math:`2 K
    N_{dst} d_{in} d_{out}` where that is at most about twice as many, and,
    beside its inputs and output, memory for the edges of one offset. Sums are
    kept in at least float32.

    Args:
        x (Tensor): Features of the source nodes.
        weight (Tensor): A matrix or a number for each offset.
        edges (LatticeEdges): Who is whose neighbour, see
            :attr:`~pyg_steerable.graph.lattice.LatticeData.edges`.
        transposed (bool, optional): If set to :obj:`True`, the edges run
            from their targets to their sources. (default: :obj:`False`)

    Shapes:
        - **x:** :math:`[N_{src}, d_{in}]`, **weight:**
          :math:`[K, d_{in}, d_{out}]` or :math:`[K]`, **output:**
          :math:`[N_{dst}, d_{out}]`
    """
    return _call_convolve(x.to(weight.dtype), weight, *edges, transposed)


def _transposed(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 1 else weight.mT


def _rows(edges: LatticeEdges, x: Tensor, shape: torch.Size, swapped: bool):
    """Blocks of targets, and their sources' features [n, K, d_in]; None
    where the other order is cheaper.
    """
    width = x.shape[1]
    # At least as many numbers as in the matrices: these are read each time.
    most = max(limits_of(x.device).gather, shape.numel())
    rows = edges.rows(most // max(1, width), swapped)
    if rows is None:
        return None
    # The last source is none. Not F.pad: in PyTorch 2.6 and before it refuses
    # rows of no components.
    x = torch.cat([x, x.new_zeros(1, x.shape[1])])
    return ((slice(start, start + len(src)),
             x.index_select(0, src.flatten()).view(*src.shape, width))
            for start, src in rows)


def _runs(edges: LatticeEdges, swapped: bool):
    """The edges, and where each offset has its own in a run."""
    for first, sizes, src, dst in edges.runs():
        if len(src):
            starts, start = [], 0
            for k, n in enumerate(sizes, first):
                if n:
                    starts.append((k, start, start + n))
                start += n
            yield (dst, src, starts) if swapped else (src, dst, starts)


# The operators #############################################################

@torch.library.custom_op('pyg_steerable::lattice_conv', mutates_args=())
def _convolve(x: Tensor, weight: Tensor, coord: Tensor, batch: Tensor,
              coord_dst: Tensor, batch_dst: Tensor,
              edge_index: Optional[Tensor], edge_offset: Optional[Tensor],
              numbers: Sequence[int], transposed: bool) -> Tensor:
    edges = LatticeEdges(coord, batch, coord_dst, batch_dst, edge_index,
                         edge_offset, tuple(numbers))
    out = _new_output(x, weight, coord, coord_dst, transposed)
    with full_precision(x):
        blocks = _rows(edges, x, weight.shape, transposed)
        if blocks is not None:
            matrix = weight.flatten(0, 1) if weight.dim() > 1 else None
            for here, x_j in blocks:
                if matrix is None:
                    torch.matmul(weight, x_j, out=out[here])
                else:
                    torch.mm(x_j.flatten(1), matrix, out=out[here])
            return out
        width, total = out.shape[1], out.to(at_least_float32(out))
        for src, dst, parts in _runs(edges, transposed):
            x_j = x.index_select(0, src)
            y = x.new_empty(len(src), width)
            for k, start, end in parts:
                multiply = torch.mul if weight.dim() == 1 else torch.mm
                multiply(x_j[start:end], weight[k], out=y[start:end])
            total.index_add_(0, dst, y.to(total.dtype))
        return total.to(out.dtype)


def _new_output(x, weight, coord, coord_dst, transposed):
    width = x.shape[1] if weight.dim() == 1 else weight.shape[2]
    return x.new_zeros((coord if transposed else coord_dst).shape[0], width)


@_convolve.register_fake
def _(x, weight, coord, batch, coord_dst, batch_dst, edge_index, edge_offset,
      numbers, transposed):
    return _new_output(x, weight, coord, coord_dst, transposed)


@torch.library.custom_op('pyg_steerable::lattice_correlate', mutates_args=())
def _correlate(x: Tensor, g: Tensor, coord: Tensor, batch: Tensor,
               coord_dst: Tensor, batch_dst: Tensor,
               edge_index: Optional[Tensor], edge_offset: Optional[Tensor],
               numbers: Sequence[int], transposed: bool, scalar: bool
               ) -> Tensor:
    """The derivative of <g, y> in the matrices (or numbers)."""
    edges = LatticeEdges(coord, batch, coord_dst, batch_dst, edge_index,
                         edge_offset, tuple(numbers))
    shape = _weight_shape(x, g, numbers, scalar)
    with full_precision(x):
        out = x.new_zeros(shape, dtype=at_least_float32(x))
        blocks = _rows(edges, x, shape, transposed)
        if blocks is not None:
            for here, x_j in blocks:
                if scalar:
                    out += (x_j @ g[here].unsqueeze(-1)).sum((0, 2))
                elif out.dtype == x.dtype:
                    out.flatten(0, 1).addmm_(x_j.flatten(1).T, g[here])
                else:
                    out.flatten(0, 1).add_(x_j.flatten(1).T @ g[here])
            return out.to(x.dtype)
        for src, dst, parts in _runs(edges, transposed):
            x_j, g_i = x.index_select(0, src), g.index_select(0, dst)
            for k, start, end in parts:
                if scalar:
                    out[k] = torch.vdot(x_j[start:end].flatten(),
                                        g_i[start:end].flatten())
                elif out.dtype == x.dtype:
                    torch.mm(x_j[start:end].T, g_i[start:end], out=out[k])
                else:
                    out[k] = x_j[start:end].T @ g_i[start:end]
        return out.to(x.dtype)


def _weight_shape(x, g, numbers, scalar) -> torch.Size:
    K = num_offsets(numbers)
    return torch.Size([K] if scalar else [K, x.shape[1], g.shape[1]])


@_correlate.register_fake
def _(x, g, coord, batch, coord_dst, batch_dst, edge_index, edge_offset,
      numbers, transposed, scalar):
    return x.new_empty(_weight_shape(x, g, numbers, scalar))


# Derivatives ###############################################################


def _save_convolve(ctx, inputs, output):
    *tensors, ctx.numbers, ctx.transposed = inputs
    _save(ctx, tensors)


def _save_correlate(ctx, inputs, output):
    *tensors, ctx.numbers, ctx.transposed, ctx.scalar = inputs
    _save(ctx, tensors)


def _save(ctx, tensors):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _grad_convolve(ctx, g):
    x, weight, *edges = ctx.saved_tensors
    gx = gw = None
    if g is not None and ctx.needs_input_grad[0]:
        gx = _call_convolve(g, _transposed(weight), *edges, ctx.numbers,
                            not ctx.transposed)
    if g is not None and ctx.needs_input_grad[1]:
        gw = _call_correlate(x, g, *edges, ctx.numbers, ctx.transposed,
                             weight.dim() == 1)
    return (gx, gw, *8 * (None, ))


def _grad_correlate(ctx, c):
    x, g, *edges = ctx.saved_tensors
    gx = gg = None
    if c is not None and ctx.needs_input_grad[0]:
        gx = _call_convolve(g, _transposed(c), *edges, ctx.numbers,
                            not ctx.transposed)
    if c is not None and ctx.needs_input_grad[1]:
        gg = _call_convolve(x, c, *edges, ctx.numbers, ctx.transposed)
    return (gx, gg, *9 * (None, ))


_convolve.register_autograd(_grad_convolve, setup_context=_save_convolve)
_correlate.register_autograd(_grad_correlate, setup_context=_save_correlate)


def _bilinear_jvp(ctx, function, tangents, *options):
    """The forward derivative of a map that is linear in two arguments."""
    (a, b, *edges), total = ctx.saved_tensors, None
    a, b = (fw.unpack_dual(t).primal for t in (a, b))
    # PyTorch calls it with forward mode off, at all levels: tangents of
    # tangents would be lost without a word.
    with fw._set_fwd_grad_enabled(True):
        for pair, tangent in zip(((tangents[0], b), (a, tangents[1])),
                                 tangents):
            if tangent is not None:
                part = function(*pair, *edges, ctx.numbers, ctx.transposed,
                                *options)
                total = part if total is None else total + part
    return total


def _one_by_one(function, info, in_dims, *args):
    """The rule of :func:`torch.func.vmap`: calls once for each entry."""
    return torch.stack([
        function(*(a.select(d, b) if isinstance(a, Tensor) and d is not None
                   else a for a, d in zip(args, in_dims)))
        for b in range(info.batch_size)
    ]), 0


_convolve.register_vmap(partial(_one_by_one, _convolve))
_correlate.register_vmap(partial(_one_by_one, _correlate))


# Operators with registered derivatives have no forward mode and no place under
# torch.func: there, the same rules are those of an autograd.Function. (The
# compiler, which knows neither, sees the operators.)


class _Convolve(torch.autograd.Function):
    forward = staticmethod(_convolve)
    setup_context = staticmethod(_save_convolve)
    backward = staticmethod(_grad_convolve)

    @staticmethod
    def jvp(ctx, *tangents):
        return _bilinear_jvp(ctx, _call_convolve, tangents[:2])

    @staticmethod
    def vmap(info, in_dims, *args):
        return _one_by_one(_Convolve.apply, info, in_dims, *args)


class _Correlate(torch.autograd.Function):
    forward = staticmethod(_correlate)
    setup_context = staticmethod(_save_correlate)
    backward = staticmethod(_grad_correlate)

    @staticmethod
    def jvp(ctx, *tangents):
        return _bilinear_jvp(ctx, _call_correlate, tangents[:2], ctx.scalar)

    @staticmethod
    def vmap(info, in_dims, *args):
        return _one_by_one(_Correlate.apply, info, in_dims, *args)


def _call_convolve(*args) -> Tensor:
    compiling = torch.compiler.is_compiling()
    return (_convolve if compiling else _Convolve.apply)(*args)


def _call_correlate(*args) -> Tensor:
    compiling = torch.compiler.is_compiling()
    return (_correlate if compiling else _Correlate.apply)(*args)
