"""The same neighbours from every engine: those of the numbers given."""
from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .clouds import Clouds, Sites

#: Candidates that are looked at together.
BUDGET = 2**21


def tie_tolerance(dim: int) -> float:
    r"""By which equal distances may differ, relative to themselves: as the
    rounding of :math:`\sqrt{\sum_c (x_c - y_c)^2}` in float64.
    """
    return max(8, dim) * torch.finfo(torch.float64).eps


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

    Distances are computed in float64 from the differences of positions, which
    are exact, or rounded once. Around a target, they are divided into groups:
    the smallest distance :math:`d` that is in none begins the next, which
    ends at :math:`d (1 + \delta)`, :math:`\delta` the
    :func:`tie_tolerance`. Those of a group count as equal; the source of
    smaller index comes first.

    An engine proposes the candidates, in float64 too. Its answer is taken as
    soon as it shows the end of the group of the k-th neighbour; otherwise it
    is asked for more.

    Args:
        source, target (Clouds): As many clouds each.
        engine: The class that finds candidates.
        workers (int): Its threads.
        skip (Tensor, optional): A source that is no neighbour of target i,
            namely itself, :math:`[M]`.
    """
    def __init__(self, source: Clouds, target: Clouds, engine, workers: int,
                 skip: Tensor | None = None):
        self.source, self.target, self.skip = source, target, skip
        self.tolerance = tie_tolerance(source.pos.shape[1])
        # By coordinate, which gathers faster.
        self.x = source.pos.t().contiguous()
        self.y = target.pos.t().contiguous()
        self.sites = Sites(source)
        self.index = engine(self.sites.clouds, workers)

    def nearest(self, k: int) -> Edges:
        """The k nearest sources of each target, or all if they are fewer."""
        skips = self.skip is not None
        places = self.sites.clouds.count[self.target.batch]
        rows = (self.source.count[self.target.batch] > skips).nonzero()[:, 0]
        # One more shows whether the last one is tied. Where points are on top
        # of each other, fewer places hold as many.
        share = len(self.sites.clouds) / max(1, len(self.source))
        width = 1 + math.ceil((k + skips) * share)
        found = []
        while len(rows):
            width = min(width, int(self.sites.clouds.count.max()))
            later = []
            for part in rows.split(max(1, BUDGET // width)):
                pairs = self.index.knn(self.target.take(part), width)
                pairs = self.sites.points(pairs, k + skips)
                for row, col in _tables(part, *pairs):
                    ranked = self._rank(row, col)
                    done = ranked.settled(k, self.tolerance)
                    done |= places[row] <= width
                    found.append(ranked.first(k, done))
                    later.append(row[~done])
            rows, width = torch.cat(later).sort().values, 2 * width
        return self._join(found)

    def within(self, r: Tensor, cap: int | None) -> tuple[Edges, bool]:
        """The sources within r :math:`[M]` of each target, the nearest
        :obj:`cap` if there are more, and whether there are.
        """
        rows = torch.arange(len(self.target), device=self.y.device)
        most = len(self.source) if cap is None else cap + 2
        found, capped, size = [], False, 512
        while len(rows):
            part, rows = rows[:size], rows[size:]
            reach = r[part] * (1 + 4 * self.tolerance)
            pairs = self.index.radius(self.target.take(part), reach)
            pairs = self.sites.points(pairs, most)
            # Not much more at a time, for the next may be in a crowd.
            size = max(1, min(16 * size,
                              BUDGET * len(part) // max(1, len(pairs[0]))))
            for row, col in _tables(part, *pairs):
                ranked = self._rank(row, col, r[row])
                limit = col.shape[1] if cap is None else cap
                capped = capped or bool((ranked.degree > limit).any())
                found.append(ranked.first(limit))
        return self._join(found), capped

    def _rank(self, row: Tensor, col: Tensor,
              r: Tensor | None = None) -> _Ranked:
        """Orders the candidates :obj:`col [n, w]` (or -1) of some targets."""
        dist = torch.zeros_like(col, dtype=torch.float64)
        for x, y in zip(self.x, self.y):
            step = x[col].sub_(y[row, None])
            dist.addcmul_(step, step)
        dist.sqrt_()
        drop = col < 0
        if self.skip is not None:
            drop |= col == self.skip[row, None]
        if r is not None:
            drop |= dist > (r * (1 + self.tolerance))[:, None]
        dist.masked_fill_(drop, math.inf)
        dist, order = dist.sort(1)
        col = col.gather(1, order)
        begin = dist  # of the group that each distance is in
        tied = dist.diff(dim=1) <= self.tolerance * dist[:, :-1]
        some = tied.any(1).nonzero()[:, 0]
        if len(some):
            begin = dist.clone()
            new, begin[some] = _groups(dist[some], tied[some],
                                       self.tolerance)
            # + 1: the -1 of a group is not in the last one
            key = col[some] + (len(self.source) + 1) * new.cumsum(1)
            order = key.argsort(1)
            col[some] = col[some].gather(1, order)
            dist[some] = dist[some].gather(1, order)
        return _Ranked(row, col, dist, begin, col.shape[1] - drop.sum(1))

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
    row count, and :obj:`begin` is the distance that each group begins with.
    """
    row: Tensor
    col: Tensor
    dist: Tensor
    begin: Tensor
    degree: Tensor

    def settled(self, k: int, tolerance: float) -> Tensor:
        """Whether it is certain which are the first k: the last candidate is
        beyond the group of the k-th one, whatever its engine rounds.
        """
        if self.dist.shape[1] <= k:
            return torch.zeros_like(self.row, dtype=torch.bool)
        last = self.degree[:, None] - 1
        far = self.dist.gather(1, last.clamp(min=0))[:, 0]
        return (self.degree > k) & (
            far > self.begin[:, k - 1] * (1 + 4 * tolerance))

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


def _groups(dist: Tensor, tied: Tensor,
            tolerance: float) -> tuple[Tensor, Tensor]:
    """Which of the sorted distances :obj:`[n, w]` begin a group, and the
    distance that the group of each begins with.
    """
    new = torch.nn.functional.pad(~tied, (1, 0), value=True)
    # The difference of infinities is no number, nor is it tied.
    begin = torch.where(new, dist, 0).cummax(1).values
    limit = 1 + tolerance
    rows = torch.arange(len(dist), device=dist.device)
    while len(rows):
        # Chains of ties may lead too far: they are cut where they do.
        beyond = dist[rows] > begin[rows] * limit
        some = beyond.any(1)
        rows, cut = rows[some], beyond[some].to(torch.uint8).argmax(1)
        new[rows, cut] = True
        begin[rows] = torch.where(new[rows], dist[rows], 0).cummax(1).values
    return new, begin


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
