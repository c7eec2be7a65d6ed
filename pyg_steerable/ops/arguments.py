"""What the operators take is checked here; not while compiling, when sizes
may be symbols and are to stay so.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from .paths import Path

#: More nodes, or wider fields, than this are a mistake.
MAX_SIZE = 2**31 - 1


def check_maps(h: Tensor, weight: Tensor, bases: Sequence[Tensor],
               paths: Sequence[Path], x: Tensor | int, out_dim: int) -> None:
    """Raises an error unless features of edges, of sources (or their width
    alone), weights and maps fit together.
    """
    if torch.compiler.is_compiling():
        return
    for name, value, what in (('h', h, '[E, d_h]'), ('x', x, '[N, d_in]'),
                              ('weight', weight, '[P]')):
        if name != 'x' or isinstance(x, Tensor):
            checks.tensor(name, value)
            checks.shaped(name, value, (None, ) * len(what.split()), what)
    checks.same_device(h=h, weight=weight)
    in_dim = x.shape[1] if isinstance(x, Tensor) else size('in_dim', x)
    size('out_dim', out_dim)
    for name, value, kind in (('paths', paths, Path), ('bases', bases,
                                                       Tensor)):
        if not isinstance(value, (list, tuple)) or not all(
                isinstance(v, kind) for v in value):
            raise TypeError(f"Expected '{name}' to be a list of "
                            f"{kind.__name__} (got {checks.show(value)})")
    if len(bases) != len(paths):
        raise ValueError(f"Expected 'bases' to hold one tensor for each of "
                         f"the {len(paths)} paths (got {len(bases)})")
    numel = sum(p.numel for p in paths)
    if paths and weight.numel() != numel:
        raise ValueError(f"Expected 'weight' of shape [{numel}], the weights "
                         f"of all paths (got {list(weight.shape)})")
    for Q, p in zip(bases, paths):
        checks.tensor('bases', Q)
        checks.shaped('bases', Q, (p.s, p.dw, p.du, p.dv), '[s, dw, du, dv]')
    for name, width, reached in (
            ('h', h.shape[1], [p.u + p.mu * p.du for p in paths]),
            ('x', in_dim, [p.v + p.mv * p.dv for p in paths]),
            ('out_dim', out_dim, [p.w + p.mw * p.dw for p in paths])):
        if max(reached, default=0) > width:
            raise ValueError(f"Expected '{name}' of a width of at least "
                             f"{max(reached)}, where the paths lead (got "
                             f"{width})")


def check_edges(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                num_dst: int) -> None:
    """Raises an error unless each edge has two ends that there are."""
    if torch.compiler.is_compiling():
        return
    size('num_dst', num_dst)
    checks.indices('src', src, len(x), len(h), '[E], as many as rows of h')
    checks.indices('dst', dst, num_dst, len(h), '[E], as many as rows of h')
    checks.same_device(h=h, x=x, src=src, dst=dst)


def size(name: str, value: int) -> int:
    """A number of nodes or a width; symbols are left alone."""
    if isinstance(value, torch.SymInt):
        return value
    return checks.integer(name, value, 0, MAX_SIZE)
