"""Clouds of one size."""
from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from ... import checks
from .reading import positions_of, scale_lengths


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
        pos = positions_of(data)
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
        scale_lengths(data, 1 / size)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}('{self.size}')"
