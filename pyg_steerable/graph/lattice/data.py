r"""Voxels as graphs, and back.

Axes: a voxel tensor is :math:`[C, D, H, W]`, and its last three axes are
:math:`z, y, x`, as in images and CT volumes. Everything that counts voxels
(:obj:`coord`, :obj:`grid`, :obj:`spacing`) is in this order, *(z, y, x)*;
positions (:obj:`pos`) are *(x, y, z)*, as everywhere else:

.. math::
    \mathbf{p} = (w \, \Delta x, \; h \, \Delta y, \; d \, \Delta z).
"""
from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from ... import checks
from ...ops.lattice_edges import (
    LatticeEdges,
    Rows,
    Run,
    box,
    voxel_at,
    voxel_number,
)
from ...ops.limits import limits_of
from .check import Checked, check_edges, lists_all
from .stencil import GridStencil, Stencil

#: Lattices with more possible edges than this do not list them.
MAX_LISTED_EDGES = 2**20
#: What says who is whose neighbour.
_KEYS = ('coord', 'batch', 'coord_dst', 'batch_dst', 'edge_index',
         'edge_offset')
#: What voxels may hold.
NUMBERS = (*checks.FLOATING, *checks.INTEGERS, torch.bool)


class LatticeData(Data):
    r"""A graph whose nodes are voxels of a grid.

    Attributes:
        x (Tensor): Features, :math:`[N, C]`.
        pos (Tensor): Positions *(x, y, z)*, :math:`[N, 3]`.
        coord (Tensor): Voxel numbers *(z, y, x)*, :math:`[N, 3]`.
        coord_dst, pos_dst, batch_dst (Tensor): Those of the output, where
            it does not lie on the same voxels (strides), :math:`[M, 3]`.
        edge_index (Tensor): From voxels to voxels of the output,
            :math:`[2, E]`, ordered by :obj:`edge_offset`; missing if there
            would be too many.
        edge_offset (Tensor): The number of the offset :math:`\mathbf{k}` of
            each edge, :math:`[E]`.
        stencil (GridStencil): The stencil on the grid, one for each graph of
            a batch.
        origin (Tensor): The position of the first voxel, :math:`[1, 3]`.

    A lattice is looked at once, by the first layer that takes it: after a
    change of :obj:`coord` or of edges that does not fit the others it is
    refused. Edges may be left out or come in another order.
    """
    def __inc__(self, key, value, *args, **kwargs):
        if key == 'edge_index':
            return torch.tensor([[len(self.coord)], [self.num_targets]])
        if key == 'batch_dst':
            return 1
        return super().__inc__(key, value, *args, **kwargs)

    def is_node_attr(self, key: str) -> bool:
        return (key not in ('origin', 'coord_dst', 'pos_dst', 'batch_dst')
                and super().is_node_attr(key))

    def subgraph(self, subset: Tensor) -> LatticeData:
        """The lattice of some of its nodes, with the edges among them.

        Raises:
            ValueError: If the output lies on other voxels, as
                :obj:`edge_index` then counts these.
        """
        if 'coord_dst' in self:
            raise ValueError("Expected a lattice whose output lies on the "
                             "same voxels (got one with 'coord_dst'). Build "
                             "it anew from 'coord[subset]' by "
                             "'lattice_graph'")
        if 'edge_index' in self:
            return super().subgraph(subset)
        out = copy.copy(self)
        for key, value in self:
            if self.is_node_attr(key):
                out[key] = value[subset]
        return out

    @property
    def geometry(self) -> GridStencil:
        """The stencil on the grid, which all graphs of a batch share.

        Raises:
            ValueError: If their grids or stencils differ.
        """
        given = self.get('stencil')
        if isinstance(given, GridStencil):
            return given
        if not isinstance(given, list) or not given or not all(
                isinstance(other, GridStencil) for other in given):
            raise TypeError(f"Expected 'stencil' to be a GridStencil, or a "
                            f"list of them in a batch (got "
                            f"{checks.show(given)}). "
                            f"Build lattices by 'lattice_graph' or "
                            f"VoxelToGraph")
        first = given[0]
        for other in given:
            if other != first:
                raise ValueError(
                    f'Expected the lattices of a batch to have one grid and '
                    f'one stencil (got {first} and {other}). Pad the voxels '
                    f'to one size')
        return first

    @property
    def grid(self) -> tuple[int, int, int]:
        """The numbers of voxels *(D, H, W)*."""
        return self.geometry.grid

    @property
    def is_batch(self) -> bool:
        """Whether this is a batch of lattices, be it of one."""
        return not isinstance(self.stencil, GridStencil)

    @property
    def num_lattices(self) -> int:
        """The number of lattices, one unless this is a batch."""
        return len(self.stencil) if self.is_batch else 1

    @property
    def num_targets(self) -> int:
        """The number of nodes of the output."""
        return self.targets[0].shape[0]  # (len() is no SymInt)

    @property
    def sources(self) -> tuple[Tensor, Tensor]:
        """Coordinates, and the lattice that each belongs to."""
        batch = self.get('batch')
        return self.coord, (self.coord.new_zeros(self.coord.shape[0])
                            if batch is None else batch)

    @property
    def targets(self) -> tuple[Tensor, Tensor]:
        """The same of the output."""
        if 'coord_dst' in self:
            return self.coord_dst, self.batch_dst
        return self.sources

    @property
    def occupancy(self) -> float:
        """Which part of all voxels the lattice has."""
        d, h, w = self.grid
        return self.coord.shape[0] / (d * h * w * self.num_lattices)

    @property
    def edges(self) -> LatticeEdges:
        """Who is whose neighbour, for
        :func:`~pyg_steerable.ops.lattice.lattice_conv`.

        Raises:
            ValueError: If the tensors do not fit each other.
        """
        return self._checked()[0]

    @property
    def lists_all_edges(self) -> bool:
        """Whether no edge between its nodes is missing, none is there twice:
        whether the convolution on voxels is the one on its edges.
        """
        edges, checked = self._checked()
        if edges.edge_index is None:
            return True
        if checked is None:  # nothing can be looked at
            return False
        if checked.lists_all is None:
            checked.lists_all = lists_all(edges)
        return checked.lists_all

    def _checked(self) -> tuple[LatticeEdges, Checked | None]:
        geometry, given = self.geometry, [self.get(key) for key in _KEYS]
        numbers = (self.num_lattices, *geometry.numbers)
        checked = Checked.find(given, numbers)
        if checked is None or not checked.is_done:
            check_edges(geometry, numbers, **dict(zip(_KEYS, given)))
            if checked is not None:
                checked.is_done = True
        (coord, batch), (coord_dst, batch_dst) = self.sources, self.targets
        edge_index, edge_offset = given[-2:]
        return LatticeEdges(
            coord.long(), batch.long(), coord_dst.long(), batch_dst.long(),
            edge_index if edge_index is None else edge_index.long(),
            edge_offset if edge_offset is None else edge_offset.long(),
            numbers), checked

    def runs(self) -> Iterator[Run]:
        """All edges in the order of their offsets, listed ones or found on
        the way.
        """
        return self.edges.runs()

    def rows(self, at_once: int | None = None, transposed: bool = False
             ) -> Rows | None:
        r"""The same edges target by target, in blocks: the number of the
        first target and, for it and those that follow, the sources at all
        offsets, :math:`[n, K]`; the number of all sources stands for none.
        :obj:`None` where so few are there that :meth:`runs` is cheaper.

        Args:
            at_once (int, optional): The most places in a block, if it has
                more than one target; by default what suits the device.
                (default: :obj:`None`)
            transposed (bool, optional): If set to :obj:`True`, edges run
                from their targets to their sources.
                (default: :obj:`False`)
        """
        if at_once is None:
            at_once = limits_of(self.coord.device).pairs
        return self.edges.rows(at_once, transposed)

    def scatter(self, x: Tensor, targets: bool = False) -> Tensor:
        r"""Features of the nodes (or of the output's) as voxels, zero where
        there is no node.

        Shapes:
            - **x:** :math:`[N, C]`, **output:** :math:`[B, C, D, H, W]`
        """
        site, shape = self._sites(targets)
        _check_rows(x, site.shape[0])
        size = self.num_lattices * shape[0] * shape[1] * shape[2]
        checks.memory('the voxels', size * x.shape[1] * x.itemsize,
                      f'A grid of {shape} is too large to have all of its '
                      f'voxels, stay with the graph')
        flat = x.new_zeros(size, x.shape[1]).index_copy(0, site, x)
        return flat.view(self.num_lattices, *shape, -1).permute(0, 4, 1, 2, 3)

    def gather(self, voxels: Tensor, targets: bool = False) -> Tensor:
        r"""Features of the nodes (or of the output's) from voxels.

        Shapes:
            - **voxels:** :math:`[B, C, D, H, W]`, **output:**
              :math:`[N, C]`
        """
        site, shape = self._sites(targets)
        checks.tensor('voxels', voxels, NUMBERS, 'a tensor of voxels')
        checks.shaped('voxels', voxels, (self.num_lattices, None, *shape),
                      f'[{self.num_lattices}, C, '
                      f'{", ".join(map(str, shape))}]')
        flat = voxels.permute(0, 2, 3, 4, 1).flatten(0, 3)
        return flat.index_select(0, site)

    def _sites(self, targets: bool):
        edges, geometry = self.edges, self.geometry
        if targets:
            shape = geometry.out_grid
            return voxel_number(edges.coord_dst, edges.batch_dst,
                                shape), shape
        return voxel_number(edges.coord, edges.batch, geometry.grid), \
            geometry.grid

    def next(self, kernel_size=3, *, stride=1, padding=None,
             dilate: bool = False, list_edges: bool | None = None
             ) -> LatticeData:
        r"""The lattice on which the output lies, with a stencil of its own.

        Args:
            kernel_size, stride, padding, dilate, list_edges: See
                :func:`lattice_graph`.
        """
        old, origin = self.geometry.stencil, self.origin[:1]
        spacing = [a * t for a, t in zip(old.spacing, old.stride)]
        geometry = Stencil(kernel_size, stride, padding, spacing).on(
            self.geometry.out_grid)
        first = [a * k for a, k in zip(old.spacing, old.shift)]
        origin = origin + origin.new_tensor(first[::-1])
        out = _build(*self.targets, geometry, self.num_lattices, origin,
                     dilate, list_edges)
        if self.is_batch:
            out.batch = self.targets[1]
            out.stencil = self.num_lattices * [geometry]
            out.origin = out.origin.expand(self.num_lattices, 3)
        return out


