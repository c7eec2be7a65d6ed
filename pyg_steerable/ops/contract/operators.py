r"""The two operators, which are closed under differentiation.

.. math::
    y(h, x, W) = \sum_e B_W(h_e \otimes x_{src(e)}), \qquad
    S(g, h, x, W) = \langle g, y(h, x, W) \rangle

The second returns the derivatives of :math:`S` in :math:`h, x, W`. As
:math:`S` is linear in each argument, every derivative of both, backward or
forward, is a sum of calls of the two with one argument exchanged.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial, wraps

import torch
from torch import Tensor
from torch.autograd import forward_ad as fw

from ..precision import full_precision
from .chunks import Chunks
from .couplings import unpack
from .maps import build_map, rows


@torch.library.custom_op('pyg_steerable::contract', mutates_args=())
def _forward(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, bases: Tensor, layout: Sequence[int],
             out_dim: int) -> Tensor:
    layout = tuple(layout)
    out = h.new_zeros(num_dst, out_dim)
    if not layout or not len(h):
        return out
    with full_precision(h):
        kernel = build_map(weight, unpack(bases, layout), layout,
                           (h.shape[1], x.shape[1], out_dim))
        h = kernel.enter(h, 'u', pad=1)  # for the empty places of tables
        x = kernel.enter(x, 'v')
        src = torch.nn.functional.pad(src, (0, 1))
        for nodes, edges in Chunks(dst, num_dst, kernel, h.itemsize):
            out[nodes] = kernel(rows(h, edges).mT @ rows(x, src[edges]))
        return kernel.leave(out, 'w')


@_forward.register_fake
def _(h, x, src, dst, num_dst, weight, bases, layout, out_dim):
    return h.new_empty(num_dst, out_dim)


@torch.library.custom_op('pyg_steerable::contract_backward', mutates_args=())
def _backward(
        g: Tensor, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
        weight: Tensor, bases: Tensor, layout: Sequence[int],
        needs: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of <g, contract(h, x, weight)> in h, x and weight;
    empty where not needed.
    """
    layout = tuple(layout)
    need_h, need_x, need_w = needs
    # Every edge ends somewhere: all of gh will be written.
    gh = h.new_empty(len(h) + 1, h.shape[1]) if need_h else h.new_empty(0)
    gx = x.new_zeros(x.shape) if need_x else h.new_empty(0)
    gw = torch.zeros_like(weight) if need_w else h.new_empty(0)
    if not layout or not len(h):
        return torch.zeros_like(h) if need_h else gh, gx, gw
    with full_precision(h):
        kernel = build_map(weight, unpack(bases, layout), layout,
                           (h.shape[1], x.shape[1], g.shape[1]))
        h, g = kernel.enter(h, 'u', pad=1), kernel.enter(g, 'w')
        if need_h or need_w:
            x = kernel.enter(x, 'v')
        src = torch.nn.functional.pad(src, (0, 1))
        grads = kernel.start_weight_grad() if need_w else None
        for nodes, edges in Chunks(dst, len(g), kernel, h.itemsize):
            h_c, g_c = rows(h, edges), rows(g, nodes)
            if need_h or need_w:
                x_c = rows(x, src[edges])
            if need_w:
                kernel.add_weight_grad(grads, h_c.mT @ x_c, g_c)
            if need_h or need_x:
                dA = kernel.transpose(g_c)
            if need_h:
                gh[edges.flatten()] = (x_c @ dA.mT).flatten(0, 1)
            if need_x:
                gx.index_add_(0, src[edges.flatten()],
                              (h_c @ dA).flatten(0, 1))
        if need_h:
            # (Not a slice: derivatives of views have rules of their own.)
            gh = kernel.leave(gh.resize_(len(h) - 1, gh.shape[1]), 'u')
        if need_x:
            gx = kernel.leave(gx, 'v')
        if need_w:
            gw = kernel.finish_weight_grad(grads)
    return gh, gx, gw


@_backward.register_fake
def _(g, h, x, src, dst, weight, bases, layout, needs):
    tensors = (h, x, weight)
    return tuple(
        h.new_empty(t.shape) if need else h.new_empty(0)
        for t, need in zip(tensors, needs))


