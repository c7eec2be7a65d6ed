"""The contraction in plain PyTorch, for programs that travel."""
from __future__ import annotations

import torch
from torch import Tensor

from .couplings import Couplings, split_weights
from .maps import pairs
from .reference import spans


def contract_portable(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                      num_dst: int, weight: Tensor, couplings: Couplings,
                      order: str = 'auto') -> Tensor:
    r"""The contraction in operations that every PyTorch has and that read no
    values and no sizes: what :func:`torch.export.export`,
    :func:`torch.onnx.export` and :func:`torch.jit.trace` record.

    Outer products :math:`h_u \otimes x_v` are summed at the targets, one pair
    of blocks of fields at a time, and go through :math:`B` there: there is no
    other order. It takes memory for the outer products of all edges in the
    largest pair.
    """
    terms, bases = couplings.terms, couplings.bases
    weights = split_weights(weight, terms)
    x_j = x.index_select(0, src)
    blocks: dict[int, Tensor] = {}
    for pair in pairs(terms):
        A = h[:, pair.u, None] * x_j[:, None, pair.v]  # [E, mu du, mv dv]
        A = A.new_zeros(num_dst, *A.shape[1:]).index_add(0, dst, A)
        c = pair.terms[0][1]
        A = A.view(num_dst, c.mu, c.du, c.mv, c.dv)
        for i, c in pair.terms:
            y = torch.einsum('nuivj,skij->nuvsk', A, bases[i].to(A.dtype))
            y = torch.einsum('nuvsk,wsuv->nwk', y, weights[i]).flatten(1)
            blocks[c.w] = blocks[c.w] + y if c.w in blocks else y
    return torch.cat([
        blocks[w] if w in blocks else h.new_zeros(num_dst, width)
        for w, width in spans(terms, 'w', couplings.w_dim)
    ], dim=1)
