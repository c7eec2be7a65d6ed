"""What transforms read from data."""
from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData

from ... import checks

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
