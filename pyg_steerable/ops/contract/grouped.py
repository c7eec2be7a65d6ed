r"""The contraction where channels stay apart: in PyTorch, edge by edge.

In a coupling of groups, a channel of the output sees few channels of the
input. There is little left to be shared by the edges of a node, and the
kernels of single channels are small,

.. math::
    c_{e s v} = \sum_{m_u} W_{s m_u v} \, h_{e, m_u}, \qquad
    y_{i, v} = \sum_{e: j \to i} \sum_s Q_s \, (c_{e s v} \otimes x_{j, v}).

Components come before edges and these before copies: the maps :math:`Q`, one
for all edges and copies, then are products of two matrices.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .couplings import Coupling, Couplings, split_weights
from .reference import spans


def contract_grouped(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                     num_dst: int, weight: Tensor,
                     couplings: Couplings) -> Tensor:
    """The contraction of couplings that may have groups, in operations that
    PyTorch derives. It takes memory for the products of all edges.
    """
    terms = couplings.terms
    weights = split_weights(weight, terms)
    kernels = _kernels(h, terms, weights)
    sources: dict[int, Tensor] = {}
    sums: dict[int, Tensor] = {}
    for c, Q, kernel in zip(terms, couplings.bases, kernels):
        if c.v not in sources:
            x_v = x[:, c.v:c.v + c.mv * c.dv].view(-1, c.mv, c.dv)
            sources[c.v] = x_v.permute(2, 0, 1).index_select(1, src)
        y = _messages(kernel, sources[c.v], Q.to(h.dtype), c)
        sums[c.w] = sums[c.w] + y if c.w in sums else y
    blocks = [sums[w].permute(1, 2, 0).flatten(1) if w in sums else
              h.new_zeros(len(h), width)
              for w, width in spans(terms, 'w', couplings.w_dim)]
    out = h.new_zeros(num_dst, couplings.w_dim)
    return out.index_add(0, dst, torch.cat(blocks, 1)) if blocks else out


def _kernels(h: Tensor, terms: tuple[Coupling, ...],
             weights: list[Tensor]) -> list[Tensor]:
    """The features of edges, mixed for the channels of each coupling, each
    [du, E, s, mw, mv / groups].
    """
    out: dict[int, Tensor] = {}
    for block in _blocks(terms):
        c = terms[block[0]]
        h_u = h[:, c.u:c.u + c.mu * c.du].view(-1, c.mu, c.du).permute(2, 0, 1)
        W = torch.cat([weights[i].permute(2, 1, 0, 3).flatten(1)
                       for i in block], 1)  # [mu, (s mw mv/groups) ...]
        mixed = h_u @ W
        for i, part in zip(block, mixed.split(
                [terms[i].numel // c.mu for i in block], 2)):
            mw, s, _, seen = terms[i].shape
            out[i] = part.view(c.du, -1, s, mw, seen)
    return [out[i] for i in range(len(terms))]


def _blocks(terms: tuple[Coupling, ...]) -> list[list[int]]:
    """The places of the couplings, by their blocks of U."""
    blocks: dict[int, list[int]] = {}
    for i, c in enumerate(terms):
        blocks.setdefault(c.u, []).append(i)
    return [*blocks.values()]


def _messages(kernel: Tensor, x: Tensor, Q: Tensor, c: Coupling) -> Tensor:
    """One coupling on all edges, [dw, E, mw]."""
    seen = c.mv // c.groups
    if seen == 1:
        kernel, x = kernel.squeeze(-1), x.unsqueeze(2)
        if c.mw != c.mv:
            x = x.repeat_interleave(c.mw // c.groups, 3)
    else:
        x = x.unflatten(2, (c.groups, 1, seen)).unsqueeze(2)
        kernel = kernel.unflatten(3, (c.groups, c.mw // c.groups))
    # [du, dv, E, s, mw], or with the channels that are seen in the end
    outer = kernel.unsqueeze(1) * x.unsqueeze(0)
    if seen > 1:
        outer = outer.sum(-1).flatten(-2)
    # [(s du dv), (E mw)]
    outer = outer.permute(3, 0, 1, 2, 4).reshape(c.s * c.du * c.dv, -1)
    Q = Q.transpose(0, 1).reshape(c.dw, -1)
    return (Q @ outer).view(c.dw, -1, c.mw)
