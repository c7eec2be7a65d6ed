"""The plain reference: kernels as matrices, one for each edge."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ... import checks
from ..precision import at_least_float32, full_precision
from .couplings import Couplings, split_weights


def spans(terms: Sequence[tuple], which: str,
          dim: int) -> list[tuple[int, int]]:
    """(offset, width) of the blocks of V or W, and of gaps between them, of
    couplings or of the blocks of a matrix.
    """
    spans, stop = [], 0
    blocks = {(getattr(c, which), getattr(c, 'm' + which) *
               getattr(c, 'd' + which)) for c in terms}
    for start, width in [*sorted(blocks), (dim, 0)]:
        if start > stop:
            spans.append((stop, start - stop))
        if width:
            spans.append((start, width))
        stop = start + width
    return spans


def dense_kernel(h: Tensor, weight: Tensor, couplings: Couplings) -> Tensor:
    r"""The kernels :math:`k_e` as matrices, the plain reference.

    Args:
        h (Tensor): Steerable features of the edges.
        weight (Tensor): The weights of all couplings, each [mw, s, mu, mv].
        couplings (Couplings): Which blocks of fields are coupled, and their
            maps :math:`Q^c`.

    Shapes:
        - **h:** :math:`[E, d_h]`, **weight:** :math:`[P]`,
          **output:** :math:`[E, d_{out}, d_{in}]`, in the dtype of the
          weights, and summed in at least float32

    Raises:
        ValueError: If shapes do not fit.
        TypeError: If an argument is of another kind.
    """
    if not torch.compiler.is_compiling():
        check_kernel(h, weight, couplings)
    dtype = at_least_float32(weight)
    with full_precision(h):
        couplings, full = couplings.ungrouped(weight.to(dtype))
        return _dense_kernel(h.to(dtype), full, couplings).to(weight.dtype)


def _dense_kernel(h, weight, couplings):
    terms = couplings.terms
    if not terms:
        return h.new_zeros(h.shape[0], couplings.w_dim, couplings.v_dim)
    blocks: dict[tuple[int, int], Tensor] = {}
    for c, W, Q in zip(terms, split_weights(weight, terms), couplings.bases):
        h_u = h[:, c.u:c.u + c.mu * c.du].view(-1, c.mu, c.du)
        # Two operands at a time: of three, einsum reads the sizes, which a
        # compiler then takes for fixed.
        block = torch.einsum('eui,skij->euskj', h_u, Q.to(h.dtype))
        block = torch.einsum('euskj,wsuv->ewkvj', block, W)
        block = block.reshape(-1, c.mw * c.dw, c.mv * c.dv)
        at = (c.w, c.v)
        blocks[at] = blocks[at] + block if at in blocks else block
    columns = spans(terms, 'v', couplings.v_dim)
    return torch.cat([
        torch.cat([
            blocks[w, v] if (w, v) in blocks else
            h.new_zeros(h.shape[0], height, width) for v, width in columns
        ], dim=2) for w, height in spans(terms, 'w', couplings.w_dim)
    ], dim=1)


def contract_reference(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                       num_dst: int, weight: Tensor, couplings: Couplings,
                       order: str = 'auto') -> Tensor:
    """The contraction through :func:`dense_kernel`, in no order."""
    k = _dense_kernel(h, weight, couplings)
    message = (k @ x[src, :, None]).squeeze(-1)
    return message.new_zeros(num_dst, couplings.w_dim).index_add(
        0, dst, message)


def check_kernel(h: Tensor, weight: Tensor, couplings: Couplings) -> None:
    """Raises an error unless features of edges, weights and couplings fit
    together.
    """
    if not isinstance(couplings, Couplings):
        raise TypeError(f"Expected 'couplings' to be Couplings (got "
                        f"{checks.show(couplings)})")
    couplings.check()
    checks.tensor('h', h)
    checks.shaped('h', h, (None, couplings.u_dim), '[E, d_h]')
    checks.tensor('weight', weight)
    numel = sum(c.numel for c in couplings.terms)
    checks.shaped('weight', weight, (numel if couplings.terms else None, ),
                  '[P], the weights of all couplings')
    checks.same_device(h=h, weight=weight)