# Derivatives ###############################################################


def _save(ctx, *tensors):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _primals(ctx) -> list[Tensor]:
    """What was saved, without the tangents of this level."""
    return [fw.unpack_dual(t).primal if t.is_floating_point() else t
            for t in ctx.saved_tensors]


def _nested(jvp):
    """PyTorch calls it with forward mode off, at all levels: tangents of
    tangents would be lost without a word.
    """
    @wraps(jvp)
    def wrapper(*args):
        with fw._set_fwd_grad_enabled(True):
            return jvp(*args)

    return wrapper


def _add(a, b):
    return b if a is None else a if b is None else a + b


def _save_forward(ctx, inputs, output):
    h, x, src, dst, _, weight, bases, layout, _ = inputs
    _save(ctx, h, x, src, dst, weight, bases)
    ctx.layout, ctx.shape = layout, output.shape


def _grad_forward(ctx, g):
    if g is None:
        return 9 * (None, )
    h, x, src, dst, weight, bases = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 5)]
    grads = call_backward(g, h, x, src, dst, weight, bases, ctx.layout, needs)
    gh, gx, gw = (d if need else None for d, need in zip(grads, needs))
    return gh, gx, None, None, None, gw, None, None, None


@_nested
def _jvp_forward(ctx, h_t, x_t, src_t, dst_t, num_dst, weight_t, *rest):
    h, x, src, dst, weight, bases = _primals(ctx)
    total = None
    for k, tangent in enumerate((h_t, x_t, weight_t)):
        if tangent is not None:
            here = [h, x, weight]
            here[k] = tangent
            total = _add(total, call_forward(
                here[0], here[1], src, dst, ctx.shape[0], here[2], bases,
                ctx.layout, ctx.shape[1]))
    return total


def _save_backward(ctx, inputs, output):
    *tensors, ctx.layout, ctx.needs = inputs
    ctx.shapes = [t.shape for t in output]
    _save(ctx, *tensors)


def _grad_backward(ctx, *tangents):
    # (a, b, c) come back for the derivatives in (h, x, W), so that the
    # function to derive is
    #   S(g, a, x, W) + S(g, h, b, W) + S(g, h, x, c).
    g, h, x, src, dst, weight, bases = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 2, 5)]
    total = [None, None, None, None]
    for k in range(3):
        if not ctx.needs[k] or tangents[k] is None:
            continue
        here = [h, x, weight]
        here[k] = tangents[k]
        if wanted[0]:
            total[0] = _add(
                total[0],
                call_forward(here[0], here[1], src, dst, g.shape[0], here[2],
                             bases, ctx.layout, g.shape[1]))
        needs = [wanted[1 + i] and i != k for i in range(3)]
        if any(needs):
            grads = call_backward(g, here[0], here[1], src, dst, here[2],
                                  bases, ctx.layout, needs)
            for i in range(3):
                if needs[i]:
                    total[1 + i] = _add(total[1 + i], grads[i])
    gg, gh, gx, gw = total
    return gg, gh, gx, None, None, gw, None, None, None


@_nested
def _jvp_backward(ctx, g_t, h_t, x_t, src_t, dst_t, weight_t, *rest):
    g, h, x, src, dst, weight, bases = _primals(ctx)
    total = [None, None, None]
    for k, tangent in enumerate((g_t, h_t, x_t, weight_t)):
        # Nothing is left of an argument in the derivative by it.
        needs = [need and 1 + i != k for i, need in enumerate(ctx.needs)]
        if tangent is None or not any(needs):
            continue
        here = [g, h, x, weight]
        here[k] = tangent
        grads = call_backward(*here[:3], src, dst, here[3], bases, ctx.layout,
                              needs)
        for i in range(3):
            if needs[i]:
                total[i] = _add(total[i], grads[i])
    return tuple(h.new_zeros(shape) if t is None else t
                 for t, shape in zip(total, ctx.shapes))


