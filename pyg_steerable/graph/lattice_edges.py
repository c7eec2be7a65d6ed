"""The edges of a lattice: by offset or by target, listed or found."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from .stencil import Stencil

#: Grids with more voxels than this are searched without a table of them.
MAX_TABLE = 2**26
#: Pairs of voxels to look at together: bounds the memory of small lattices,
#: large ones go through one offset at a time.
AT_ONCE = 2**14
#: What the calls for one more offset take, as a number of edges.
_OVERHEAD = 64
#: Targets whose neighbours are counted to judge how many there are.
_SAMPLE = 64

#: Offsets first, first + 1, ... with so many edges each, and their ends.
Run = tuple[int, list[int], Tensor, Tensor]
#: The first of some targets, and their sources at all offsets.
Rows = Iterator[tuple[int, Tensor]]


def voxel_number(coord: Tensor, batch: Tensor, shape: Sequence[int]) -> Tensor:
    """The place of voxels in a batch of grids."""
    z, y, x = coord.unbind(-1)
    return ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x


def voxel_at(number: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The voxel at a place, and its lattice: undoes :func:`voxel_number`."""
    parts = []
    for n in reversed(shape):
        parts.append(number % n)
        number = number // n
    return torch.stack(parts[::-1], dim=-1), number


def listed_runs(edge_index: Tensor, edge_offset: Tensor,
            num_offsets: int) -> Iterator[Run]:
    """Listed edges. Those of a batch are in order graph by graph."""
    src, dst = edge_index
    if bool((edge_offset[1:] < edge_offset[:-1]).any()):
        # Offsets are few: narrow integers sort several times faster.
        order = torch.argsort(edge_offset.to(torch.int16), stable=True)
        src, dst = src[order], dst[order]
    sizes = torch.bincount(edge_offset, minlength=num_offsets).tolist()
    first, start = 0, 0
    while first < num_offsets:
        last, count = first + 1, sizes[first]
        while last < num_offsets and count + sizes[last] <= AT_ONCE:
            count += sizes[last]
            last += 1
        end = start + count
        yield first, sizes[first:last], src[start:end], dst[start:end]
        first, start = last, end


def _spread(size: int, device) -> Tensor:
    """Some of so many numbers, in no rhythm with the rows of a grid."""
    places = torch.arange(min(size, _SAMPLE), device=device)
    return (places * 0.6180339887 % 1 * size).long()


def _prefers_runs(filled: float, num_dst: int) -> bool:
    """Whether edges are cheaper than a place for each target and offset."""
    return filled * num_dst + _OVERHEAD < num_dst / 2


def _search(stencil: Stencil, sources, targets, size: int,
            transposed: bool = False):
    """A function from voxel numbers to sources, the voxel of each target and
    what each offset adds to it. Numbers are those of a grid that no offset
    leaves.
    """
    t, p, s = stencil.stride, stencil.padding, stencil.kernel_size
    offsets = stencil.offsets().to(sources[0].device)
    shape, begin, end = stencil.padded, p, 0
    if transposed:  # t o = j + p - k = (j + p) + (s - 1 - k) - (s - 1)
        shape = tuple(n + s - 1 for n in shape)
        offsets, end = offsets.flip(0), s - 1
    fine = voxel_number(sources[0] + begin, sources[1], shape)
    coarse = voxel_number(targets[0] * t + end, targets[1], shape)
    key, base = (coarse, fine) if transposed else (fine, coarse)
    look_up = _table(key, size * shape[0] * shape[1] * shape[2])
    return look_up, base, voxel_number(offsets, 0, shape)


def found_runs(stencil: Stencil, sources, targets, size: int) -> Iterator[Run]:
    """Edges that are not listed."""
    look_up, base, shift = _search(stencil, sources, targets, size)
    step = max(1, AT_ONCE // max(1, len(base)))
    for first in range(0, len(shift), step):
        wanted = base + shift[first:first + step, None]
        src = look_up(wanted.flatten())
        found = src < len(sources[0])
        sizes = found.view_as(wanted).sum(1).tolist()
        found = found.nonzero().flatten()
        yield (first, sizes, src.index_select(0, found).long(),
               found % max(1, len(base)))


def listed_rows(edge_index: Tensor, edge_offset: Tensor, num_offsets: int,
                num_src: int, num_dst: int, at_once: int,
                transposed: bool = False) -> Rows | None:
    """Listed edges target by target, None where runs are cheaper."""
    src, dst = edge_index
    if transposed:
        src, dst, num_src, num_dst = dst, src, num_dst, num_src
    if _prefers_runs(len(src) / max(1, num_dst * num_offsets), num_dst):
        return None
    table = src.new_full((num_dst * num_offsets, ), num_src,
                         dtype=torch.int32)
    table[dst * num_offsets + edge_offset] = src.int()
    if int((table < num_src).sum()) < len(src):
        return None  # an edge that is listed twice counts twice
    table = table.view(num_dst, num_offsets)
    step = max(1, at_once // num_offsets)
    return ((i, table[i:i + step]) for i in range(0, num_dst, step))


def found_rows(stencil: Stencil, sources, targets, size: int, at_once: int,
               transposed: bool = False) -> Rows | None:
    """The same of edges that are not listed."""
    look_up, base, shift = _search(stencil, sources, targets, size,
                                   transposed)
    step = max(1, at_once // stencil.num_offsets)

    def block(base):
        return look_up((base[:, None] + shift).flatten()).view(
            -1, len(shift))

    some = block(base[_spread(len(base), base.device)])
    here = len((targets if transposed else sources)[0])
    filled = int((some < here).sum()) / max(1, some.numel())
    if _prefers_runs(filled, len(base)):
        return None
    return ((i, block(base[i:i + step])) for i in range(0, len(base), step))


def _table(key: Tensor, size: int):
    """A function from voxel numbers to nodes, their number where there is
    none.
    """
    if size <= MAX_TABLE or not len(key):
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


def output_voxels(coord: Tensor, batch: Tensor, stencil: Stencil,
             dilate: bool) -> tuple[Tensor, Tensor]:
    """The voxels of the output, in order."""
    shape, found = stencil.out_grid, batch.new_empty(0)
    if dilate:
        offsets = stencil.offsets().to(coord.device) - stencil.padding
    else:  # all of the block of an output, from its centre on
        offsets = torch.tensor(list(product(range(stencil.stride), repeat=3)),
                               device=coord.device) + stencil.shift
    limit = torch.tensor(shape, device=coord.device)
    for offset in offsets:
        place = coord - offset
        out = place.div(stencil.stride, rounding_mode='floor')
        inside = ((out * stencil.stride == place) & (out >= 0)
                  & (out < limit)).all(-1)
        new = voxel_number(out[inside], batch[inside], shape)
        found = torch.cat([found, new]).unique()
    return voxel_at(found, shape)
