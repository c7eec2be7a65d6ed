"""Paths: the couplings of blocks of fields, and what they cost."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Path(NamedTuple):
    """One coupling :math:`U_u \\otimes V_v \\to W_w` of blocks of fields:
    offset, copies and components of each, and the number s of maps.
    """
    u: int
    mu: int
    du: int
    v: int
    mv: int
    dv: int
    w: int
    mw: int
    dw: int
    s: int

    @property
    def numel(self) -> int:
        """The number of weights, in the order [mw, s, mu, mv]."""
        return self.mw * self.s * self.mu * self.mv

    def transposed(self) -> Path:
        """The path with the roles of V and W exchanged."""
        return Path(self.u, self.mu, self.du, self.w, self.mw, self.dw,
                    self.v, self.mv, self.dv, self.s)


def parse(layout: Sequence[int]) -> list[Path]:
    """The paths of a plain list of integers."""
    n = len(Path._fields)
    return [Path(*layout[i:i + n]) for i in range(0, len(layout), n)]


def flatten(paths: Sequence[Path]) -> list[int]:
    """Paths as the plain list of integers that the operators take."""
    return [n for path in paths for n in path]


def unpack(bases: Tensor, layout: Sequence[int]) -> list[Tensor]:
    """The maps Q of all paths, each [s, dw, du, dv], of a flat tensor."""
    shapes = [(p.s, p.dw, p.du, p.dv) for p in parse(layout)]
    return [Q.view(shape) for Q, shape in zip(
        bases.split([math.prod(shape) for shape in shapes]), shapes)]


def cheapest_order(num_edges: int, num_src: int, num_dst: int, h_dim: int,
                   in_dim: int, out_dim: int, paths: Sequence[Path]) -> str:
    """Counts the operations of the two orders of evaluation."""
    mirrored = [path.transposed() for path in paths]
    here = (num_edges * h_dim * in_dim +
            num_dst * min(costs(paths, h_dim * in_dim, out_dim)))
    there = (num_edges * h_dim * out_dim +
             num_src * min(costs(mirrored, h_dim * out_dim, in_dim)))
    return 'aggregate' if here <= there else 'source'


# Multiplications in the time in which one number is moved.
_MOVE = 64


def costs(paths: Sequence[Path], outer_dim: int,
           out_dim: int) -> tuple[int, int]:
    """Operations per node: through the maps Q and then the weights, or with
    the two multiplied out to one matrix.
    """
    factored = 0
    moved = {(p.u, p.v): p.mu * p.mv * p.du * p.dv for p in paths}
    for p in paths:
        channels = p.mu * p.mv
        factored += channels * p.s * p.dw * (p.du * p.dv + p.mw)
        factored += _MOVE * channels * p.s * p.dw
    return factored + _MOVE * sum(moved.values()), outer_dim * out_dim
