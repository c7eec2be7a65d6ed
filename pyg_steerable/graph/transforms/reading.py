"""What transforms share: positions, and what moves with them."""
from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data

from ... import checks

#: What every element of a group turns if it is there: one vector per row,
#: under the names that PyG gives them.
VECTORS = ('pos', 'normal', 'force', 'cell', 'edge_shift')
#: What lengths are measured by: it is scaled with the positions.
LENGTHS = ('cell', 'edge_shift')
#: Longer ways are a mistake.
LONGEST = 1e30


def positions_of(data: Data) -> Tensor:
    """The points of data, finite."""
    pos = getattr(checks.data('data', data), 'pos', None)
    if pos is None:
        raise ValueError("Expected 'data.pos' of shape [N, 3] (got None)")
    checks.positions('data.pos', pos)
    checks.has_values('data.pos', pos, 'the result')
    return checks.finite('data.pos', pos, 'point')


def scale_lengths(data: Data, factor: Tensor) -> None:
    """Scales what lengths are measured by."""
    for name in LENGTHS:
        if data.get(name) is not None:
            checks.tensor(f'data.{name}', data[name])
            data[name] = data[name] * factor.to(data[name])
