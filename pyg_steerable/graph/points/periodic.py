"""Periodic boundaries: the images of points in a crystal."""
from __future__ import annotations

import math
from itertools import permutations

import torch
from torch import Tensor

from ... import checks
from .clouds import Clouds, safe_exponent
from .search import Edges, Search

#: By which coordinates, relative to the largest, may be wrong.
MARGIN = 1e-12
#: Images that are looked at together: so many, and more for each source.
MAX_IMAGES, MAX_IMAGES_EACH = 2**22, 8
#: Cells by which a point may be away from the first: beyond, float64 does
#: not say where in a cell it is.
MAX_CELLS = 2**48
#: The least volume of a cell, relative to a cuboid of these sides.
MIN_VOLUME = 1e-9
#: Larger coordinates, and sides of cells, have no squares.
MAX_LENGTH = 1e120


class Cells:
    r"""The cells of some clouds: lattice vectors as rows
    :math:`[B, D, D]`, and the axes along which they repeat :math:`[B, D]`.

    A lattice has many cells. Searches use the compact one :obj:`basis @
    cell`: within a distance it has the fewest images.
    """
    def __init__(self, cell: Tensor, pbc: Tensor):
        self.pbc = pbc
        # Of the other axes nothing is asked.
        cell = cell.where(pbc[..., None], 0)
        self.cell, self.basis = _compact(cell)
        self.turns = self.cell is not cell
        side = self.cell.norm(dim=2).where(pbc, 1)
        inverse = torch.linalg.pinv(self.cell / side[..., None])
        self.inverse = (inverse / side[:, None]).where(pbc[:, None], 0)
        # Between opposite faces: no shorter way leads from image to image.
        self.height = (side / inverse.norm(dim=1)).where(pbc, torch.inf)
        # The axis of largest height comes last, after it only those that do
        # not repeat.
        self.order = self.height.argsort(dim=1, stable=True)
        rows = self.cell.gather(1, self.order[..., None].expand_as(self.cell))
        self.turn, upper = torch.linalg.qr(rows.mT)
        self.triangle = upper.mT
        # Directions are free: steps along them are positive.
        sign = self.triangle.diagonal(dim1=1, dim2=2).sign()
        sign = sign.where(pbc.gather(1, self.order), 1)
        self.turn, self.triangle = (t * sign[:, None] for t in (
            self.turn, self.triangle))

    def fraction(self, clouds: Clouds) -> Tensor:
        return (clouds.pos[:, None] @ self.inverse[clouds.batch])[:, 0]

    def move(self, clouds: Clouds, image: Tensor) -> Clouds:
        return clouds.replace(_combine(clouds.pos, image,
                                       self.cell[clouds.batch]))

    def wrap(self, clouds: Clouds, name: str) -> tuple[Clouds, Tensor]:
        """The points inside their cells, and how they were moved, in the
        user's lattice vectors.
        """
        fraction = self.fraction(clouds)
        far = fraction.abs().amax(1)
        if bool((far >= MAX_CELLS).any()):
            raise ValueError(f"Expected '{name}' to be less than {MAX_CELLS} "
                             f"cells away from the origin (got "
                             f"{float(far.max()):.3g}). Move the points into "
                             f"the cell")
        moved = -fraction.floor().long()
        return self.move(clouds, moved), self.given(moved, clouds.batch)

    def given(self, image: Tensor, batch: Tensor) -> Tensor:
        """Multiples of the lattice vectors that the user gave."""
        if not self.turns:
            return image
        return (image[:, :, None] * self.basis[batch]).sum(1)

    def images(self, source: Clouds, target: Clouds, reach: Tensor,
               name: str, fraction: float = 0.
               ) -> tuple[Clouds, Tensor, Tensor]:
        r"""The images of sources that may lie within :obj:`reach`
        :math:`[B]` of a target, or in a box around it that is at least a
        :obj:`fraction` of a cell wide; with the source that each is an image
        of, and the cell that it lies in, in the user's lattice vectors,
        :math:`[N', D]`. They are sorted by source, then by cell.

        Axis by axis, in coordinates in which the cell is a triangle: what
        one axis takes of the reach is lost for the next ones (U. Fincke and
        M. Pohst, "Improved methods for calculating vectors of short length in
        a lattice", 1985).
        """
        low, high = self._box(target)
        # Coordinates are rounded; without targets there is nothing.
        size = (torch.maximum(low.abs(), high.abs()).amax(1) +
                self.triangle.abs().amax((1, 2)))
        known = size < torch.inf
        slack = (MARGIN * (size + source.largest())).where(known, 0)
        index = known[source.batch].nonzero()[:, 0]
        pos = self._turned(source)[index]
        image = source.batch.new_zeros(len(index), pos.shape[1])
        square = ((reach * (1 + MARGIN)) + slack)[source.batch[index]].square()
        for axis in reversed(range(pos.shape[1])):
            batch = source.batch[index]
            side, at = self.triangle[batch, axis, axis], pos[:, axis]
            repeats = side > 0
            side = side.where(repeats, 1)
            below, above = low[batch, axis], high[batch, axis]
            far = torch.maximum(square.sqrt(), fraction * side)
            first = ((below - far - at) / side).ceil().where(repeats, 0)
            last = ((above + far - at) / side).floor().where(repeats, 0)
            count = (last - first + 1).clamp(min=0)
            self._refuse_too_many(source, float(count.sum()), name)
            count = count.long()
            copy = torch.arange(len(index), device=index.device)
            copy = copy.repeat_interleave(count)
            step = torch.arange(len(copy), device=index.device)
            step = step - (count.cumsum(0) - count - first.long())[copy]
            index, image, batch = index[copy], image[copy], batch[copy]
            image[:, axis] = step
            pos = pos[copy] + step[:, None] * self.triangle[batch, axis]
            square = square[copy]
            if fraction:
                continue
            gap = torch.maximum(below[copy] - pos[:, axis],
                                pos[:, axis] - above[copy])
            square = square - (gap - slack[batch]).clamp(min=0).square()
            keep = square >= 0
            if not bool(keep.all()):
                index, image, pos, square = (
                    t[keep] for t in (index, image, pos, square))
        image = torch.empty_like(image).scatter_(
            1, self.order[source.batch[index]], image)
        moved = self.move(source.take(index), image)
        image = self.given(image, source.batch[index])
        order = torch.arange(len(index), device=index.device)
        for key in (*image.t().flip(0), index):
            order = order[key[order].argsort(stable=True)]
        return moved.take(order), index[order], image[order]

    def _turned(self, clouds: Clouds) -> Tensor:
        """Coordinates in which the cell is a triangle."""
        return (clouds.pos[:, None] @ self.turn[clouds.batch])[:, 0]

    def _box(self, clouds: Clouds) -> tuple[Tensor, Tensor]:
        """The least and the largest of these coordinates, cloud by cloud."""
        pos = self._turned(clouds)
        batch = clouds.batch[:, None].expand_as(pos)
        start = torch.full_like(self.cell[:, 0], torch.inf)
        return (start.scatter_reduce(0, batch, pos, 'amin'),
                (-start).scatter_reduce(0, batch, pos, 'amax'))

    @staticmethod
    def _refuse_too_many(source: Clouds, images: float, name: str) -> None:
        limit = MAX_IMAGES + MAX_IMAGES_EACH * len(source)
        if not images <= limit:
            raise ValueError(
                f"Expected '{name}' and 'cell' such that at most {limit} "
                f"periodic images are within reach (got {images:.3g} or "
                f"more). Lower '{name}'")


