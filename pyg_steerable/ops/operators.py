"""The two operators, which are closed under differentiation."""
from __future__ import annotations

from collections.abc import Sequence
from functools import wraps

import torch
from torch import Tensor

from .chunks import Chunks
from .maps import build_map, rows


def _in_full_precision(function):
    """Autocast would lower single products, here and in backward."""
    @wraps(function)
    def wrapper(tensor, *args, **kwargs):
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *args, **kwargs)

    return wrapper


@torch.library.custom_op('pyg_steerable::contract', mutates_args=())
@_in_full_precision
def _forward(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, bases: Sequence[Tensor], layout: Sequence[int],
             out_dim: int) -> Tensor:
    layout = tuple(layout)
    out = h.new_zeros(num_dst, out_dim)
    if not layout or not len(h):
        return out
    kernel = build_map(weight, bases, layout,
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
@_in_full_precision
def _backward(
        g: Tensor, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
        weight: Tensor, bases: Sequence[Tensor], layout: Sequence[int],
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
    kernel = build_map(weight, bases, layout,
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
            gx.index_add_(0, src[edges.flatten()], (h_c @ dA).flatten(0, 1))
    if need_h:
        gh = kernel.leave(gh[:-1], 'u')
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


def _save_forward(ctx, inputs, output):
    h, x, src, dst, _, weight, bases, layout, _ = inputs
    ctx.save_for_backward(h, x, src, dst, weight, *bases)
    ctx.layout = layout


def _grad_forward(ctx, g):
    h, x, src, dst, weight, *bases = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 5)]
    grads = call_backward(g, h, x, src, dst, weight, bases, ctx.layout,
                           needs)
    gh, gx, gw = (d if need else None for d, need in zip(grads, needs))
    return gh, gx, None, None, None, gw, [None] * len(bases), None, None


_forward.register_autograd(_grad_forward, setup_context=_save_forward)


def _save_backward(ctx, inputs, output):
    g, h, x, src, dst, weight, bases, layout, needs = inputs
    ctx.save_for_backward(g, h, x, src, dst, weight, *bases)
    ctx.layout, ctx.needs = layout, needs


def _add(a, b):
    return b if a is None else a if b is None else a + b


def _grad_backward(ctx, *tangents):
    # S(g, h, x, W) = <g, contract(h, x, W)> is linear in each argument.
    # The operator returned its derivatives in (h, x, W), and (a, b, c) come
    # back, so that the function to derive is
    #   S(g, a, x, W) + S(g, h, b, W) + S(g, h, x, c).
    g, h, x, src, dst, weight, *bases = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 2, 5)]
    total = [None, None, None, None]
    arguments = [h, x, weight]
    for k in range(3):
        if not ctx.needs[k] or tangents[k] is None:
            continue
        here = list(arguments)
        here[k] = tangents[k]
        if wanted[0]:
            total[0] = _add(
                total[0],
                call_forward(here[0], here[1], src, dst, g.shape[0],
                              here[2], bases, ctx.layout, g.shape[1]))
        needs = [wanted[1 + i] and i != k for i in range(3)]
        if any(needs):
            grads = call_backward(g, here[0], here[1], src, dst, here[2],
                                   bases, ctx.layout, needs)
            for i in range(3):
                if needs[i]:
                    total[1 + i] = _add(total[1 + i], grads[i])
    gg, gh, gx, gw = total
    return gg, gh, gx, None, None, gw, [None] * len(bases), None, None


_backward.register_autograd(_grad_backward, setup_context=_save_backward)


# torch.func ################################################################

# Operators with registered derivatives cannot be used under the transforms of
# torch.func: there, the same derivatives are those of an autograd.Function.
# (It is not used elsewhere: torch.compile does not take it with a list.)


def _function(operator, save, grad):
    """An autograd.Function of an operator's first six arguments, the two
    behind its bases, and the bases.
    """
    def pack(args):
        return (*args[:6], list(args[8:]), *args[6:8])

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return operator(*pack(args))

        @staticmethod
        def setup_context(ctx, inputs, output):
            save(ctx, pack(inputs), output)

        @staticmethod
        def backward(ctx, *grads):
            out = grad(ctx, *grads)
            return (*out[:6], None, None, *out[6])

        @staticmethod
        def vmap(info, in_dims, *args):
            return _one_by_one(Function.apply, info.batch_size, in_dims, args)

    return Function


def _one_by_one(function, batch_size: int, in_dims, args):
    """The rule of :func:`torch.func.vmap`: calls once for each entry."""
    def entry(b):
        return [a.select(d, b) if isinstance(a, Tensor) and d is not None
                else a for a, d in zip(args, in_dims)]

    outs = [function(*entry(b)) for b in range(batch_size)]
    if isinstance(outs[0], Tensor):
        return torch.stack(outs), 0
    return tuple(torch.stack(o) for o in zip(*outs)), (0, ) * len(outs[0])


_FORWARD = _function(_forward, _save_forward, _grad_forward)
_BACKWARD = _function(_backward, _save_backward, _grad_backward)


def _call(operator, function, *args):
    if (not torch.compiler.is_compiling()
            and torch._C._are_functorch_transforms_active()):
        return function.apply(*args[:6], *args[7:], *args[6])
    return operator(*args)


def call_forward(*args) -> Tensor:
    """The first operator, also under torch.func."""
    return _call(_forward, _FORWARD, *args)


def call_backward(*args) -> tuple[Tensor, Tensor, Tensor]:
    """The second operator, also under torch.func."""
    return _call(_backward, _BACKWARD, *args)
