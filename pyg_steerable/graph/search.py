"""The same neighbours from every engine, in an order that neither a rotation
nor its rounding changes.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .clouds import Clouds

#: Candidates that are looked at together.
BUDGET = 2**21
#: Distances count as equal within so many roundings of the positions.
ROUNDINGS = 8


class Edges(NamedTuple):
    """Pairs of a target (row) and a source (col), their distance, and the
    place of the source in the order around its target.
    """
    row: Tensor
    col: Tensor
    dist: Tensor
    place: Tensor

    def where(self, keep: Tensor) -> Edges:
        return Edges(*(t[keep] for t in self))


class Search:
    r"""Neighbours of targets among sources.

    Distances are computed in float64, from the differences of positions. Two
    that follow each other count as equal if they differ by less than
    :math:`8 \epsilon (s_i + d)`, as the rounding of a rotation may swap them;
    the source of smaller index comes first. Here :math:`\epsilon` belongs to
    the type of the input and :math:`s_i` is the size of the numbers that the
    distances of target i come from.

    Args:
        source, target (Clouds): As many clouds each.
        scale (Tensor): :math:`s_i`, :math:`[M]`.
        eps (float): :math:`\epsilon`.
        engine: The class that finds candidates.
        workers (int): Its threads.
        skip (Tensor, optional): A source that is no neighbour of target i,
            namely itself, :math:`[M]`.
    """
    def __init__(self, source: Clouds, target: Clouds, scale: Tensor,
                 eps: float, engine, workers: int,
                 skip: Tensor | None = None):
        self.source, self.target, self.skip = source, target, skip
        self.scale, self.relative = scale, ROUNDINGS * eps
        # By coordinate, which gathers faster.
        self.x = source.pos.double().t().contiguous()
        self.y = target.pos.double().t().contiguous()
        self.index = engine(source, workers)

    def nearest(self, k: int) -> Edges:
        """The k nearest sources of each target, or all if they are fewer."""
        available = self.source.count[self.target.batch]
        if self.skip is not None:
            available = available - 1
        rows = available.nonzero()[:, 0]
        # One more shows whether the last one is tied.
        width = k + 1 + (self.skip is not None)
        found = []
        while len(rows):
            width = min(width, int(self.source.count.max()))
            later = []
            for part in rows.split(max(1, BUDGET // width)):
                pairs = self.index.knn(self.target.take(part), width)
                for row, col in _tables(part, *pairs):
                    ranked = self._rank(row, col)
                    done = ranked.settled(k) | (ranked.degree ==
                                                available[row])
                    found.append(ranked.first(k, done))
                    later.append(row[~done])
            rows, width = torch.cat(later).sort().values, 2 * width
        return self._join(found)

    def within(self, r: float, cap: int | None) -> tuple[Edges, bool]:
        """The sources within r of each target, the nearest :obj:`cap` if
        there are more, and whether there are.
        """
        rows = torch.arange(len(self.target), device=self.y.device)
        found, capped, size = [], False, 4096
        while len(rows):
            part, rows = rows[:size], rows[size:]
            # The margin is for engines that work in float32.
            reach = (r + self.tolerance(part, r)) * (1 + 1e-6)
            pairs = self.index.radius(self.target.take(part), reach)
            size = max(1, BUDGET * len(part) // max(1, len(pairs[0])))
            for row, col in _tables(part, *pairs):
                ranked = self._rank(row, col, r)
                limit = col.shape[1] if cap is None else cap
                capped = capped or bool((ranked.degree > limit).any())
                found.append(ranked.first(limit))
        return self._join(found), capped

    def tolerance(self, rows: Tensor, dist: Tensor | float) -> Tensor:
        return self.relative * (self.scale[rows] + dist)

    def _rank(self, row: Tensor, col: Tensor, r: float = math.inf) -> _Ranked:
        """Orders the candidates :obj:`col [n, w]` (or -1) of some targets."""
        dist = torch.zeros_like(col, dtype=torch.float64)
        for x, y in zip(self.x, self.y):
            step = x[col] - y[row, None]
            dist.addcmul_(step, step)
        dist.sqrt_()
        drop = col < 0
        if self.skip is not None:
            drop |= col == self.skip[row, None]
        if r < math.inf:
            drop |= dist > r + self.tolerance(row, r)[:, None]
        dist.masked_fill_(drop, math.inf)
        dist, order = dist.sort(1)
        col = col.gather(1, order)
        tol = self.tolerance(row[:, None], dist[:, :-1])
        tied = dist.diff(dim=1) <= tol
        some = tied.any(1).nonzero()[:, 0]
        if len(some):
            key = col[some]  # + 1: the -1 of a group is not in the last one
            key[:, 1:] += (len(self.source) + 1) * (~tied[some]).cumsum(1)
            order = key.argsort(1)
            col[some] = col[some].gather(1, order)
            dist[some] = dist[some].gather(1, order)
        return _Ranked(row, col, dist, tied, col.shape[1] - drop.sum(1))

    def _join(self, found: list[Edges]) -> Edges:
        """All edges, by target and place."""
        if len(found) == 1:
            return found[0]
        empty = self.target.batch[:0]
        found.append(Edges(empty, empty, self.y[0, :0], empty))
        edges = Edges(*map(torch.cat, zip(*found)))
        degree = torch.bincount(edges.row, minlength=len(self.target))
        start = degree.cumsum(0) - degree
        at = start[edges.row] + edges.place
        return Edges(*(torch.empty_like(t).scatter_(0, at, t)
                       for t in edges))


class _Ranked(NamedTuple):
    """Sources in order around some targets: the first :obj:`degree` of each
    row count, and :obj:`tied` says which are as far as the one before.
    """
    row: Tensor
    col: Tensor
    dist: Tensor
    tied: Tensor
    degree: Tensor

    def settled(self, k: int) -> Tensor:
        """Whether it is certain which are the first k: some gap follows."""
        column = torch.arange(1, self.col.shape[1], device=self.row.device)
        gap = ~self.tied & (column >= k) & (column < self.degree[:, None])
        return gap.any(1)

    def first(self, k: int, rows: Tensor | None = None) -> Edges:
        row, col, dist, _, degree = self
        col, dist = col[:, :k], dist[:, :k]
        if rows is not None and not bool(rows.all()):
            row, col, dist, degree = (t[rows] for t in (row, col, dist,
                                                        degree))
        place = torch.arange(col.shape[1], device=row.device).expand_as(col)
        edges = (row[:, None].expand_as(col), col, dist, place)
        if bool((degree >= k).all()):
            return Edges(*(t.flatten() for t in edges))
        inside = place < degree[:, None]
        return Edges(*(t[inside] for t in edges))


def _tables(part: Tensor, row: Tensor,
            col: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs grouped by row as tables: targets :obj:`[n]`, of :obj:`part`, and
    sources :obj:`[n, w]`. Targets of like degree go together; empty places,
    less than half of a table, are -1.
    """
    degree = torch.bincount(row, minlength=len(part))
    if len(row) and bool((degree == degree[0]).all()):
        yield part, col.view(len(part), -1)
        return
    start = degree.cumsum(0) - degree
    level = degree.double().log2().floor()
    for n in level[degree > 0].unique():
        rows = (level == n).nonzero()[:, 0]
        column = torch.arange(int(degree[rows].max()), device=row.device)
        inside = column < degree[rows, None]
        edge = (start[rows, None] + column).where(inside, 0)
        yield part[rows], col[edge].where(inside, -1)