def read_cells(cell, pbc, pair: tuple[Clouds, Clouds], names: tuple[str, str]
               ) -> tuple[Cells, Tensor]:
    """The cells that a user gives for clouds, and the powers of two by which
    they are scaled.
    """
    source = pair[0]
    dim, size, device = source.pos.shape[1], source.size, source.pos.device
    cell = _read(cell, torch.float64, device, 'cell', 'a tensor of floats')
    if cell.shape not in ((dim, dim), (size, dim, dim)):
        raise ValueError(f"Expected 'cell' of shape [{dim}, {dim}] or, for "
                         f"{size} clouds, [{size}, {dim}, {dim}] (got "
                         f"{list(cell.shape)})")
    checks.finite('cell', cell)
    cell, pbc = cell.expand(size, dim, dim), read_pbc(pbc, source)
    side = cell.abs().amax(2)
    unit = torch.nn.functional.normalize(
        (cell / side[..., None]).where((pbc & (side > 0))[..., None], 0),
        dim=2)
    # In the space of the axes that repeat.
    length = torch.linalg.svdvals(unit)
    axes = torch.arange(dim, device=device)
    volume = length.where(axes < pbc.sum(1, keepdim=True), 1).prod(1)
    if not bool((volume > MIN_VOLUME).all()):
        bad = int((volume <= MIN_VOLUME).nonzero()[0])
        raise ValueError(f"Expected 'cell' to have a volume (got "
                         f"{cell[bad].tolist()}). Along an axis that does "
                         f"not repeat, 'pbc' is False and any vector will do")
    shortest = side.where(pbc, torch.inf).amin(1)
    largest = torch.maximum(*(c.largest() for c in pair))
    power = safe_exponent(shortest.where(pbc.any(1), largest))
    cell = cell.ldexp(power[:, None, None])
    for name, length in (('cell', side.where(pbc, 0).amax(1)),
                         *((n, c.largest()) for n, c in zip(names, pair))):
        length = float(length.ldexp(power).max())
        if not length < MAX_LENGTH:
            raise ValueError(f"Expected '{name}' to be less than "
                             f"{MAX_LENGTH:g} times as large as the shortest "
                             f"side of 'cell', or one (got {length:.3g})")
    return Cells(cell, pbc), power


