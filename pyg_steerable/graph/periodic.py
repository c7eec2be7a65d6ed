"""Periodic boundaries: the images of points in a crystal."""
from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from .. import checks
from .clouds import Clouds, safe_exponent
from .search import Edges, Search

#: By which a fractional coordinate may miss its cell.
MARGIN = 1e-6
#: Images that are looked at together: so many, and more for each source.
MAX_IMAGES, MAX_IMAGES_EACH = 2**22, 8
#: Cells by which a point may be away from the first: beyond, float64 does
#: not say where in a cell it is.
MAX_CELLS = 2**48
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
        self.is_compact = self.cell is cell
        side = self.cell.norm(dim=2).where(pbc, 1)
        inverse = torch.linalg.pinv(self.cell / side[..., None])
        self.inverse = (inverse / side[:, None]).where(pbc[:, None], 0)
        # Between opposite faces: no shorter way leads from image to image.
        self.height = (side / inverse.norm(dim=1)).where(pbc, torch.inf)

    def fraction(self, clouds: Clouds) -> Tensor:
        return (clouds.pos[:, None] @ self.inverse[clouds.batch])[:, 0]

    def move(self, clouds: Clouds, image: Tensor) -> Clouds:
        return clouds.replace(_combine(clouds.pos, image,
                                       self.cell[clouds.batch]))

    def wrap(self, clouds: Clouds, name: str) -> tuple[Clouds, Tensor]:
        """The points inside their cells, and how often they were moved."""
        fraction = self.fraction(clouds)
        far = fraction.abs().amax(1)
        if bool((far >= MAX_CELLS).any()):
            raise ValueError(f"Expected '{name}' to be less than {MAX_CELLS} "
                             f"cells away from the origin (got "
                             f"{float(far.max()):.3g}). Move the points into "
                             f"the cell")
        moved = -fraction.floor().long()
        return self.move(clouds, moved), moved

    def given(self, image: Tensor, batch: Tensor) -> Tensor:
        """Images in multiples of the lattice vectors that the user gave."""
        return (image[:, :, None] * self.basis[batch]).sum(1)

    def images(self, source: Clouds, target: Clouds, reach: Tensor,
               name: str) -> tuple[Clouds, Tensor, Tensor]:
        r"""The images of wrapped sources that may lie within :obj:`reach`
        :math:`[B]` of a wrapped target; with the source that each is an image
        of, and the cell that it lies in, :math:`[N', D]`. They are sorted by
        source and by the cell in the user's terms.
        """
        least, most = self._box(target)
        known = self.pbc & (least <= most)  # not without targets
        far = reach[:, None] / self.height * (1 + MARGIN) + MARGIN
        least, most = (t.where(known, 0) for t in (least - far, most + far))
        self._refuse_too_many(source, most - least, name)
        fraction = self.fraction(source).where(known[source.batch], 0)
        index = torch.arange(len(source), device=fraction.device)
        image = source.batch.new_zeros(len(source), 0)
        for axis in range(self.pbc.shape[1]):
            at, batch = fraction[index, axis], source.batch[index]
            low = (least[batch, axis] - at).ceil().long()
            high = (most[batch, axis] - at).floor().long()
            count = high - low + 1
            copy = torch.arange(len(index), device=index.device)
            copy = copy.repeat_interleave(count)
            step = torch.arange(len(copy), device=index.device)
            step = step - (count.cumsum(0) - count - low)[copy]
            index = index[copy]
            image = torch.cat([image[copy], step[:, None]], 1)
        if not self.is_compact:
            key = self.given(image, source.batch[index])
            order = torch.arange(len(index), device=index.device)
            for column in (*key.t().flip(0), index):
                order = order[column[order].argsort(stable=True)]
            index, image = index[order], image[order]
        return self.move(source.take(index), image), index, image

    def _box(self, clouds: Clouds) -> tuple[Tensor, Tensor]:
        """The least and the largest fractional coordinates of each cloud."""
        fraction = self.fraction(clouds)
        batch = clouds.batch[:, None].expand_as(fraction)
        start = torch.full_like(self.height, torch.inf)
        return (start.scatter_reduce(0, batch, fraction, 'amin'),
                (-start).scatter_reduce(0, batch, fraction, 'amax'))

    @staticmethod
    def _refuse_too_many(source: Clouds, extent: Tensor, name: str) -> None:
        images = float((source.count * (1 + extent).prod(1)).sum())
        limit = MAX_IMAGES + MAX_IMAGES_EACH * len(source)
        if not images <= limit:
            raise ValueError(
                f"Expected '{name}' and 'cell' such that at most {limit} "
                f"periodic images are within reach (got about {images:.3g}). "
                f"Lower '{name}'")


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
    pbc = _read(pbc, torch.bool, device, 'pbc', 'True, False or one for each '
                'axis')
    if pbc.shape not in ((), (dim, ), (size, dim)):
        raise ValueError(f"Expected 'pbc' of shape [], [{dim}] or, for {size} "
                         f"clouds, [{size}, {dim}] (got {list(pbc.shape)})")
    cell, pbc = cell.expand(size, dim, dim), pbc.expand(size, dim)
    side = cell.abs().amax(2)
    unit = torch.nn.functional.normalize(
        (cell / side[..., None]).where((pbc & (side > 0))[..., None], 0),
        dim=2)
    # Squared, in the space of the axes that repeat.
    volume = (unit @ unit.mT + torch.diag_embed((~pbc).double())).det()
    if not bool((volume > 1e-12).all()):
        bad = int((volume <= 1e-12).nonzero()[0])
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
                      cell[:, i].square().sum(1) * (1 - MARGIN))
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
        # A box of this size holds more images than needed, if they are spread
        # evenly along the shortest axes, be it one, two or all.
        axes = torch.arange(1, self.cells.pbc.shape[1] + 1,
                            device=count.device)
        height = self.cells.height.log().sort(1).values.cumsum(1)
        images = ((k + 2) / count.clamp(min=1)).log()[:, None]
        reach = ((height + images) / axes).exp().amin(1).where(endless, 0)
        rows = torch.arange(len(self.target), device=count.device)
        found = []
        while True:
            search, index, image = self._search(reach, rows, 'k')
            edges = search.nearest(k)
            last = edges.where(edges.place == k - 1)
            # All that is as far as the last one must be there, ties too.
            far = last.dist * (1 + 4 * search.tolerance)
            done = ~endless[search.target.batch]
            done[last.row] |= far <= reach[search.target.batch[last.row]]
            kept = edges.where(done[edges.row])
            found.append(self._result(kept, rows, index, image))
            rows = rows[~done]
            if not len(rows):
                break
            again = torch.zeros_like(endless)
            again[self.target.batch[rows]] = True
            # Ends: the number of images is bounded.
            reach = torch.where(again, 1.5 * reach, 0)
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

    def _search(self, reach: Tensor, rows: Tensor, name: str):
        target = self.target.take(rows)
        images, index, image = self.cells.images(self.source, target, reach,
                                                 name)
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
        return edges._replace(row=row, col=col), self.cells.given(
            offset, self.source.batch[col])
