"""What the ways to evaluate a contraction cost, and the cheapest."""
from __future__ import annotations

from collections.abc import Sequence

import torch

from ... import checks
from ..limits import limits_of
from .couplings import Coupling, Couplings

ORDERS = ('auto', 'aggregate', 'source')


def check_order(order: str) -> str:
    """One of the orders of evaluation."""
    if isinstance(order, str) and order == 'reference':
        raise ValueError("Expected 'order' to be an order of evaluation (got "
                         "'reference'). Pass backend='reference'")
    return checks.choice('order', order, ORDERS)


def cheapest_order(num_edges: int, num_src: int, num_dst: int,
                   couplings: Couplings, device: torch.device) -> str:
    """Counts the operations of the two orders of evaluation."""
    terms = couplings.terms
    u, v, w = couplings.u_dim, couplings.v_dim, couplings.w_dim
    mirrored = [c.transposed() for c in terms]
    here = (num_edges * u * v +
            num_dst * min(costs(terms, u * v, w, device)))
    there = (num_edges * u * w +
             num_src * min(costs(mirrored, u * w, v, device)))
    return 'aggregate' if here <= there else 'source'


def prefers_matrix(terms: Sequence[Coupling], dims: tuple[int, int, int],
                   weight: torch.Tensor) -> bool:
    """Whether B is cheaper to apply when multiplied out to one matrix."""
    u, v, w = dims
    factored, expanded = costs(terms, u * v, w, weight.device)
    most = max(limits_of(weight.device).matrix_bytes, 2 * weight.nbytes)
    return expanded <= factored and u * v * w * weight.itemsize <= most


def costs(terms: Sequence[Coupling], outer_dim: int, out_dim: int,
          device: torch.device) -> tuple[int, int]:
    """Operations per node: through the maps Q and then the weights, or with
    the two multiplied out to one matrix.
    """
    move, factored = limits_of(device).move, 0
    moved = {(c.u, c.v): c.mu * c.mv * c.du * c.dv for c in terms}
    for c in terms:
        channels = c.mu * c.mv
        factored += channels * c.s * c.dw * (c.du * c.dv + c.mw)
        factored += move * channels * c.s * c.dw
    return factored + move * sum(moved.values()), outer_dim * out_dim
