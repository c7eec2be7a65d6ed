r"""Neighbours of points: the functions of PyG, with a choice of engines.

.. code-block:: python

    from pyg_steerable.graph import knn_graph, radius_graph

    edge_index = knn_graph(pos, k=16, batch=batch)
    edge_index, offset = radius_graph(pos, r=5.0, batch=batch, cell=cell)

They take the arguments of :mod:`torch_geometric.nn.pool` in the same order
and return the same edges, with these differences:

* **Order.** Edges are grouped by target (the element that neighbours are
  searched for), the nearest first.
* **Distances** are those of the numbers given, which may have any floating
  dtype: differences are taken in float64, where they are exact for all shorter
  ones. The distance from the origin does not matter; but where the numbers
  themselves are too coarse for the spacing of the points, as float32 is in
  geographic coordinates, a warning says so.
* **Ties.** Around a node, distances are equal if they exceed the smallest
  among them by no more than their own rounding in float64, :math:`8
  \epsilon d` (:math:`D \epsilon d` in more than 8 dimensions). Then the node
  of smaller index comes first, and a radius includes the points that are so
  close to its sphere. Rotating a cloud rounds its numbers: its graph stays the
  same if no two of the distances that decide are closer than that, which holds
  for clouds in general. In a rotated lattice it does not: there, choose a
  radius between two shells of neighbours, and a :obj:`k` that fills a shell.
* **Batches** need not be sorted.
* **Caps.** There is none unless :obj:`max_num_neighbors` is given. One that
  binds keeps the nearest neighbours, and warns. So does a :obj:`k` larger
  than a cloud, whose nodes get all neighbours there are.
* **Periodic boundaries.** With :obj:`cell`, images of a point count as
  neighbours, those of the point itself too, and the cells that they lie in
  are returned: the neighbour j of i is at :obj:`pos[j] + offset @ cell`. At
  most 4 million images, and 8 for each point, are looked at: beyond, a
  ValueError says so.
* **Engines**: :obj:`'scipy'` (k-d trees; on the CPU the first choice),
  :obj:`'pyg_lib'`, :obj:`'torch_cluster'` (first choices on a GPU, as far as
  they are installed), and :obj:`'torch'` (brute force on any device: memory
  linear in the points, time quadratic). All give the same graph.

Indices have no gradients: positions are detached. ``torch.compile`` leaves
searches out: it breaks the graph there.
"""
from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import checks
from .clouds import Clouds, read_clouds, safe_exponent
from .engines import choose_engine
from .periodic import PeriodicSearch, read_cells, read_pbc
from .search import Edges, Search

#: What a user may ask for at most.
MAX_COUNT, MAX_WORKERS = 2**48, 4096
#: Points are far apart if so many numbers of their dtype are in between.
FEW_STEPS = 8
#: The frame of the user's call, seen from :func:`_warn`: the wrapper of
#: :func:`torch.compiler.disable` is one of those in between.
_STACK_LEVEL = 5


def knn(x: Tensor, y: Tensor, k: int, batch_x: Tensor | None = None,
        batch_y: Tensor | None = None, cosine: bool = False,
        num_workers: int | None = None, batch_size: int | None = None, *,
        cell: Tensor | None = None, pbc: bool | Sequence[bool] = True,
        engine: str = 'auto') -> Tensor | tuple[Tensor, Tensor]:
    r"""The :obj:`k` nearest points of :obj:`x` for each element of
    :obj:`y`, or all points of its cloud if they are fewer, which warns.

    Args:
        x (torch.Tensor): Positions, of any floating dtype.
        y (torch.Tensor): Positions, as wide.
        k (int): The number of neighbours.
        batch_x (torch.Tensor, optional): The cloud of each point of
            :obj:`x`, in any order. (default: :obj:`None`)
        batch_y (torch.Tensor, optional): The cloud of each element of
            :obj:`y`. (default: :obj:`None`)
        cosine (bool, optional): Compare directions instead of positions.
            (default: :obj:`False`)
        num_workers (int, optional): Threads of an engine that has its own.
            (default: as many as torch uses)
        batch_size (int, optional): The number of clouds. (default: one more
            than the largest entry of the batches)
        cell (torch.Tensor, optional): Lattice vectors as rows, one cell
            :math:`[D, D]` or one for each cloud :math:`[B, D, D]`.
            (default: :obj:`None`)
        pbc (bool or list, optional): The axes along which cells repeat:
            one value, one for each axis, or :math:`[B, D]`.
            (default: :obj:`True`)
        engine (str, optional): (default: :obj:`'auto'`)

    Shapes:
        - **x:** :math:`[N, D]`, **y:** :math:`[M, D]`
        - **output:** :math:`[2, E]`, indices of :obj:`y`, then of
          :obj:`x`; with a cell also the offsets of the images,
          :math:`[E, D]`

    Raises:
        ValueError: If a number, a shape or a batch does not fit, a position
            is not finite, or a cell has no volume.
        ImportError: If an engine is named that is not installed.
    """
    return _neighbors(x, y, batch_x, batch_y, batch_size, num_workers, engine,
                      cell, pbc, k=_read_k(k), cosine=cosine)


