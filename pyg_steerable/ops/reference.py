"""The plain reference: kernels as matrices, one for each edge."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import check_edges, check_maps, size
from .paths import Path
from .precision import at_least_float32, full_precision


def _spans(paths: Sequence[Path], which: str,
           dim: int) -> list[tuple[int, int]]:
    """(offset, width) of the blocks of V or W, and of gaps between them."""
    spans, stop = [], 0
    blocks = {(getattr(p, which), getattr(p, 'm' + which) *
               getattr(p, 'd' + which)) for p in paths}
    for start, width in [*sorted(blocks), (dim, 0)]:
        if start > stop:
            spans.append((stop, start - stop))
        if width:
            spans.append((start, width))
        stop = start + width
    return spans


def dense_kernel(h: Tensor, weight: Tensor, bases: Sequence[Tensor],
                 paths: Sequence[Path], in_dim: int, out_dim: int) -> Tensor:
    r"""The kernels :math:`k_e` as matrices, the plain reference.

    Shapes:
        - **h:** :math:`[E, d_h]`, **weight:** :math:`[P]`,
          **output:** :math:`[E, d_{out}, d_{in}]`, in the dtype of the
          weights, and summed in at least float32
    """
    if not torch.compiler.is_compiling():
        size('in_dim', in_dim)
    check_maps(h, weight, bases, paths, in_dim, out_dim)
    with full_precision(h):
        dtype = at_least_float32(weight)
        return _dense_kernel(h.to(dtype), weight.to(dtype), bases, paths,
                             in_dim, out_dim).to(weight.dtype)


def _dense_kernel(h, weight, bases, paths, in_dim, out_dim):
    weights = weight.split([p.numel for p in paths])
    blocks: dict[tuple[int, int], Tensor] = {}
    for p, W, Q in zip(paths, weights, bases):
        h_u = h[:, p.u:p.u + p.mu * p.du].view(-1, p.mu, p.du)
        W = W.view(p.mw, p.s, p.mu, p.mv)
        # Two operands at a time: of three, einsum reads the sizes, which a
        # compiler then takes for fixed.
        block = torch.einsum('eui,skij->euskj', h_u, Q.to(h.dtype))
        block = torch.einsum('euskj,wsuv->ewkvj', block, W)
        block = block.reshape(-1, p.mw * p.dw, p.mv * p.dv)
        at = (p.w, p.v)
        blocks[at] = blocks[at] + block if at in blocks else block
    columns = _spans(paths, 'v', in_dim)
    rows = [
        torch.cat([
            blocks[w, v] if (w, v) in blocks else
            h.new_zeros(h.shape[0], height, width) for v, width in columns
        ], dim=2) for w, height in _spans(paths, 'w', out_dim)
    ] if columns else []
    if not rows:
        return h.new_zeros(h.shape[0], out_dim, in_dim)
    return torch.cat(rows, dim=1)


def contract_reference(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                       num_dst: int, weight: Tensor, bases: Sequence[Tensor],
                       paths: Sequence[Path], out_dim: int) -> Tensor:
    r"""The same as :func:`contract` through :func:`dense_kernel`."""
    check_maps(h, weight, bases, paths, x, out_dim)
    check_edges(h, x, src, dst, num_dst)
    dtype = at_least_float32(weight)
    x, full = x.to(dtype), weight.to(dtype)
    k = dense_kernel(h, full, bases, paths, x.shape[-1], out_dim)
    with full_precision(x):
        message = (k @ x[src, :, None]).squeeze(-1)
    out = message.new_zeros(num_dst, out_dim).index_add(0, dst, message)
    return out.to(weight.dtype)
