"""Whether the tensors of a lattice fit each other, looked at once."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch.nn import functional as F
from torch.utils.weak import TensorWeakRef, WeakTensorKeyDictionary

from ... import checks
from ...ops.lattice_edges import LatticeEdges, voxel_at, voxel_number
from .stencil import GridStencil


class Checked:
    """What is known of some tensors, as long as none is changed."""
    _all = WeakTensorKeyDictionary()  # by coordinates

    def __init__(self, state: list, others: list[Tensor]):
        self.state = state
        # While these live, no other tensor has their addresses.
        self.others = [TensorWeakRef(t) for t in others]
        self.is_done = False
        self.lists_all: bool | None = None

    @classmethod
    def find(cls, tensors: Sequence, numbers: tuple) -> Checked | None:
        """What is known of them; None where values may not be looked at."""
        if torch.compiler.is_compiling():
            return None
        coord = tensors[0]
        if not isinstance(coord, Tensor) or not can_look(coord):
            return None
        known: Checked | None = cls._all.get(coord)
        state: list = [numbers]
        for t in tensors:
            # (A tensor of inference mode cannot be changed in place.)
            state += [t] if not isinstance(t, Tensor) else [
                id(t), 0 if t.is_inference() else t._version]
        if (known is None or known.state != state
                or any(other() is None for other in known.others)):
            known = cls._all[coord] = cls(
                state, [t for t in tensors[1:] if isinstance(t, Tensor)])
        return known


def can_look(value: Tensor) -> bool:
    """Whether the tensor's values may be looked at."""
    return not (torch.compiler.is_compiling() or value.is_meta
                or detect_fake_mode(value) is not None
                or torch._C._functorch.is_functorch_wrapped_tensor(value))


def check_edges(geometry: GridStencil, numbers: tuple[int, ...], coord, batch,
                coord_dst, batch_dst, edge_index, edge_offset) -> None:
    """Raises an error unless the tensors of a lattice fit each other."""
    if math.prod(numbers[:1] + geometry.padded) >= 2**62:
        raise ValueError(f'Expected fewer than 2^62 voxels (got '
                         f'{numbers[0]} lattices with {geometry}). Crop the '
                         f'grid, or use coarser voxels')
    fine = _voxels('coord', coord, 'batch', batch, geometry.grid, numbers[0])
    if (coord_dst is None) != (batch_dst is None):
        raise ValueError("Expected both of 'coord_dst' and 'batch_dst', or "
                         "none (got one)")
    coarse = fine
    if coord_dst is not None:
        coarse = _voxels('coord_dst', coord_dst, 'batch_dst', batch_dst,
                         geometry.out_grid, numbers[0])
    elif not geometry.keeps_sites:
        raise ValueError(f"Expected 'coord_dst', as the output does not lie "
                         f"on the same voxels with {geometry} (got none). "
                         f"Build the lattice by 'lattice_graph'")
    if (edge_index is None) != (edge_offset is None):
        raise ValueError("Expected both of 'edge_index' and 'edge_offset', "
                         "or none (got one)")
    if edge_index is not None:
        _check_listed(geometry, fine, coarse, edge_index, edge_offset)


def _voxels(name: str, coord, batch_name: str, batch, grid, size: int):
    """Coordinates and their lattices, each voxel once and on the grid."""
    checks.tensor(name, coord, checks.INTEGERS, 'a tensor of integers')
    checks.shaped(name, coord, (None, 3), '[N, 3]')
    coord = coord.long()
    if batch is None:
        if size > 1:
            raise ValueError(f"Expected '{batch_name}' for {size} lattices "
                             f"(got none)")
        batch = coord.new_zeros(coord.shape[0])
    batch = checks.indices(batch_name, batch, size, coord.shape[0],
                           f'[{coord.shape[0]}]')
    checks.same_device(**{name: coord, batch_name: batch})
    if not can_look(coord) or not len(coord):
        return coord, batch
    limit = torch.tensor(grid, device=coord.device)
    off = ((coord < 0) | (coord >= limit)).any(-1)
    if bool(off.any()):
        raise ValueError(
            f"Expected voxel numbers '{name}' (z, y, x) on the grid {grid} "
            f"(got {coord[off][0].tolist()}). Divide positions by the "
            f"spacing, round, and shift them into the grid")
    number = voxel_number(coord, batch, grid)
    if bool((number[1:] <= number[:-1]).any()):  # else they are in order
        number = number.sort()[0]
    again = number[1:][number[1:] == number[:-1]]
    if len(again):
        raise ValueError(
            f"Expected every voxel once in '{name}' (got "
            f"{voxel_at(again[0], grid)[0].tolist()} more than once). Add or "
            f"average their features first")
    return coord, batch


def _check_listed(geometry: GridStencil, fine, coarse, edge_index,
                  edge_offset) -> None:
    """Each edge is what its offset says."""
    checks.tensor('edge_index', edge_index, checks.INTEGERS,
                  'a tensor of integers')
    checks.shaped('edge_index', edge_index, (2, None), '[2, E]')
    src = checks.indices('edge_index', edge_index[0], fine[0].shape[0])
    dst = checks.indices('edge_index', edge_index[1], coarse[0].shape[0])
    offset = checks.indices('edge_offset', edge_offset,
                            geometry.stencil.num_offsets, src.shape[0],
                            f'[{src.shape[0]}], one for each edge')
    checks.same_device(coord=fine[0], edge_index=src, edge_offset=offset)
    if not can_look(src):
        return
    shape, own = geometry.padded, geometry.stencil
    here = voxel_number(fine[0], fine[1], shape, shift=own.padding)
    there = voxel_number(coarse[0], coarse[1], shape, own.stride)
    shift = voxel_number(own.offsets().to(src.device), 0, shape)
    wrong = here[src] != there[dst] + shift[offset]
    if bool(wrong.any()):
        edge = int(wrong.nonzero()[0])
        raise ValueError(
            f"Expected 'edge_offset' to number the offset of each edge (got "
            f"{int(offset[edge])} for edge {edge}, from voxel "
            f"{fine[0][src[edge]].tolist()} to "
            f"{coarse[0][dst[edge]].tolist()} of the output). Reorder it "
            f"with 'edge_index', and build the lattice anew where 'coord' "
            f"changes")


@torch.no_grad()
def lists_all(edges: LatticeEdges) -> bool:
    """Whether all edges are listed, each once."""
    size, (grid, sizes, steps, pads) = edges.numbers[0], edges.threes
    total = size * math.prod(grid)
    checks.memory('the voxels', 4 * total, f'A grid of {grid} is too '
                  f'large to have all of its voxels, stay with the graph')
    there = torch.zeros(total, device=edges.coord.device)
    there[voxel_number(edges.coord, edges.batch, grid)] = 1.
    ones = there.new_ones(1, 1, *sizes)
    with torch.autocast(there.device.type, enabled=False):
        seen = F.conv3d(there.view(size, 1, *grid), ones, None, steps,
                        pads)
    out = voxel_number(edges.coord_dst, edges.batch_dst, seen.shape[2:])
    src, dst, offset = edges.listed
    if int(seen.flatten()[out].sum(dtype=torch.float64)) != len(src):
        return False
    first = torch.zeros(len(edges.coord_dst) * edges.num_offsets,
                        dtype=torch.bool, device=src.device)
    first[dst * edges.num_offsets + offset] = True
    return int(first.sum()) == len(src)
