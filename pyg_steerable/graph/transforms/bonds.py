"""Edges between near atoms that know the bonds among them."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from ... import checks
from ..points.neighbors import radius_graph
from ..points.shift import num_clouds
from .reading import positions_of


class RadiusGraphWithBonds(BaseTransform):
    r"""Edges to each atom from all atoms within distance :obj:`r` and from
    those that it is bonded to, with the bonds as edge attributes: those that
    were there, and a column that says "no bond",

    .. math::
        \mathbf{a}_{ij} = \begin{cases}
            \mathbf{b}_{ij} \,\Vert\, 0 & \text{if } i, j
            \text{ are bonded} \\
            \mathbf{0} \,\Vert\, 1 & \text{otherwise,}
        \end{cases}

    a one-hot vector if :math:`\mathbf{b}_{ij}` is one. Edges are sorted by
    their target, then their source.

    .. code-block:: python

        molecule = RadiusGraphWithBonds(3.)(molecule)
        model = QM9Net(edge_dim=5, radius=1.5, num_neighbors=8.)

    Args:
        r (float): The radius.

    Shapes:
        - **input:** data with :obj:`pos` :math:`[N, 3]`, :obj:`edge_index`
          :math:`[2, E]` and :obj:`edge_attr` :math:`[E, d]`, the bonds
        - **output:** the same with :obj:`edge_index` :math:`[2, E']` and
          :obj:`edge_attr` :math:`[E', d + 1]`

    Raises:
        ValueError: If there are no bonds, one is there twice, or there is a
            periodic :obj:`cell`, where a pair of atoms does not name an edge.
        TypeError: If data are none, or hold something else than numbers.
    """
    def __init__(self, r: float):
        self.r = checks.positive('r', r)

    def forward(self, data: Data) -> Data:
        pos = positions_of(data)
        if data.get('cell') is not None:
            raise ValueError("Expected 'data' without a periodic 'cell' (got "
                             "one): bonds do not say which image they lead "
                             "to. Use 'RadiusGraph'")
        bonds, attr = _bonds(data, len(pos))
        near = radius_graph(pos, self.r, data.get('batch'),
                            batch_size=num_clouds(data))
        assert isinstance(near, Tensor)  # there are no cells
        bonded = _number(bonds, len(pos))
        number, place = torch.cat([bonded, _number(near, len(pos))]).unique(
            return_inverse=True)
        place = place[:len(bonded)]
        if len(place.unique()) < len(place):
            raise ValueError(f"Expected 'data.edge_index' to hold each bond "
                             f"once for each direction (got "
                             f"{len(place)} edges between "
                             f"{len(place.unique())} pairs). Use 'coalesce'")
        data.edge_index = torch.stack([number % len(pos),
                                       number // len(pos)])
        data.edge_attr = attr.new_zeros(len(number), attr.shape[1] + 1)
        data.edge_attr[:, -1] = 1
        data.edge_attr[place] = torch.nn.functional.pad(attr, (0, 1))
        for name in ('edge_weight', 'edge_shift', 'adj_t'):
            if name in data:  # of the edges of before
                del data[name]
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.r})'


def _number(edge_index: Tensor, size: int) -> Tensor:
    """A number for each pair, in the order of targets, then sources."""
    return edge_index[1] * size + edge_index[0]


def _bonds(data: Data, size: int) -> tuple[Tensor, Tensor]:
    """The pairs and attributes that are there."""
    bonds, attr = data.get('edge_index'), data.get('edge_attr')
    if bonds is None or attr is None:
        missing = 'edge_index' if bonds is None else 'edge_attr'
        raise ValueError(f"Expected 'data.{missing}', the bonds (got None). "
                         f"Use 'RadiusGraph' without bonds")
    checks.tensor('data.edge_index', bonds, checks.INTEGERS)
    checks.shaped('data.edge_index', bonds, (2, None), '[2, E]')
    checks.indices('data.edge_index', bonds.flatten(), size)
    checks.tensor('data.edge_attr', attr, checks.FLOATING + checks.INTEGERS)
    checks.shaped('data.edge_attr', attr, (bonds.shape[1], None),
                  '[E, d], one row for each bond')
    return bonds.long(), attr
