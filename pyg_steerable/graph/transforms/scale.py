"""Random stretching."""
from __future__ import annotations

from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from ... import checks
from .reading import LONGEST, positions_of, scale_lengths


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
        pos = positions_of(data)
        factor = pos.new_empty(3).uniform_(self.low, self.high)
        data.pos = pos * factor
        scale_lengths(data, factor)
        return data

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.low:.4g}, '
                f'{self.high:.4g})')