def _build(coord: Tensor, batch: Tensor, geometry: GridStencil, size: int,
           origin: Tensor, dilate: bool, list_edges: bool | None,
           x: Tensor | None = None) -> LatticeData:
    stencil = geometry.stencil

    def positions(place):
        step = origin.new_tensor(stencil.spacing)
        return origin + (place * step).flip(-1)

    data = LatticeData(x=x, pos=positions(coord), coord=coord,
                       stencil=geometry, origin=origin)
    targets = (coord, batch)
    if not geometry.keeps_sites or dilate:
        targets = output_voxels(coord, batch, geometry, dilate)
        data.coord_dst, data.batch_dst = targets
        data.pos_dst = positions(targets[0] * coord.new_tensor(stencil.stride)
                                 + coord.new_tensor(stencil.shift))
    if list_edges is None:
        most = len(targets[0]) * stencil.num_offsets
        list_edges = most <= MAX_LISTED_EDGES
    if list_edges:
        edges = LatticeEdges(coord, batch, *targets, None, None,
                             (size, *geometry.numbers))
        runs = list(edges.runs())
        counts = torch.tensor([n for _, many, _, _ in runs for n in many],
                              device=coord.device)
        data.edge_index = torch.stack([torch.cat([run[2] for run in runs]),
                                       torch.cat([run[3] for run in runs])])
        data.edge_offset = torch.arange(
            len(counts), device=coord.device).repeat_interleave(counts)
    return data


