"""Edges between neighbours, as transforms."""
from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from ... import checks
from ..points.neighbors import knn_graph, radius_graph
from ..points.shift import edge_shift, num_clouds, periodic_options
from .reading import positions_of


class _Graph(BaseTransform):
    """Replaces the edges of data."""
    def forward(self, data: Data) -> Data:
        pos, cells = positions_of(data), periodic_options(data)
        batch = data.get('batch')
        found = self.search(pos, self.size, batch=batch,
                            batch_size=num_clouds(data), **self.options,
                            **cells)
        # What belongs to the edges of before.
        for name in ('edge_attr', 'edge_weight', 'edge_shift', 'adj_t'):
            if name in data:
                del data[name]
        if not cells:
            data.edge_index = found
            return data
        data.edge_index, offset = found
        shift = edge_shift(offset, cells['cell'].double(),
                           None if batch is None else
                           batch[data.edge_index[0]])
        data.edge_shift = shift.to(pos.dtype)
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.size})'


class RadiusGraph(_Graph):
    r"""Edges to each point from all points within distance :obj:`r`
    (:func:`~pyg_steerable.graph.radius_graph`), also from periodic images if
    there is a :obj:`data.cell`: then :obj:`data.edge_shift` :math:`[E, 3]`
    leads from points to these (:func:`~pyg_steerable.graph.edge_shift`).
    Edges and edge attributes that were there before are dropped. (It has no
    functional name: :obj:`radius_graph` is PyG's.)

    Args:
        r (float): The radius.
        loop (bool, optional): Whether a point is its own neighbour.
            (default: :obj:`False`)
        max_num_neighbors (int, optional): See
            :func:`~pyg_steerable.graph.radius`. (default: :obj:`None`)
        flow (str, optional): See :func:`~pyg_steerable.graph.knn_graph`.
            (default: :obj:`'source_to_target'`)
        engine (str, optional): (default: :obj:`'auto'`)

    Raises:
        ValueError: As in :func:`~pyg_steerable.graph.radius_graph`.
        TypeError: If data are none, or hold something else than numbers.
    """
    search = staticmethod(radius_graph)

    def __init__(self, r: float, loop: bool = False,
                 max_num_neighbors: int | None = None,
                 flow: str = 'source_to_target', *, engine: str = 'auto'):
        self.size = checks.positive('r', r)
        if max_num_neighbors is not None:
            checks.integer('max_num_neighbors', max_num_neighbors)
        self.options = dict(_options(loop, flow, engine),
                            max_num_neighbors=max_num_neighbors)


class KNNGraph(_Graph):
    r"""Edges from the :obj:`k` nearest points to each point
    (:func:`~pyg_steerable.graph.knn_graph`), with periodic images like
    :class:`RadiusGraph`.

    Args:
        k (int): The number of neighbours.
        loop, flow, engine: As in :class:`RadiusGraph`.

    Raises:
        ValueError: As in :func:`~pyg_steerable.graph.knn_graph`.
        TypeError: If data are none, or hold something else than numbers.
    """
    search = staticmethod(knn_graph)

    def __init__(self, k: int, loop: bool = False,
                 flow: str = 'source_to_target', *, engine: str = 'auto'):
        self.size = checks.integer('k', k)
        self.options = _options(loop, flow, engine)


def _options(loop, flow, engine) -> dict:
    return {
        'loop': checks.flag('loop', loop),
        'flow': checks.choice('flow', flow, ('source_to_target',
                                             'target_to_source')),
        'engine': checks.text('engine', engine),
    }