_forward.register_autograd(_grad_forward, setup_context=_save_forward)
_backward.register_autograd(_grad_backward, setup_context=_save_backward)


# Batches ###################################################################

# The rules of torch.func.vmap. Many graphs are one graph of many parts, where
# the weights are the same; else the entries are computed one by one.


def _joined(size: int, in_dims, tensors, shift=None) -> list[Tensor]:
    """Tensors of all entries, one after the other; indices are shifted by
    so much from entry to entry.
    """
    out = []
    for t, d in zip(tensors, in_dims):
        t = t.expand(size, *t.shape) if d is None else t.movedim(d, 0)
        if shift is not None:
            t = t + shift * torch.arange(size, device=t.device)[:, None]
        out.append(t.flatten(0, 1))
    return out


def _one_by_one(function, info, in_dims, args) -> list:
    return [
        function(*(a if d is None else a.select(d, b)
                   for a, d in zip(args, in_dims)))
        for b in range(info.batch_size)
    ]


def _vmap_forward(function, info, in_dims, *args):
    size, in_dims = info.batch_size, _dims(in_dims, args)
    if in_dims[5] is not None or in_dims[6] is not None:
        return torch.stack(_one_by_one(function, info, in_dims, args)), 0
    num_dst = args[4]
    h, x = _joined(size, in_dims[:2], args[:2])
    src, = _joined(size, in_dims[2:3], args[2:3], len(x) // size)
    dst, = _joined(size, in_dims[3:4], args[3:4], num_dst)
    out = function(h, x, src, dst, size * num_dst, *args[5:])
    return out.unflatten(0, (size, num_dst)), 0


def _vmap_backward(function, info, in_dims, *args):
    size, in_dims = info.batch_size, _dims(in_dims, args)
    *_, need_w = args[8]
    if in_dims[5] is not None or in_dims[6] is not None or need_w:
        grads = _one_by_one(function, info, in_dims, args)
        return tuple(torch.stack(d) for d in zip(*grads)), (0, 0, 0)
    tensors = _joined(size, in_dims[:3], args[:3])
    dst, = _joined(size, in_dims[4:5], args[4:5], len(tensors[0]) // size)
    src, = _joined(size, in_dims[3:4], args[3:4], len(tensors[2]) // size)
    grads = function(*tensors, src, dst, *args[5:])
    return tuple(
        d.unflatten(0, (size, len(d) // size)) if need else
        d.expand(size, 0) for d, need in zip(grads, args[8])), (0, 0, 0)


def _dims(in_dims, args) -> list:
    """The dimensions of the batch; PyTorch has a list of them for a list."""
    return [d if isinstance(a, Tensor) else None
            for a, d in zip(args, in_dims)]


_forward.register_vmap(partial(_vmap_forward, _forward))
_backward.register_vmap(partial(_vmap_backward, _backward))


# Operators with registered derivatives have no forward mode and no place under
# torch.func: there, the same rules are those of an autograd.Function. (The
# compiler, which knows neither, sees the operators.)


class _Forward(torch.autograd.Function):
    forward = staticmethod(_forward)
    setup_context = staticmethod(_save_forward)
    backward = staticmethod(_grad_forward)
    jvp = staticmethod(_jvp_forward)

    @staticmethod
    def vmap(info, in_dims, *args):
        return _vmap_forward(_Forward.apply, info, in_dims, *args)


class _Backward(torch.autograd.Function):
    forward = staticmethod(_backward)
    setup_context = staticmethod(_save_backward)
    backward = staticmethod(_grad_backward)
    jvp = staticmethod(_jvp_backward)

    @staticmethod
    def vmap(info, in_dims, *args):
        return _vmap_backward(_Backward.apply, info, in_dims, *args)


def call_forward(*args) -> Tensor:
    """The first operator, with derivatives of all kinds."""
    if torch.compiler.is_compiling():
        return _forward(*args)
    return _Forward.apply(*args)


def call_backward(*args) -> tuple[Tensor, Tensor, Tensor]:
    """The second operator, with derivatives of all kinds."""
    if torch.compiler.is_compiling():
        return _backward(*args)
    return _Backward.apply(*args)
