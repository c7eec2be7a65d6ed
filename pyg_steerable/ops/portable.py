"""The contraction in plain PyTorch, for programs that travel."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .maps import pairs
from .paths import Path
from .reference import spans


def contract_portable(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                      num_dst: int, weight: Tensor, bases: Sequence[Tensor],
                      paths: Sequence[Path], out_dim: int) -> Tensor:
    r"""The same as :func:`contract`, in operations that every PyTorch has and
    that read no values and no sizes: what :func:`torch.export.export`,
    :func:`torch.onnx.export` and :func:`torch.jit.trace` record.

    Outer products :math:`h_u \otimes x_v` are summed at the targets, one pair
    of blocks of fields at a time, and go through :math:`B` there. It takes
    memory for the outer products of all edges in the largest pair.
    """
    h, x = h.to(weight.dtype), x.to(weight.dtype)
    weights = weight.split([p.numel for p in paths])
    x_j = x.index_select(0, src)
    blocks: dict[int, Tensor] = {}
    for pair in pairs(paths):
        A = h[:, pair.u, None] * x_j[:, None, pair.v]  # [E, mu du, mv dv]
        A = A.new_zeros(num_dst, *A.shape[1:]).index_add(0, dst, A)
        p = pair.paths[0][1]
        A = A.view(num_dst, p.mu, p.du, p.mv, p.dv)
        for i, p in pair.paths:
            W = weights[i].view(p.mw, p.s, p.mu, p.mv)
            y = torch.einsum('nuivj,skij->nuvsk', A, bases[i].to(A.dtype))
            y = torch.einsum('nuvsk,wsuv->nwk', y, W).flatten(1)
            blocks[p.w] = blocks[p.w] + y if p.w in blocks else y
    return torch.cat([
        blocks[w] if w in blocks else h.new_zeros(num_dst, width)
        for w, width in spans(paths, 'w', out_dim)
    ], dim=1)