def output_voxels(coord: Tensor, batch: Tensor, geometry: GridStencil,
                  dilate: bool) -> tuple[Tensor, Tensor]:
    """The voxels of the output, in order."""
    stencil, device = geometry.stencil, coord.device
    shape, found = geometry.out_grid, batch.new_empty(0)
    if dilate:
        offsets = box(stencil.kernel_size, device)
        offsets = offsets - coord.new_tensor(stencil.padding)
    else:  # all of the block of an output, from its centre on
        # (No output is further from a voxel than the grid is wide.)
        block = [min(t, n) for t, n in zip(stencil.stride, geometry.padded)]
        offsets = box(block, device) + coord.new_tensor(stencil.shift)
    limit = torch.tensor(shape, device=device)
    stride = coord.new_tensor(stencil.stride)
    for offset in offsets:
        place = coord - offset
        out = place.div(stride, rounding_mode='floor')
        inside = ((out * stride == place) & (out >= 0)
                  & (out < limit)).all(-1)
        new = voxel_number(out[inside], batch[inside], shape)
        found = torch.cat([found, new]).unique()
    return voxel_at(found, shape)


def check_lattice(lattice, name: str = 'lattice') -> None:
    """Raises a TypeError for anything else."""
    if not isinstance(lattice, LatticeData):
        raise TypeError(f"Expected '{name}' to be the LatticeData of a voxel "
                        f"grid (got {checks.show(lattice)}). Build it with "
                        f"VoxelToGraph or 'lattice_graph'")


