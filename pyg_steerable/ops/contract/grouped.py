r"""The contraction where channels stay apart: in PyTorch, edge by edge.

In a coupling of groups, a channel of the output sees few channels of the
input. There is little left to be shared by the edges of a node, and the
kernels of single channels are small. Where there are few maps, they come last,

.. math::
    c_{e s v} = \sum_{m_u} W_{s m_u v} \, h_{e, m_u}, \qquad
    y_{i, v} = \sum_{e: j \to i} \sum_s Q_s \, (c_{e s v} \otimes x_{j, v}),

with components before edges and these before copies, so that the maps
:math:`Q`, one for all edges and copies, are products of two matrices. Where
there are many, as for small groups, they are multiplied out with the weights,
and one product of matrices gives the kernels of all edges,

.. math::
    k_{e v} = \sum_{m_u} \Big(\sum_s W_{s m_u v} Q_s\Big) h_{e, m_u}, \qquad
    y_{i, v} = \sum_{e: j \to i} k_{e v} \, x_{j, v}.
"""
from __future__ import annotations

from collections.abc import Iterator

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
    many = [_many(c) for c in terms]
    kernels = _kernels(h, [c for c, out in zip(terms, many) if not out],
                       [W for W, out in zip(weights, many) if not out])
    sources: dict[int, Tensor] = {}
    sums: dict[int, Tensor] = {}
    for c, W, Q, multiply in zip(terms, weights, couplings.bases, many):
        if c.v not in sources:
            x_v = x[:, c.v:c.v + c.mv * c.dv].view(-1, c.mv, c.dv)
            sources[c.v] = x_v.permute(2, 0, 1).index_select(1, src)
        y = (_multiplied(h, sources[c.v], W, Q.to(h.dtype), c) if multiply
             else _messages(next(kernels), sources[c.v], Q.to(h.dtype), c))
        sums[c.w] = sums[c.w] + y if c.w in sums else y
    blocks = [sums[w].permute(1, 2, 0).flatten(1) if w in sums else
              h.new_zeros(len(h), width)
              for w, width in spans(terms, 'w', couplings.w_dim)]
    out = h.new_zeros(num_dst, couplings.w_dim)
    return out.index_add(0, dst, torch.cat(blocks, 1)) if blocks else out


def _many(c: Coupling) -> bool:
    """Whether the maps of a coupling are so many that kernels cost less:
    multiplications for each edge and copy of W.
    """
    seen = c.mv // c.groups
    maps = c.s * c.du * (c.mu * seen + c.dv * seen + c.dw * c.dv)
    return c.mu * c.du * c.dw * c.dv * seen <= maps


def _multiplied(h: Tensor, x: Tensor, W: Tensor, Q: Tensor, c: Coupling
                ) -> Tensor:
    """One coupling on all edges, [dw, E, mw], through its kernels."""
    seen, own = c.mv // c.groups, c.mw // c.groups
    # [mu, du, dw, dv, mw, mv / groups]
    M = torch.einsum('wsmv,skab->makbwv', W, Q)
    k = h[:, c.u:c.u + c.mu * c.du] @ M.flatten(2).flatten(0, 1)
    x = x.permute(1, 0, 2)  # [E, dv, mv]
    if seen == 1:
        if own > 1:
            x = x.repeat_interleave(own, 2)
        k = k.view(-1, c.dw, c.dv, c.mw)
        return (k * x.unsqueeze(1)).sum(2).permute(1, 0, 2)
    k = k.view(-1, c.dw, c.dv, c.groups, own, seen)
    x = x.unflatten(2, (c.groups, 1, seen)).unsqueeze(1)
    return (k * x).sum((2, 5)).flatten(2).permute(1, 0, 2)


def _kernels(h: Tensor, terms: list[Coupling], weights: list[Tensor]
             ) -> Iterator[Tensor]:
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
    return iter([out[i] for i in range(len(terms))])


def _blocks(terms: list[Coupling]) -> list[list[int]]:
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
