"""Periodic boundaries: the images of points in a crystal."""
from __future__ import annotations

import torch
from torch import Tensor

from .clouds import Clouds
from .search import ROUNDINGS, Edges, Search

#: By which a fractional coordinate may miss its cell.
MARGIN = 1e-6


class Cells:
    r"""The cells of some clouds: lattice vectors as rows
    :math:`[B, D, D]`, and the axes along which they repeat :math:`[B, D]`.
    """
    def __init__(self, cell: Tensor, pbc: Tensor):
        self.cell, self.pbc = cell, pbc
        self.inverse = torch.linalg.inv(cell)
        # Between opposite faces: no shorter way leads from image to image.
        self.height = 1 / self.inverse.norm(dim=1)

    @property
    def extent(self) -> Tensor:
        return self.cell.norm(dim=2).sum(1)

    def fraction(self, clouds: Clouds) -> Tensor:
        pos = clouds.pos.double()[:, None]
        return (pos @ self.inverse[clouds.batch])[:, 0]

    def move(self, clouds: Clouds, image: Tensor) -> Clouds:
        shift = image[:, None].double() @ self.cell[clouds.batch]
        return clouds.replace(clouds.pos.double() + shift[:, 0])

    def wrap(self, clouds: Clouds) -> tuple[Clouds, Tensor]:
        """The points inside their cells, and how often they were moved."""
        moved = -self.fraction(clouds).floor().long()
        moved *= self.pbc[clouds.batch]
        return self.move(clouds, moved), moved

    def images(self, clouds: Clouds, reach: Tensor):
        r"""The images of wrapped points that may lie within :obj:`reach`
        :math:`[B]` of a point in the cell; with the point that each is an
        image of, and the cell that it lies in, :math:`[N', D]`.
        """
        index = torch.arange(len(clouds), device=clouds.pos.device)
        image = clouds.batch.new_zeros(len(clouds), 0)
        fraction = self.fraction(clouds)
        far = reach[:, None] / self.height + MARGIN
        for axis in range(self.pbc.shape[1]):
            at, batch = fraction[index, axis], clouds.batch[index]
            periodic = self.pbc[batch, axis]
            low = (-far[batch, axis] - at).ceil().long() * periodic
            high = (1 + far[batch, axis] - at).floor().long() * periodic
            count = high - low + 1
            copy = torch.arange(len(index), device=index.device)
            copy = copy.repeat_interleave(count)
            step = torch.arange(len(copy), device=index.device)
            step = step - (count.cumsum(0) - count - low)[copy]
            index = index[copy]
            image = torch.cat([image[copy], step[:, None]], 1)
        return self.move(clouds.take(index), image), index, image


def read_cells(cell, pbc, size: int, pos: Tensor) -> Cells:
    """The cells that a user gives for clouds of these positions."""
    dim = pos.shape[1]
    cell = torch.as_tensor(cell, dtype=torch.float64, device=pos.device)
    if cell.shape not in ((dim, dim), (size, dim, dim)):
        raise ValueError(f"Expected 'cell' of shape [{dim}, {dim}] or, for "
                         f"{size} clouds, [{size}, {dim}, {dim}] (got "
                         f"{list(cell.shape)})")
    cell = cell.detach().expand(size, dim, dim)
    volume, sides = cell.det().abs(), cell.norm(dim=2).prod(1)
    # NaN fails too.
    if not bool((volume > 1e-6 * sides).all()):
        bad = int((~(volume > 1e-6 * sides)).nonzero()[0])
        raise ValueError(f"Expected 'cell' to have a volume (got "
                         f"{cell[bad].tolist()}). Along an axis that does "
                         f"not repeat any vector will do")
    pbc = torch.as_tensor(pbc, device=pos.device)
    if pbc.dtype != torch.bool or pbc.shape not in ((), (dim, ),
                                                       (size, dim)):
        raise ValueError(f"Expected 'pbc' to be a bool, or one for each axis "
                         f"(got {pbc.tolist()})")
    return Cells(cell, pbc.expand(size, dim))


class PeriodicSearch:
    r"""Neighbours of targets among the images of sources; like
    :class:`~.search.Search`, with the image of each neighbour.
    """
    def __init__(self, cells: Cells, source: Clouds, target: Clouds,
                 same: bool, **kwargs):
        self.cells, self.same, self.kwargs = cells, same, kwargs
        self.source, self.moved = cells.wrap(source)
        self.target, self.target_moved = cells.wrap(target)

    def nearest(self, k: int) -> tuple[Edges, Tensor]:
        cells, count = self.cells, self.source.count
        # A sphere of this size holds 2 to 4 times as many images as needed,
        # if they are spread evenly.
        height = torch.where(cells.pbc, cells.height, 1).log().sum(1)
        axes = cells.pbc.sum(1).clamp(min=1)
        reach = (height / axes).exp() * (
            (k + 2) / count.clamp(min=1)).pow(1 / axes)
        endless = cells.pbc.any(1) & (count > 0)
        rows = torch.arange(len(self.target), device=count.device)
        found = []
        while True:
            search, index, image = self._search(reach, rows)
            edges = search.nearest(k)
            last = edges.where(edges.place == k - 1)
            # All that is as far as the last one must be there, ties too.
            far = last.dist + 4 * search.tolerance(last.row, last.dist)
            done = ~endless[search.target.batch]
            done[last.row] |= far <= reach[search.target.batch[last.row]]
            kept = edges.where(done[edges.row])
            found.append(self._result(kept, rows, index, image))
            rows = rows[~done]
            if not len(rows):
                break
            again = torch.zeros_like(endless)
            again[self.target.batch[rows]] = True
            reach = torch.where(again, 1.5 * reach, 0)
        edges = Edges(*map(torch.cat, zip(*(e for e, _ in found))))
        offset = torch.cat([o for _, o in found])
        order = edges.row.argsort(stable=True)
        return edges.where(order), offset[order]

    def within(self, r: float, cap: int | None):
        rows = torch.arange(len(self.target), device=self.source.pos.device)
        scale, eps = self.kwargs['scale'], self.kwargs['eps']
        # Rounding may count a source as near that is a little farther.
        margin = ROUNDINGS * eps * (scale.amax() + r) if len(rows) else 0
        reach = scale.new_zeros(self.source.size) + (r + margin)
        search, index, image = self._search(reach, rows)
        edges, capped = search.within(r, cap)
        return self._result(edges, rows, index, image), capped

    def _search(self, reach: Tensor, rows: Tensor):
        images, index, image = self.cells.images(self.source, reach)
        kwargs = dict(self.kwargs, scale=self.kwargs['scale'][rows])
        if self.same:
            itself = (image == 0).all(1).nonzero()[:, 0]
            kwargs['skip'] = itself[rows]
        search = Search(images, self.target.take(rows), **kwargs)
        return search, index, image

    def _result(self, edges: Edges, rows: Tensor, index: Tensor,
                image: Tensor) -> tuple[Edges, Tensor]:
        row, col = rows[edges.row], index[edges.col]
        offset = image[edges.col] + self.moved[col] - self.target_moved[row]
        return edges._replace(row=row, col=col), offset