def read_pbc(pbc, clouds: Clouds) -> Tensor:
    """Along which axes the cell of each cloud repeats, [B, D]."""
    dim, size = clouds.pos.shape[1], clouds.size
    pbc = _read(pbc, torch.bool, clouds.pos.device, 'pbc',
                'True, False or one for each axis')
    if pbc.shape not in ((), (dim, ), (size, dim)):
        raise ValueError(f"Expected 'pbc' of shape [], [{dim}] or, for {size} "
                         f"clouds, [{size}, {dim}] (got {list(pbc.shape)})")
    return pbc.expand(size, dim)


def _read(value, dtype: torch.dtype, device, name: str, what: str) -> Tensor:
    """A tensor from one of a user's, an array, a list or a value."""
    try:
        found = torch.as_tensor(value)
    except Exception as error:  # whatever as_tensor cannot read
        raise TypeError(f"Expected '{name}' to be {what} (got "
                        f"{checks.show(value)})") from error
    dtypes = (torch.bool, ) if dtype == torch.bool else (*checks.FLOATING,
                                                         *checks.INTEGERS)
    checks.tensor(name, found, dtypes, what)
    checks.has_values(name, found, 'the graph')
    return found.detach().to(device, dtype)


def _compact(cell: Tensor) -> tuple[Tensor, Tensor]:
    """A cell of the same lattice in which no vector gets shorter by others,
    and its basis: integers, :obj:`basis @ cell`.
    """
    size, dim = cell.shape[:2]
    eye = torch.eye(dim, dtype=torch.long, device=cell.device)
    basis, given = eye.repeat(size, 1, 1), cell
    changed = True
    while changed:
        changed = False
        for i, j in permutations(range(dim), 2):
            square = cell[:, j].square().sum(1)
            times = (cell[:, i] * cell[:, j]).sum(1) / square
            times = times.round().where(times.abs() < MAX_CELLS, 0)
            shorter = cell[:, i] - times[:, None] * cell[:, j]
            better = (shorter.square().sum(1) <
                      cell[:, i].square().sum(1) * (1 - 1e-6))
            if bool(better.any()):
                times = times.where(better, 0).long()
                basis[:, i] -= times[:, None] * basis[:, j]
                rows = given[:, None].expand(-1, dim, -1, -1).flatten(0, 1)
                cell = _combine(torch.zeros_like(rows[:, 0]),
                                basis.flatten(0, 1), rows).view_as(given)
                changed = True
    return cell, basis


def _combine(start: Tensor, times: Tensor, vectors: Tensor) -> Tensor:
    r"""Sums :math:`\mathbf{s} + \sum_a t_a \mathbf{v}_a` of rows, start
    :math:`[N, D]`, times :math:`[N, A]` and vectors :math:`[N, A, D]`, as if
    they were rounded once: what is lost is kept in a second number (T. J.
    Dekker, "A floating-point technique for extending the available
    precision", 1971).
    """
    total, lost = start, torch.zeros_like(start)
    for n, vector in zip(times.double().t(), vectors.unbind(1)):
        n = n[:, None]
        product = n * vector
        (a, b), (c, d) = _halves(n), _halves(vector)
        lost = lost + (((a * c - product) + a * d + b * c) + b * d)
        new = total + product
        part = new - total
        lost = lost + ((total - (new - part)) + (product - part))
        total = new
    return total + lost


