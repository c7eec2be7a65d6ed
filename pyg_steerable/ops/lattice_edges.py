"""The edges of a lattice: by offset or by target, listed or found."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from .limits import limits_of

T = TypeVar('T')
#: One number for each of the axes (z, y, x).
Triple = tuple[int, int, int]
#: Offsets first, first + 1, ... with so many edges each, and their ends.
Run = tuple[int, list[int], Tensor, Tensor]
#: The first of some targets, and their sources at all offsets.
Rows = Iterator[tuple[int, Tensor]]


class LatticeEdges(NamedTuple):
    """Who is whose neighbour, as tensors and whole numbers: voxels *(z, y,
    x)* and their lattices, on both sides; the edges, where they are listed;
    and the numbers: how many lattices, then in threes *(z, y, x)* the grid,
    the sizes of the stencil, its strides and its paddings.
    """
    coord: Tensor
    batch: Tensor
    coord_dst: Tensor
    batch_dst: Tensor
    edge_index: Tensor | None
    edge_offset: Tensor | None
    numbers: tuple[int, ...]

    @property
    def num_offsets(self) -> int:
        return num_offsets(self.numbers)

    @property
    def threes(self) -> list[tuple[int, ...]]:
        """Grid, sizes, strides and paddings."""
        return [self.numbers[i:i + 3] for i in (1, 4, 7, 10)]

    @property
    def listed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sources, targets and offsets of listed edges."""
        if self.edge_index is None or self.edge_offset is None:
            raise ValueError("Expected edges with 'edge_index' and "
                             "'edge_offset' (got none). List them")
        src, dst = self.edge_index
        return src, dst, self.edge_offset

    def runs(self) -> Iterator[Run]:
        """All edges in the order of their offsets."""
        return (_found_runs if self.edge_index is None else _listed_runs)(self)

    def rows(self, at_once: int, transposed: bool = False) -> Rows | None:
        """The same target by target, None where runs are cheaper."""
        return (_found_rows if self.edge_index is None else _listed_rows)(
            self, at_once, transposed)


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Three values, one for each of the axes (z, y, x)."""
    z, y, x = values
    return z, y, x


def num_offsets(numbers: Sequence[int]) -> int:
    """The number of offsets of a stencil, of :attr:`LatticeEdges.numbers`."""
    return prod(numbers[4:7])


def box(sizes: Sequence[int], device=None) -> Tensor:
    """All offsets of a box, the last one running fastest, [K, 3]."""
    lines = (torch.arange(size, device=device) for size in sizes)
    return torch.cartesian_prod(*lines).view(-1, 3)


def voxel_number(coord: Tensor, batch: Tensor | int, shape: Sequence[int],
                 step: Sequence[int] | None = None,
                 shift: Sequence[int] = (0, 0, 0)) -> Tensor:
    """The place of voxels, of step * coord + shift, in a batch of grids."""
    z, y, x = coord.unbind(-1)
    if step is not None:
        z, y, x = z * step[0], y * step[1], x * step[2]
    number = ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x
    first = (shift[0] * shape[1] + shift[1]) * shape[2] + shift[2]
    return number + first if first else number


def voxel_at(number: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The voxel at a place, and its lattice: undoes :func:`voxel_number`."""
    parts = []
    for n in reversed(shape):
        parts.append(number % n)
        number = number // n
    return torch.stack(parts[::-1], dim=-1), number


def _listed_runs(edges: LatticeEdges) -> Iterator[Run]:
    """Listed edges. Those of a batch are in order graph by graph."""
    src, dst, edge_offset = edges.listed
    num_offsets = edges.num_offsets
    if bool((edge_offset[1:] < edge_offset[:-1]).any()):
        # Offsets are few: narrow integers sort several times faster.
        narrow = torch.int16 if num_offsets < 2**15 else torch.int32
        order = torch.argsort(edge_offset.to(narrow), stable=True)
        src, dst = src[order], dst[order]
    most = limits_of(src.device).pairs
    sizes = torch.bincount(edge_offset, minlength=num_offsets).tolist()
    first, start = 0, 0
    while first < num_offsets:
        last, count = first + 1, sizes[first]
        while last < num_offsets and count + sizes[last] <= most:
            count += sizes[last]
            last += 1
        end = start + count
        yield first, sizes[first:last], src[start:end], dst[start:end]
        first, start = last, end