def lattice_graph(coord: Tensor, grid: Sequence[int], x: Tensor | None = None,
                  *, kernel_size=3, stride=1, padding=None, spacing=1.,
                  dilate: bool = False,
                  list_edges: bool | None = None) -> LatticeData:
    r"""The graph of voxels given by their coordinates.

    Args:
        coord (Tensor): Voxel numbers *(z, y, x)*, each voxel once.
        grid (tuple[int]): The numbers of voxels *(D, H, W)*.
        x (Tensor, optional): Features. (default: :obj:`None`)
        kernel_size, stride, padding, spacing (optional): Numbers, or three
            of them along *(z, y, x)*, see :class:`Stencil`.
        dilate (bool, optional): If set to :obj:`True`, the output has all
            voxels whose stencil contains a node, as the non-zero output of
            a dense convolution; otherwise those that have a node among the
            voxels from the centre of the stencil on until the next one, so
            that it stays as sparse as the input. (default: :obj:`False`)
        list_edges (bool, optional): Whether to list the edges; by default
            where there are less than a million. Convolutions find them
            otherwise, one offset after the other. (default: :obj:`None`)

    Shapes:
        - **coord:** :math:`[N, 3]`, **x:** :math:`[N, C]`

    Raises:
        ValueError: If coordinates are off the grid, not whole, or occur
            twice, features are not finite, or the stencil does not fit.
    """
    geometry = Stencil(kernel_size, stride, padding, spacing).on(grid)
    dilate = checks.flag('dilate', dilate)
    if list_edges is not None:
        list_edges = checks.flag('list_edges', list_edges)
    # Row by row: 'mask.nonzero()' goes by columns, of which torch.export.save
    # warns.
    coord = _check_coord(coord, geometry.grid).contiguous()
    if x is not None:
        _check_rows(x, len(coord))
        checks.same_device(x=x, coord=coord)
        bad = (~x.isfinite()).any(-1).nonzero()
        if len(bad):
            raise ValueError(
                f"Expected finite voxels (got {x[bad[0, 0]].tolist()} at "
                f"voxel {coord[bad[0, 0]].tolist()}). Leave such voxels out "
                f"by a mask, or replace them with 'torch.nan_to_num'")
    origin = torch.zeros(1, 3, device=coord.device)
    return _build(coord, coord.new_zeros(len(coord)), geometry, 1, origin,
                  dilate, list_edges, x)


def _check_rows(x: Tensor, size: int) -> None:
    checks.tensor('x', x, NUMBERS, 'a tensor of features')
    if x.dim() != 2 or x.shape[0] != size:
        raise ValueError(f"Expected 'x' of shape [{size}, C], one row for "
                         f"each voxel (got {list(x.shape)})")


def _check_coord(coord: Tensor, grid) -> Tensor:
    checks.positions('coord', coord, checks.INTEGERS + checks.FLOATING)
    checks.has_values('coord', coord, 'which voxels there are')
    whole = coord.long()
    limit = torch.tensor(grid, device=coord.device)
    off = ((whole < 0) | (whole >= limit) | (whole != coord)).any(-1)
    if bool(off.any()):
        raise ValueError(
            f"Expected voxel numbers 'coord' (z, y, x) on the grid {grid} "
            f"(got {coord[off][0].tolist()}). Divide positions by the "
            f"spacing, round, and shift them into the grid")
    number = voxel_number(whole, 0, grid).sort()[0]
    again = number[1:][number[1:] == number[:-1]]
    if len(again):
        raise ValueError(
            f"Expected every voxel once in 'coord' (got "
            f"{voxel_at(again[0], grid)[0].tolist()} more than once). Add or "
            f"average their features first")
    return whole


# Files name it by its public place, wherever its source is, and datasets load
# with 'weights_only=True'.
LatticeData.__module__ = 'pyg_steerable.graph'
torch.serialization.add_safe_globals([LatticeData])