def knn_graph(x: Tensor, k: int, batch: Tensor | None = None,
              loop: bool = False, flow: str = 'source_to_target',
              cosine: bool = False, num_workers: int | None = None,
              batch_size: int | None = None, *, cell: Tensor | None = None,
              pbc: bool | Sequence[bool] = True, engine: str = 'auto'
              ) -> Tensor | tuple[Tensor, Tensor]:
    r"""Edges from the :obj:`k` nearest points to each point.

    Args:
        x (torch.Tensor): Positions, of any floating dtype.
        k (int): The number of neighbours.
        batch (torch.Tensor, optional): The cloud of each point, in any
            order. (default: :obj:`None`)
        loop (bool, optional): Whether a point is its own neighbour. Its
            periodic images always are. (default: :obj:`False`)
        flow (str, optional): :obj:`'target_to_source'` swaps the rows of
            the output. (default: :obj:`'source_to_target'`)
        cosine, num_workers, batch_size, cell, pbc, engine: As in
            :func:`knn`.

    Shapes:
        - **x:** :math:`[N, D]`
        - **output:** :math:`[2, E]`, neighbours, then the points they belong
          to; with a cell also the offsets of the neighbours, :math:`[E, D]`

    Raises:
        ValueError: As in :func:`knn`.
    """
    return _flow(flow, _neighbors(
        x, None, batch, None, batch_size, num_workers, engine, cell, pbc,
        k=_read_k(k), cosine=cosine,
        loop=checks.flag('loop', loop)))


def radius(x: Tensor, y: Tensor, r: float, batch_x: Tensor | None = None,
           batch_y: Tensor | None = None,
           max_num_neighbors: int | None = None,
           num_workers: int | None = None, batch_size: int | None = None, *,
           cell: Tensor | None = None, pbc: bool | Sequence[bool] = True,
           engine: str = 'auto') -> Tensor | tuple[Tensor, Tensor]:
    r"""The points of :obj:`x` within distance :obj:`r` of each element of
    :obj:`y`, the sphere included.

    Args:
        x (torch.Tensor): Positions, of any floating dtype.
        y (torch.Tensor): Positions, as wide.
        r (float): The radius.
        max_num_neighbors (int, optional): Keep only so many, the nearest,
            and warn if there are more. (default: :obj:`None`, all)
        batch_x, batch_y, num_workers, batch_size, cell, pbc, engine: As in
            :func:`knn`.

    Shapes:
        - **x:** :math:`[N, D]`, **y:** :math:`[M, D]`
        - **output:** :math:`[2, E]`, indices of :obj:`y`, then of
          :obj:`x`; with a cell also the offsets of the images,
          :math:`[E, D]`

    Raises:
        ValueError: If the radius is not a positive number, and as in
            :func:`knn`.
    """
    return _neighbors(x, y, batch_x, batch_y, batch_size, num_workers, engine,
                      cell, pbc, r=checks.positive('r', r),
                      cap=max_num_neighbors)