def _spread(size: int, device) -> Tensor:
    """Some of so many numbers, in no rhythm with the rows of a grid."""
    places = torch.arange(min(size, limits_of(device).sample),
                          device=device)
    return (places * 0.6180339887 % 1 * size).long()


def _prefers_runs(filled: float, num_dst: int, device: torch.device) -> bool:
    """Whether edges are cheaper than a place for each target and offset."""
    return filled * num_dst + limits_of(device).offset_edges < num_dst / 2


def _search(edges: LatticeEdges, transposed: bool = False):
    """A function from voxel numbers to sources, the voxel of each target and
    what each offset adds to it. Numbers are those of a grid that no offset
    leaves.
    """
    grid, sizes, steps, pads = edges.threes
    offsets, end = box(sizes, edges.coord.device), [0, 0, 0]
    if transposed:  # t o = j + p - k = (j + p) + (s - 1 - k) - (s - 1)
        offsets, end = offsets.flip(0), [s - 1 for s in sizes]
    shape = [n + 2 * p + e for n, p, e in zip(grid, pads, end)]
    fine = voxel_number(edges.coord, edges.batch, shape, shift=pads)
    coarse = voxel_number(edges.coord_dst, edges.batch_dst, shape, steps, end)
    key, base = (coarse, fine) if transposed else (fine, coarse)
    look_up = _table(key, edges.numbers[0] * prod(shape))
    return look_up, base, voxel_number(offsets, 0, shape)


def _found_runs(edges: LatticeEdges) -> Iterator[Run]:
    """Edges that are not listed."""
    look_up, base, shift = _search(edges)
    step = max(1, limits_of(base.device).pairs // max(1, len(base)))
    for first in range(0, len(shift), step):
        wanted = base + shift[first:first + step, None]
        src = look_up(wanted.flatten())
        found = src < len(edges.coord)
        sizes = found.view_as(wanted).sum(1).tolist()
        found = found.nonzero().flatten()
        yield (first, sizes, src.index_select(0, found).long(),
               found % max(1, len(base)))


def _listed_rows(edges: LatticeEdges, at_once: int, transposed: bool
                 ) -> Rows | None:
    """Listed edges target by target."""
    (src, dst, edge_offset), num_offsets = edges.listed, edges.num_offsets
    num_src, num_dst = len(edges.coord), len(edges.coord_dst)
    if transposed:
        src, dst, num_src, num_dst = dst, src, num_dst, num_src
    filled = len(src) / max(1, num_dst * num_offsets)
    if _prefers_runs(filled, num_dst, src.device):
        return None
    table = src.new_full((num_dst * num_offsets, ), num_src,
                         dtype=torch.int32)
    table[dst * num_offsets + edge_offset] = src.int()
    if int((table < num_src).sum()) < len(src):
        return None  # an edge that is listed twice counts twice
    table = table.view(num_dst, num_offsets)
    step = max(1, at_once // num_offsets)
    return ((i, table[i:i + step]) for i in range(0, num_dst, step))


def _found_rows(edges: LatticeEdges, at_once: int, transposed: bool
                ) -> Rows | None:
    """The same of edges that are not listed."""
    look_up, base, shift = _search(edges, transposed)
    step = max(1, at_once // edges.num_offsets)

    def block(base):
        return look_up((base[:, None] + shift).flatten()).view(
            -1, len(shift))

    some = block(base[_spread(len(base), base.device)])
    here = len(edges.coord_dst if transposed else edges.coord)
    filled = int((some < here).sum()) / max(1, some.numel())
    if _prefers_runs(filled, len(base), base.device):
        return None
    return ((i, block(base[i:i + step])) for i in range(0, len(base), step))


def _table(key: Tensor, size: int) -> Callable[[Tensor], Tensor]:
    """A function from voxel numbers to nodes, their number where there is
    none.
    """
    if not len(key):
        return torch.zeros_like
    if size <= limits_of(key.device).table:
        table = torch.full((size, ), len(key), dtype=torch.int32,
                           device=key.device)
        table[key] = torch.arange(len(key), dtype=torch.int32,
                                  device=key.device)
        return lambda wanted: table.index_select(0, wanted)
    key, order = key.sort()

    def search(wanted: Tensor) -> Tensor:
        place = torch.searchsorted(key, wanted).clamp_(max=len(key) - 1)
        return order[place].where(key[place] == wanted, len(key))

    return search
