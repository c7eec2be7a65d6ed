"""What the speed and memory of operators are tuned by, by device."""
from __future__ import annotations

from typing import NamedTuple

import torch


class Limits(NamedTuple):
    """The constants of one kind of device."""
    #: Bytes that the temporaries of one chunk of nodes may take.
    chunk_bytes: int
    #: The map B is multiplied out to one matrix up to this size only.
    matrix_bytes: int
    #: Multiplications in the time in which one number is moved.
    move: int
    #: Lattices: numbers to gather at once, on CPUs about what caches hold.
    gather: int
    #: Lattices: pairs of voxels to look at together. Bounds the memory of
    #: small lattices, large ones go through one offset at a time.
    pairs: int
    #: Lattices: what the calls for one more offset take, in edges.
    offset_edges: int
    #: Lattices: targets whose neighbours are counted to judge how many there
    #: are.
    sample: int
    #: Grids with more voxels than this are searched without a table of them.
    table: int
    #: Lattices with a larger part of all voxels go through conv3d, which
    #: multiplies two to three times as fast, but at all voxels.
    dense_above: float


LIMITS = {
    'cpu': Limits(chunk_bytes=16 * 2**20, matrix_bytes=256 * 2**20, move=64,
                  gather=2**18, pairs=2**14, offset_edges=64, sample=64,
                  table=2**26, dense_above=0.4),
    'cuda': Limits(chunk_bytes=256 * 2**20, matrix_bytes=256 * 2**20, move=64,
                   gather=2**24, pairs=2**14, offset_edges=64, sample=64,
                   table=2**26, dense_above=0.4),
}


def limits_of(device: torch.device) -> Limits:
    """The constants of a device; those of GPUs for any that is not listed."""
    return LIMITS.get(device.type, LIMITS['cuda'])
