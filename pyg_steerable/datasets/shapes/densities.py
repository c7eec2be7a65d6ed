"""Atoms as densities on voxels."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from ... import checks
from .voxels import VoxelData

__all__ = ['GaussianDensities', 'gaussian_densities']

#: Atoms to spread at once: bounds the memory.
_AT_ONCE = 1024
#: Widths from it to its inverse, and from it times the distance of voxels.
_SMALL = 1e-9


def gaussian_densities(pos: Tensor, x: Tensor, size: int = 50,
                       spacing: float = 2., sigma: float | None = None
                       ) -> Tensor:
    r"""Spreads the features of atoms over a cube of voxels around the
    origin,

    .. math::
        \mathbf{v}(\mathbf{p}) = \sum_i \mathbf{x}_i \frac{
        \exp(-|\mathbf{p} - \mathbf{p}_i|^2 / 2 \sigma^2)}{
        \sum_{\mathbf{q}} \exp(-|\mathbf{q} - \mathbf{p}_i|^2 / 2 \sigma^2)}

    with :math:`\mathbf{p}, \mathbf{q}` at the centres of voxels: each atom
    adds its features to the sum over the grid, wherever it is. Axes are
    *(z, y, x)* as in :mod:`pyg_steerable.graph.lattice`.

    Args:
        pos (Tensor): The positions *(x, y, z)*.
        x (Tensor): The features, e.g. the element as one-hot vector.
        size (int, optional): The number of voxels *S* along each axis.
            (default: :obj:`50`)
        spacing (float, optional): The distance of voxels.
            (default: :obj:`2.0`)
        sigma (float, optional): The width of the Gaussians; :obj:`0` puts
            each atom into the nearest voxel. (default: half of
            :obj:`spacing`)

    Shapes:
        - **pos:** :math:`[N, 3]`, **x:** :math:`[N, C]`, **output:**
          :math:`[C, S, S, S]`

    Raises:
        ValueError: If shapes do not fit, numbers are not finite, or an atom
            is outside of the cube.
    """
    size, spacing, sigma = _check_grid(size, spacing, sigma)
    _check_atoms(pos, x)
    checks.amount('voxels', x.shape[1], size, size, size)
    outside = ~is_inside(pos, size, spacing)
    if outside.any():
        half = size * spacing / 2
        raise ValueError(f'Expected atoms with coordinates from {-half:g} to '
                         f'{half:g} (got {int(outside.sum())} of {len(pos)} '
                         f'atoms outside, the first at '
                         f'{pos[outside][0].tolist()}). Centre them, take a '
                         f'larger grid, or skip these atoms')
    dtype = x.dtype
    pos, x = (t.to(torch.promote_types(t.dtype, torch.float32))
              for t in (pos, x))
    out = x.new_zeros(x.shape[1] * size, size**2)
    at_once = max(1, min(_AT_ONCE, 2**26 // size**2))
    with torch.autocast(x.device.type, enabled=False):
        for p, f in zip(pos.split(at_once), x.split(at_once)):
            gx, gy, gz = (_line(p[:, i:i + 1], size, spacing, sigma)
                          for i in range(3))
            fz = (f.unsqueeze(-1) * gz.to(x).unsqueeze(1)).flatten(1)
            yx = (gy.unsqueeze(-1) * gx.unsqueeze(1)).flatten(1)
            out += fz.T @ yx.to(x)
    return out.view(x.shape[1], size, size, size).to(dtype)


def is_inside(pos: Tensor, size: int, spacing: float) -> Tensor:
    """Which atoms are in the cube, its surface included."""
    return (pos.abs() <= size * spacing / 2).all(-1)


def _line(p: Tensor, size: int, spacing: float, sigma: float) -> Tensor:
    """The shares of all voxels along one axis, [N, S]."""
    place = torch.arange(size, dtype=p.dtype, device=p.device)
    far = (p - (place - (size - 1) / 2) * spacing).square()
    if sigma < _SMALL * spacing:
        return torch.zeros_like(far).scatter_(1, far.argmin(1, True), 1.)
    far = far - far.amin(1, keepdim=True)  # or all might be infinite
    return (far / (-2 * sigma**2)).softmax(1)


def _check_grid(size, spacing, sigma) -> tuple[int, float, float]:
    size = checks.integer('size', size, 1, 1024)
    spacing = checks.real('spacing', spacing, _SMALL, 1 / _SMALL)
    sigma = spacing / 2 if sigma is None else checks.real('sigma', sigma, 0.,
                                                          1 / _SMALL)
    return size, spacing, sigma


def _check_atoms(pos: Tensor, x: Tensor) -> None:
    checks.positions('pos', pos)
    checks.tensor('x', x, what='a tensor of features')
    checks.shaped('x', x, (len(pos), None), f'[{len(pos)}, C]')
    checks.same_device(pos=pos, x=x)
    for name, value in (('pos', pos), ('x', x)):
        checks.has_values(name, value, 'where atoms are')
        checks.finite(name, value, 'atom')


class GaussianDensities(BaseTransform):
    r"""Turns atoms, :obj:`data.pos` and :obj:`data.x`, into
    :obj:`data.voxels` by :func:`gaussian_densities`. All other attributes
    stay. Rotations come before:

    .. code-block:: python

        transform = T.Compose([RandomGroupElement('SO(3)'),
                               GaussianDensities(size=50, spacing=2.)])

    Args:
        size, spacing, sigma: See :func:`gaussian_densities`.
        outside (str, optional): What to do about atoms outside of the cube:
            :obj:`"error"`, or :obj:`"skip"` and have their number in
            :obj:`data.num_outside`. (default: :obj:`"error"`)
    """
    def __init__(self, size: int = 50, spacing: float = 2.,
                 sigma: float | None = None, outside: str = 'error'):
        self.outside = checks.choice('outside', outside, ('error', 'skip'))
        self.size, self.spacing, self.sigma = _check_grid(size, spacing,
                                                          sigma)

    def forward(self, data: Data) -> VoxelData:
        pos, x = checks.attributes('data', data, 'pos', 'x')
        _check_atoms(pos, x)
        rest = {key: value for key, value in data.to_dict().items()
                if key not in ('pos', 'x')}
        if self.outside == 'skip':
            inside = is_inside(pos, self.size, self.spacing)
            pos, x = pos[inside], x[inside]
            rest['num_outside'] = int((~inside).sum())
        voxels = gaussian_densities(pos, x, self.size, self.spacing,
                                    self.sigma)
        return VoxelData(voxels=voxels, **rest)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.size}, '
                f'spacing={self.spacing:g}, sigma={self.sigma:g})')
