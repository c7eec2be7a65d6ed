r"""From point clouds to graphs, and augmentations, as transforms of PyG's
:obj:`Data`.

.. code-block:: python

    transform = T.Compose([
        Normalise(),
        RandomPointSubset(1024),
        RandomGroupElement('SO(2)'),  # rotations about z
        Jitter(0.01, clip=0.05),
        KNNGraph(15),
    ])

They draw from torch's global generator: :obj:`torch.manual_seed` makes them
reproducible, workers of a loader included. Build graphs after them.

Crystals have a :obj:`cell` of shape :math:`[1, 3, 3]` (lattice vectors as
rows) and, if not all axes repeat, :obj:`pbc` of shape :math:`[1, 3]`, so that
a batch holds one for each. :class:`RadiusGraph` and :class:`KNNGraph` then
also write :obj:`edge_shift`, which batches, turns and scales with the rest.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import select

from .. import checks
from ..fields import FieldType
from ..groups import Group
from .neighbors import knn_graph, radius_graph
from .shift import edge_shift, num_clouds, periodic_options

#: What every element of a group turns if it is there: one vector per row,
#: under the names that PyG gives them.
VECTORS = ('pos', 'normal', 'force', 'cell', 'edge_shift')

#: What lengths are measured by: it is scaled with the positions.
LENGTHS = ('cell', 'edge_shift')

#: More points to draw, or longer ways, are a mistake.
MOST, LONGEST = 2**27, 1e30


def _read(data) -> BaseData:
    if not isinstance(data, BaseData):
        raise TypeError(f"Expected 'data' to be a Data object (got "
                        f"{checks.show(data)})")
    return data


def _positions(data: Data) -> Tensor:
    pos = getattr(_read(data), 'pos', None)
    if pos is None:
        raise ValueError("Expected 'data.pos' of shape [N, 3] (got None)")
    checks.positions('data.pos', pos)
    checks.has_values('data.pos', pos, 'the result')
    return checks.finite('data.pos', pos, 'point')


def _scale(data: Data, factor: Tensor) -> None:
    """Scales what lengths are measured by."""
    for name in LENGTHS:
        if data.get(name) is not None:
            checks.tensor(f'data.{name}', data[name])
            data[name] = data[name] * factor.to(data[name])


# Graphs ####################################################################


class _Graph(BaseTransform):
    """Replaces the edges of data."""
    def forward(self, data: Data) -> Data:
        pos, cells = _positions(data), periodic_options(data)
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


# Augmentations #############################################################


@functional_transform('random_group_element')
class RandomGroupElement(BaseTransform):
    r"""Moves a point cloud by a random element of a group (functional name:
    :obj:`random_group_element`),

    .. math::
        \mathbf{p}_i \mapsto g \, \mathbf{p}_i, \qquad
        \mathbf{x}_i \mapsto \rho(g) \, \mathbf{x}_i, \qquad
        g \sim \mathrm{Haar}(G)

    with one element for each :obj:`Data` object: positions and all fields of
    known type move together, as a rotated scan of the same object would.
    Rotations about z are :obj:`RandomGroupElement('SO(2)')`. Apply it before
    batching; a batch is moved as one.

    Positions :obj:`pos`, (outward) normals :obj:`normal`, forces
    :obj:`force`, the rows of a periodic :obj:`cell` and :obj:`edge_shift` are
    vectors and move wherever they are there; :obj:`fields` says otherwise,
    e.g. :obj:`normal='1e'` where normals follow the orientation of faces and
    not the surface. Attributes whose type is not known stay as they are.

    Args:
        group (Group or str): The group G.
        fields (dict, optional): The types of further attributes of nodes,
            edges or the whole cloud by name, e.g.
            :obj:`{'x': FieldType(...), 'edge_attr': '1o', 'y': '2e'}`, or
            :obj:`None` for one of the vectors above that is to stay. A type
            of irreps may be of any group, as an augmentation by more than
            the symmetries of a network; one given by matrices only of a
            group that contains G. (default: :obj:`None`)

    Raises:
        ValueError: If positions or a named attribute are missing or have
            another width than their type, or a type is not defined on the
            group.
        TypeError: If a field does not hold floating point numbers.
    """
    def __init__(self, group: Group | str, fields: dict | None = None):
        self.group = group = Group.wrap(group)
        if fields is not None and not isinstance(fields, dict):
            raise TypeError(f"Expected 'fields' to be a dict of types by name "
                            f"(got {checks.show(fields)})")
        needed = {'pos': '1o', **(fields or {})}
        self.fields = {
            name: _seen_under(kind, group)
            for name, kind in {**dict.fromkeys(VECTORS, '1o'),
                               **needed}.items() if kind is not None
        }
        self.needed = [name for name in needed if name in self.fields]

    def forward(self, data: Data) -> Data:
        for name in self.needed:
            if not any(name in store for store in _read(data).stores):
                raise ValueError(f"Expected data with '{name}' (got {data}). "
                                 f"What is not there is left out by "
                                 f"fields={{'{name}': None}}")
        g = self.group.sample()[0]
        for store in _read(data).stores:
            for name, kind in self.fields.items():
                if name in store:
                    checks.tensor(f'data.{name}', store[name])
                    kind.check(store[name], f'data.{name}')
                    store[name] = kind.transform(store[name], g)
        return data

    def __repr__(self) -> str:
        fields = {name: self.fields[name] for name in self.needed
                  if name != 'pos'}
        return (f'{self.__class__.__name__}({self.group}'
                + (f', fields={fields})' if fields else ')'))


def _seen_under(field_type, group: Group) -> FieldType:
    """A type of a larger group is restricted; irreps are of all of O(3)."""
    field_type = FieldType.wrap(field_type, group)
    if group.is_subgroup_of(field_type.group):
        return field_type.restrict(group)
    return FieldType(field_type, group)


@functional_transform('random_point_subset')
class RandomPointSubset(BaseTransform):
    r"""Keeps a random subset of the points, in random order (functional
    name: :obj:`random_point_subset`). All attributes that PyG takes for
    node-level (one row per point) keep the same points.

    Args:
        num (int): The number of points to keep.
        replace (bool, optional): Draw each point independently, so that
            points repeat. Otherwise all are different, and clouds of fewer
            than :obj:`num` points are an error. (default: :obj:`False`)

    Raises:
        ValueError: If a cloud is empty or has too few points, or has edges
            or faces, which would point to removed points.
    """
    def __init__(self, num: int, replace: bool = False):
        self.num = checks.integer('num', num, 1, MOST)
        self.replace = checks.flag('replace', replace)

    def forward(self, data: Data) -> Data:
        for name in ('edge_index', 'adj_t', 'face'):
            if _read(data).get(name) is not None:
                raise ValueError(f"Expected a point cloud (got data with "
                                 f"'{name}'). Draw points before building a "
                                 f"graph of them")
        n = data.num_nodes or 0
        least = 1 if self.replace else self.num
        if n < least:
            raise ValueError(f"Expected a cloud of at least {least} points "
                             f"(got {n}). With 'replace' fewer will do, but "
                             f"not none")
        if self.replace:
            keep = torch.randint(n, (self.num, ), device='cpu')
        else:
            keep = torch.randperm(n, device='cpu')[:self.num]
        # Their number is read off the attributes: first find, then change.
        # (PyG takes a cell for three points.)
        for name in [key for key in data.keys() if key not in
                     ('cell', 'pbc') and data.is_node_attr(key)]:
            value = data[name]
            data[name] = _rows(value, keep, data.__cat_dim__(name, value))
        if 'num_nodes' in data:
            data.num_nodes = self.num
        return data

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.num}, '
                f'replace={self.replace})')


def _rows(value, index: Tensor, dim: int):
    if isinstance(value, np.ndarray):
        return value.take(index.numpy(), axis=dim)
    if isinstance(value, Tensor):
        index = index.to(value.device)
    return select(value, index, dim)


@functional_transform('gaussian_jitter')
class Jitter(BaseTransform):
    r"""Displaces each point by normal noise (functional name:
    :obj:`gaussian_jitter`),

    .. math::
        \mathbf{p}_i \mapsto \mathbf{p}_i + \boldsymbol{\delta}_i
        \min(1, c / |\boldsymbol{\delta}_i|), \qquad
        \boldsymbol{\delta}_i \sim \mathcal{N}(0, \sigma^2 \mathbf{1}).

    Lengths are clipped, not coordinates: the noise has no preferred
    direction. Fields stay as they are, and so does a cell.

    Args:
        std (float, optional): The standard deviation :math:`\sigma` of each
            coordinate. (default: :obj:`0.01`)
        clip (float, optional): The longest displacement :math:`c`.
            (default: :obj:`0.05`)

    Raises:
        ValueError: If :obj:`std` is negative or :obj:`clip` not positive.
    """
    def __init__(self, std: float = 0.01, clip: float | None = 0.05):
        self.std = checks.real('std', std, 0., LONGEST)
        self.clip = None if clip is None else min(
            checks.positive('clip', clip), LONGEST)

    def forward(self, data: Data) -> Data:
        pos = _positions(data)
        noise = self.std * torch.randn_like(pos)
        if self.clip is not None:
            length = noise.norm(dim=-1, keepdim=True)
            noise = noise * (self.clip / length.clamp(min=self.clip))
        data.pos = pos + noise
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.std}, clip={self.clip})'


@functional_transform('anisotropic_scale')
class AnisotropicScale(BaseTransform):
    r"""Stretches the three axes by independent random factors (functional
    name: :obj:`anisotropic_scale`),

    .. math::
        \mathbf{p}_i \mapsto \mathrm{diag}(s_x, s_y, s_z) \, \mathbf{p}_i,
        \qquad s \sim \mathcal{U}(low, high).

    A periodic :obj:`cell` and :obj:`edge_shift` follow. This is no element of
    O(3): fields have no way to follow and stay as they are (vectors and
    normals no longer fit the shape exactly), and it prefers the coordinate
    axes, so that its place before or after
    :class:`RandomGroupElement` matters.

    Args:
        low (float, optional): (default: :obj:`2/3`)
        high (float, optional): (default: :obj:`3/2`)

    Raises:
        ValueError: Unless :math:`0 < low \leq high`.
    """
    def __init__(self, low: float = 2 / 3, high: float = 3 / 2):
        self.low = checks.positive('low', low)
        self.high = checks.real('high', high, above=0., most=LONGEST)
        if self.low > self.high:
            raise ValueError(f"Expected 'low' to be at most 'high' (got {low} "
                             f"and {high})")

    def forward(self, data: Data) -> Data:
        pos = _positions(data)
        factor = pos.new_empty(3).uniform_(self.low, self.high)
        data.pos = pos * factor
        _scale(data, factor)
        return data

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.low:.4g}, '
                f'{self.high:.4g})')


@functional_transform('normalise_cloud')
class Normalise(BaseTransform):
    r"""Moves the centre of a cloud, the mean of its points, to the origin
    and gives it unit size (functional name: :obj:`normalise_cloud`),

    .. math::
        \mathbf{p}_i \mapsto (\mathbf{p}_i - \bar{\mathbf{p}}) / s, \qquad
        s = \max_i |\mathbf{p}_i - \bar{\mathbf{p}}| \quad \textrm{or} \quad
        s^2 = \tfrac{1}{3} \langle |\mathbf{p}_i - \bar{\mathbf{p}}|^2
        \rangle.

    Both sizes are invariant under O(3): it commutes with
    :class:`RandomGroupElement`. Nothing but :obj:`pos`, a periodic
    :obj:`cell` and :obj:`edge_shift` is scaled. A cloud whose points all
    coincide is only centred, an empty one stays empty.

    Args:
        size (str, optional): What becomes one: :obj:`"sphere"`, the radius
            of the enclosing sphere about the centre, or :obj:`"deviation"`,
            the root mean square coordinate. (default: :obj:`"sphere"`)

    Raises:
        ValueError: If the size is unknown or positions are not finite.
    """
    def __init__(self, size: str = 'sphere'):
        self.size = checks.choice('size', size, ('sphere', 'deviation'))

    def forward(self, data: Data) -> Data:
        pos = _positions(data)
        if len(pos) == 0:
            return data
        centred = pos - pos.mean(dim=0)
        if self.size == 'sphere':
            size = centred.norm(dim=-1).max()
        else:
            size = centred.square().mean().sqrt()
        # What centring leaves of coinciding points is rounding.
        least = 8 * torch.finfo(pos.dtype).eps * pos.abs().max()
        size = torch.where(size > least, size, 1.)
        data.pos = centred / size
        _scale(data, 1 / size)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}('{self.size}')"
