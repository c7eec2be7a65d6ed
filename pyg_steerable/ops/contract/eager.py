"""The contraction in chunks of nodes: what runs unless asked otherwise."""
from __future__ import annotations

import torch
from torch import Tensor

from .couplings import Couplings, flatten, pack, split_weights
from .operators import call_backward, call_forward
from .plan import cheapest_order


def contract_eager(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                   num_dst: int, weight: Tensor, couplings: Couplings,
                   order: str) -> Tensor:
    """Sums outer products at each node first, which go through B once per
    node, a bounded number of nodes at a time. Nothing of a chunk is kept:
    backward computes it again.
    """
    if order == 'auto':
        order = cheapest_order(h.shape[0], x.shape[0], num_dst, couplings,
                               h.device)
    if order == 'aggregate':
        return call_forward(h, x, src, dst, num_dst, weight,
                            pack(couplings.bases, weight.dtype),
                            flatten(couplings.terms), couplings.w_dim)
    # The kernels act from the sources' side: the derivative, with respect to
    # its features, of the operator with the roles of V and W exchanged.
    weight = torch.cat([W.transpose(0, 3).flatten() for W in split_weights(
        weight, couplings.terms)])
    mirrored = couplings.transposed()
    unused = x.new_zeros(1, 1).expand(num_dst, couplings.w_dim)
    return call_backward(x, h, unused, dst, src, weight,
                         pack(mirrored.bases, weight.dtype),
                         flatten(mirrored.terms), [False, True, False])[1]
