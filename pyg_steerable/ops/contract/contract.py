r"""Neighbours' features through a factored kernel.

The kernel of an edge is :math:`k_e = \sum_q h_{eq} B_q` with steerable
features :math:`h_e` and an equivariant :math:`B`, which couples blocks of
fields, :math:`c = (u, v, w)`:

.. math::
    y_{i, w} = \sum_{e: j \to i} \sum_c \sum_s W^c_{m_w s m_u m_v} \,
    Q^c_{s d_w d_u d_v} \, h_{e, m_u d_u} \, x_{j, m_v d_v}

The reference (:mod:`.reference`) forms :math:`k_e`,
:math:`[E, d_{out}, d_{in}]`. All others use that the map is linear in the
outer product :math:`h_e \otimes x_j`: those are summed at each node first and
go through :math:`B` once per node.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from ..precision import at_least_float32, full_precision
from .backends import check_backend, choose
from .couplings import MAX_SIZE, Couplings
from .grouped import contract_grouped
from .plan import check_order
from .reference import check_kernel

#: The backends that have one way for couplings in groups. Others see the full
#: couplings, with weights that are zero between groups.
_OURS = ('auto', 'torch', 'portable')


def contract(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, couplings: Couplings, order: str = 'auto',
             backend: str = 'auto') -> Tensor:
    r"""Sums the neighbours' features, taken through the factored kernel.

    Linear in :obj:`h`, :obj:`x` and :obj:`weight`; differentiable any number
    of times in the three. With :math:`N` target nodes it costs
    :math:`2 E d_h d_{in}` operations for the outer products and
    :math:`2 N \sum_c m_u m_v s \, d_w (d_u d_v + m_w)` for the maps, and takes
    memory for one chunk of nodes beside its inputs and output.

    Args:
        h (Tensor): Steerable features of the edges.
        x (Tensor): Features of the source nodes.
        src (Tensor): Source node of each edge.
        dst (Tensor): Target node of each edge, in any order.
        num_dst (int): The number of target nodes.
        weight (Tensor): The weights of all couplings, each [mw, s, mu, mv],
            or [mw, s, mu, mv / groups].
        couplings (Couplings): Which blocks of fields are coupled, and their
            maps :math:`Q^c`. Those in groups are evaluated edge by edge.
        order (str, optional): The order of evaluation: :obj:`"aggregate"`
            sums outer products at the targets, :obj:`"source"` takes the
            source nodes through :math:`B` first, :obj:`"auto"` counts the
            operations of the two. Some backends know one order only.
            (default: :obj:`"auto"`)
        backend (str, optional): What evaluates: :obj:`"torch"` works in
            chunks of nodes, :obj:`"portable"` is what exported programs
            hold, :obj:`"reference"` forms the kernels, and there may be more
            that were registered. :obj:`"auto"` takes what suits the device,
            and :obj:`"portable"` for exported programs.
            (default: :obj:`"auto"`)

    Shapes:
        - **h:** :math:`[E, d_h]`, **x:** :math:`[N_{src}, d_{in}]`,
          **output:** :math:`[N_{dst}, d_{out}]`, in the dtype of the weights;
          sums are taken in at least float32

    Raises:
        ValueError: If shapes do not fit, an index is out of range (seen
            on the CPU), or the order or the backend is not known or not
            available.
        TypeError: If an argument is of another kind.
    """
    check_order(order)
    check_backend(backend)
    _check(h, x, src, dst, num_dst, weight, couplings)
    if not couplings.terms:
        return h.new_zeros(num_dst, couplings.w_dim, dtype=weight.dtype)
    # Half precision, of a module or of what autocast has lowered, does not
    # hold sums of products.
    dtype = at_least_float32(weight)
    function = choose(backend, h.device, dtype).function
    with full_precision(h):
        edges = h.to(dtype), x.to(dtype), src, dst, num_dst
        if couplings.is_grouped and backend in _OURS:
            out = contract_grouped(*edges, weight.to(dtype), couplings)
        else:
            plain, full = couplings.ungrouped(weight.to(dtype))
            out = function(*edges, full, plain, order)
    return out.to(weight.dtype)


def _check(h, x, src, dst, num_dst, weight, couplings) -> None:
    """Not while compiling, when sizes may be symbols and are to stay so."""
    if torch.compiler.is_compiling():
        return
    check_kernel(h, weight, couplings)
    checks.tensor('x', x)
    checks.shaped('x', x, (None, couplings.v_dim), '[N, d_in]')
    if not isinstance(num_dst, torch.SymInt):
        checks.integer('num_dst', num_dst, 0, MAX_SIZE)
    checks.indices('src', src, len(x), len(h), '[E], as many as rows of h')
    checks.indices('dst', dst, num_dst, len(h), '[E], as many as rows of h')
    checks.same_device(h=h, x=x, src=src, dst=dst)