def _halves(number: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers of half as many digits, with the same sum."""
    large = number * (2**27 + 1)
    high = large - (large - number)
    return high, number - high


class PeriodicSearch:
    r"""Neighbours of targets among the images of sources; like
    :class:`~.search.Search`, with the image of each neighbour.
    """
    def __init__(self, cells: Cells, source: Clouds, target: Clouds,
                 same: bool, names: tuple[str, str], **kwargs):
        self.cells, self.same, self.kwargs = cells, same, kwargs
        self.source, self.moved = cells.wrap(source, names[0])
        self.target, self.target_moved = cells.wrap(target, names[1])

    def nearest(self, k: int) -> tuple[Edges, Tensor]:
        count = self.source.count
        endless = self.cells.pbc.any(1) & (count > 0)
        # A box of this size holds more images than needed: those of the point
        # itself along the shortest axes, or of all, if they are spread
        # evenly.
        axes = torch.arange(1, self.cells.pbc.shape[1] + 1,
                            device=count.device)
        height = self.cells.height.log().sort(1).values.cumsum(1)
        spread = axes == self.cells.pbc.sum(1, keepdim=True)
        needed = math.log(k + 2) - torch.where(
            spread, count.clamp(min=1)[:, None], 1).log()
        reach = ((height + needed) / axes).exp().amin(1)
        reach = reach.where(endless, torch.inf)
        rows = torch.arange(len(self.target), device=count.device)
        known = torch.full((len(rows), ), torch.inf, dtype=reach.dtype,
                           device=rows.device)
        found, fraction = [], 0.
        while True:
            search, index, image = self._search(reach, rows, 'k', fraction)
            edges = search.nearest(k)
            batch = search.target.batch
            last = edges.where(edges.place == k - 1)
            # All that is as far as the last one must be there, ties too.
            far = torch.full_like(reach[batch], torch.inf)
            far[last.row] = last.dist * (1 + 4 * search.tolerance)
            done = ~endless[batch] | (far <= reach[batch])
            kept = edges.where(done[edges.row])
            found.append(self._result(kept, rows, index, image))
            if bool(done.all()):
                break
            # The k nearest of some images are not farther than these, once
            # there are k: they are sought half a cell around a target too.
            known[rows] = known[rows].minimum(far)
            rows, batch = rows[~done], batch[~done]
            farthest = torch.zeros_like(reach).scatter_reduce(
                0, batch, known[rows], 'amax')
            # It ends, for the number of images is bounded.
            reach = farthest.minimum(1.5 * reach)
            fraction = .6 if bool((farthest == torch.inf).any()) else 0.
        edges = Edges(*map(torch.cat, zip(*(e for e, _ in found))))
        offset = torch.cat([o for _, o in found])
        order = edges.row.argsort(stable=True)
        return edges.where(order), offset[order]

    def within(self, r: Tensor, cap: int | None):
        rows = torch.arange(len(self.target), device=r.device)
        # Rounding may count a source as near that is a little farther.
        reach = r.new_zeros(self.source.size).scatter_reduce(
            0, self.target.batch, r * (1 + MARGIN), 'amax')
        search, index, image = self._search(reach, rows, 'r')
        edges, capped = search.within(r, cap)
        return self._result(edges, rows, index, image), capped

    def _search(self, reach: Tensor, rows: Tensor, name: str,
                fraction: float = 0.):
        target = self.target.take(rows)
        images, index, image = self.cells.images(self.source, target, reach,
                                                 name, fraction)
        skip = None
        if self.same:
            itself = (image == 0).all(1).nonzero()[:, 0]
            skip = index.new_full((len(self.source), ), -1)
            skip = skip.scatter(0, index[itself], itself)[rows]
        return Search(images, target, skip=skip, **self.kwargs), index, image

    def _result(self, edges: Edges, rows: Tensor, index: Tensor,
                image: Tensor) -> tuple[Edges, Tensor]:
        row, col = rows[edges.row], index[edges.col]
        offset = image[edges.col] + self.moved[col] - self.target_moved[row]
        return edges._replace(row=row, col=col), offset