def radius_graph(x: Tensor, r: float, batch: Tensor | None = None,
                 loop: bool = False, max_num_neighbors: int | None = None,
                 flow: str = 'source_to_target',
                 num_workers: int | None = None,
                 batch_size: int | None = None, *,
                 cell: Tensor | None = None,
                 pbc: bool | Sequence[bool] = True, engine: str = 'auto'
                 ) -> Tensor | tuple[Tensor, Tensor]:
    r"""Edges to each point from all points within distance :obj:`r`, the
    sphere included.

    Args:
        x (torch.Tensor): Positions, of any floating dtype.
        r (float): The radius.
        batch, loop, flow: As in :func:`knn_graph`.
        max_num_neighbors: As in :func:`radius`.
        num_workers, batch_size, cell, pbc, engine: As in :func:`knn`.

    Shapes:
        - **x:** :math:`[N, D]`
        - **output:** :math:`[2, E]`, neighbours, then the points they belong
          to; with a cell also the offsets of the neighbours, :math:`[E, D]`

    Raises:
        ValueError: As in :func:`radius`.
    """
    return _flow(flow, _neighbors(
        x, None, batch, None, batch_size, num_workers, engine, cell, pbc,
        r=checks.positive('r', r), cap=max_num_neighbors,
        loop=checks.flag('loop', loop)))


def nearest(x: Tensor, y: Tensor, batch_x: Tensor | None = None,
            batch_y: Tensor | None = None, *,
            engine: str = 'auto') -> Tensor:
    r"""The nearest element of :obj:`y` for each point of :obj:`x`, which so
    divides :obj:`x` into clusters. Of equally near ones it is the first.

    Args:
        x (torch.Tensor): Positions, of any floating dtype.
        y (torch.Tensor): Positions, as wide.
        batch_x, batch_y, engine: As in :func:`knn`.

    Shapes:
        - **x:** :math:`[N, D]`, **y:** :math:`[M, D]`
        - **output:** :math:`[N]`, indices of :obj:`y`

    Raises:
        ValueError: If a cloud with points in :obj:`x` has none in
            :obj:`y`, and as in :func:`knn`.
    """
    row, col = _neighbors(y, x, batch_y, batch_x, None, None, engine, k=1,
                          names=('y', 'x'))
    if len(row) < len(x):
        raise ValueError("Expected a point in 'y' for each cloud that has "
                         "points in 'x' (got a cloud without). Drop its "
                         "points from 'x'")
    return col


@torch.compiler.disable
def _neighbors(x, y, batch_x, batch_y, batch_size, num_workers, engine,
               cell=None, pbc=True, *, k=None, r=None, cap=None,
               cosine=False, loop=None, names=('x', 'y')):
    """The pairs (y, x), and their offsets if there is a cell. If there is a
    loop or none, but not :obj:`None`, these are the pairs (x, x).
    """
    same = loop is not None
    cosine = checks.flag('cosine', cosine)
    workers = (torch.get_num_threads() if num_workers is None else
               checks.integer('num_workers', num_workers, 1, MAX_WORKERS))
    if cap is not None:
        cap = checks.integer('max_num_neighbors', cap, 1, MAX_COUNT)
    if batch_size is None and isinstance(cell, Tensor) and cell.dim() == 3:
        batch_size = len(cell)
    (source, source_order), (target, target_order) = _read_pair(
        x, y, batch_x, batch_y, batch_size, names, same)
    if cosine:
        if cell is not None:
            raise ValueError("Expected no 'cell' with 'cosine' (got both): "
                             "directions do not repeat")
        source = _directions(names[0], source)
        target = source if same else _directions(names[1], target)

    if cell is None:
        read_pbc(pbc, source)  # not needed, but no typing error passes
        power = safe_exponent(torch.maximum(source.largest(),
                                            target.largest()))
    else:
        cells, power = read_cells(cell, pbc, (source, target), names)
    source, target = (c.times_two_to(power) for c in (source, target))
    options = {'workers': workers, 'engine': choose_engine(
        engine, source.pos.device, source.pos.shape[1])}
    if cell is None:
        skip = None
        if same and not loop:
            skip = torch.arange(len(source), device=source.pos.device)
        search: Any = Search(source, target, skip=skip, **options)
    else:
        search = PeriodicSearch(cells, source, target, same and not loop,
                                names, **options)
    if r is None:
        edges = search.nearest(k)
    else:
        # Its square must be finite, and nothing is farther than that.
        length = target.pos.new_full((len(target), ), r)
        length = length.ldexp(power[target.batch]).clamp(max=1e150)
        edges, capped = search.within(length, cap)
        if capped:
            _warn(f'Some nodes have more than max_num_neighbors={cap} '
                  f'neighbors: only the nearest are kept. Points j and i may '
                  f'then be connected one way only')
    edges, offset = edges if cell is not None else (edges, None)
    if r is None and len(edges.row) < k * len(target):
        _warn(f'Some clouds have fewer than k={k} neighbors to offer: their '
              f'nodes get all that there are')
    if not cosine and _is_coarse(edges, (target, source),
                                 (x if same else y, x)):
        _warn('The points are about as far apart as neighboring numbers of '
              'their dtype at their distance from the origin: which are near '
              'depends on how they were rounded. Subtract the center before '
              'you convert positions to this dtype')
    row, col = edges.row, edges.col
    if source_order is not None:
        col = source_order[col]
    if target_order is not None:
        row, order = target_order[row].sort(stable=True)
        col = col[order]
        offset = None if offset is None else offset[order]
    edge_index = torch.stack([row, col])
    return edge_index if offset is None else (edge_index, offset)


