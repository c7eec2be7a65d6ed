r"""Neighbours' features through a factored kernel.

The kernel of an edge is :math:`k_e = \sum_q h_{eq} B_q` with steerable
features :math:`h_e` and an equivariant :math:`B`, which couples blocks of
fields along *paths* :math:`p = (u, v, w)`:

.. math::
    y_{i, w} = \sum_{e: j \to i} \sum_p \sum_s W^p_{m_w s m_u m_v} \,
    Q^p_{s d_w d_u d_v} \, h_{e, m_u d_u} \, x_{j, m_v d_v}

:func:`contract_reference` forms :math:`k_e`, :math:`[E, d_{out}, d_{in}]`.
:func:`contract` uses that the map is linear in the outer product
:math:`h_e \otimes x_j`: those are summed at each node first and go through
:math:`B` once per node, a bounded number of nodes at a time. Nothing of a
chunk is kept: backward computes it again.

All of it is multilinear, so that the derivatives of any order are again the
two operators below, with other arguments.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from .arguments import check_edges, check_maps
from .operators import call_backward, call_forward
from .paths import Path, cheapest_order, flatten
from .precision import at_least_float32, full_precision
from .reference import contract_reference

ORDERS = ('auto', 'aggregate', 'source', 'reference')


def contract(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, bases: Sequence[Tensor], paths: Sequence[Path],
             out_dim: int, order: str = 'auto') -> Tensor:
    r"""Sums the neighbours' features, taken through the factored kernel.

    Linear in :obj:`h`, :obj:`x` and :obj:`weight`; differentiable any number
    of times in the three. With :math:`N` target nodes it costs
    :math:`2 E d_h d_{in}` operations for the outer products and
    :math:`2 N \sum_p m_u m_v s \, d_w (d_u d_v + m_w)` for the maps, and takes
    memory for one chunk of nodes beside its inputs and output.

    Args:
        h (Tensor): Steerable features of the edges.
        x (Tensor): Features of the source nodes.
        src (Tensor): Source node of each edge.
        dst (Tensor): Target node of each edge, in any order.
        num_dst (int): The number of target nodes.
        weight (Tensor): The weights of all paths, each [mw, s, mu, mv].
        bases (list[Tensor]): The maps :math:`Q^p` [s, dw, du, dv] of each
            path.
        paths (list[Path]): Where the paths lead.
        out_dim (int): The width of the output.
        order (str, optional): :obj:`"aggregate"` sums outer products at the
            targets, :obj:`"source"` takes the source nodes through
            :math:`B` first, :obj:`"reference"` forms the kernels;
            :obj:`"auto"` counts the operations of the first two.

    Shapes:
        - **h:** :math:`[E, d_h]`, **x:** :math:`[N_{src}, d_{in}]`,
          **output:** :math:`[N_{dst}, d_{out}]`, in the dtype of the weights;
          sums are taken in at least float32

    Raises:
        ValueError: If shapes do not fit, or an index is out of range (seen
            on the CPU).
    """
    checks.choice('order', order, ORDERS)
    check_maps(h, weight, bases, paths, x, out_dim)
    check_edges(h, x, src, dst, num_dst)
    if not paths:
        return h.new_zeros(num_dst, out_dim, dtype=weight.dtype)
    # Half precision, of a module or of what autocast has lowered, does not
    # hold sums of products.
    dtype = at_least_float32(weight)
    h, x, full = h.to(dtype), x.to(dtype), weight.to(dtype)
    with full_precision(h):
        out = _contract(h, x, src, dst, num_dst, full, bases, paths, out_dim,
                        order)
    return out.to(weight.dtype)


def _contract(h, x, src, dst, num_dst, weight, bases, paths, out_dim, order):
    if order == 'reference':
        return contract_reference(h, x, src, dst, num_dst, weight, bases,
                                  paths, out_dim)
    if order == 'auto':
        order = cheapest_order(h.shape[0], x.shape[0], num_dst, h.shape[-1],
                               x.shape[-1], out_dim, paths)
    if order == 'aggregate':
        return call_forward(h, x, src, dst, num_dst, weight,
                            _pack(bases, weight), flatten(paths), out_dim)
    # The kernels act from the sources' side: the derivative, with respect to
    # its features, of the operator with the roles of V and W exchanged.
    mirrored = [p.transposed() for p in paths]
    weights = weight.split([p.numel for p in paths])
    weight = torch.cat([
        W.view(p.mw, -1, p.mv).transpose(0, 2).reshape(-1)
        for p, W in zip(paths, weights)
    ])
    bases = _pack([Q.transpose(1, 3) for Q in bases], weight)
    unused = x.new_zeros(1, 1).expand(num_dst, out_dim)
    return call_backward(x, h, unused, dst, src, weight, bases,
                         flatten(mirrored), [False, True, False])[1]


def _pack(bases: Sequence[Tensor], weight: Tensor) -> Tensor:
    """All maps as one flat tensor: what takes lists of tensors is refused by
    many a tool.
    """
    return torch.cat([Q.flatten() for Q in bases]).to(weight.dtype)