def _read_pair(x, y, batch_x, batch_y, size, names, same):
    """Sources and targets, with their orders."""
    if same:
        source = read_clouds(names[0], 'batch', x, batch_x, size)
        return source, source
    if (batch_x is None) != (batch_y is None):
        raise ValueError("Expected both 'batch_x' and 'batch_y', or neither "
                         "(got one)")
    pair = [read_clouds(n, f'batch_{n}', p, batch, size)
            for n, p, batch in zip(names, (x, y), (batch_x, batch_y))]
    (s, _), (t, _) = pair
    if s.pos.shape[1] != t.pos.shape[1]:
        raise ValueError(f"Expected '{names[0]}' and '{names[1]}' of the same "
                         f"width (got {s.pos.shape[1]} and "
                         f"{t.pos.shape[1]})")
    checks.same_device(**dict(zip(names, (s.pos, t.pos))))
    size = max(s.size, t.size)
    return [(Clouds(c.pos, c.batch, size), order) for c, order in pair]


def _read_k(k) -> int:
    return checks.integer('k', k, 1, MAX_COUNT)


def _is_coarse(edges: Edges, clouds, given) -> bool:
    """Whether the nearest neighbours of some targets are no more than a few
    numbers of their dtype away.
    """
    row, col, dist, _ = edges
    if not len(row):
        return False
    some = torch.linspace(0, len(clouds[0]) - 1, 4096, device=row.device)
    # The last of their first few edges, for a point may be on top of another,
    # and a target close to its source.
    first = torch.searchsorted(row.contiguous(), some.long().unique())
    first = first.clamp(max=len(row) - 1)[:, None]
    at = (first + torch.arange(8, device=row.device)).clamp(max=len(row) - 1)
    at = at.where(row[at] == row[first], -1).amax(1)
    at = at[(at > first[:, 0]) & (dist[at] > 0)]
    step = torch.stack([c.pos[i[at]].abs().amax(1) *
                        torch.finfo(p.dtype).eps
                        for c, p, i in zip(clouds, given, (row, col))])
    coarse = dist[at] < FEW_STEPS * step.amax(0)
    # A few points may be that close anywhere.
    return bool(coarse.double().sum() > .1 * len(coarse))


def _flow(flow: str, edges):
    checks.choice('flow', flow, ('source_to_target', 'target_to_source'))
    if flow == 'target_to_source':
        return edges
    if isinstance(edges, tuple):
        return edges[0].flip(0), edges[1]
    return edges.flip(0)


def _directions(name: str, clouds: Clouds) -> Clouds:
    size = clouds.pos.abs().amax(1, keepdim=True)
    if bool((size == 0).any()):
        bad = int((size == 0).nonzero()[0, 0])
        raise ValueError(f"Expected '{name}' without zero vectors, which have "
                         f"no direction, with 'cosine' (got one, number "
                         f"{bad})")
    return clouds.replace(torch.nn.functional.normalize(clouds.pos / size))


def _warn(message: str) -> None:
    # Python shows a message once for each line of the user's that causes it.
    warnings.warn(message, stacklevel=_STACK_LEVEL)
