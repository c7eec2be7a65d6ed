"""Rotating what is in a grid of voxels."""
from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import affine_transform
from torch import Tensor

from ... import checks
from ...symmetry.groups import read_matrices

__all__ = ['rotate_voxels']


def rotate_voxels(voxels: Tensor, R, order: int = 3) -> Tensor:
    r"""Moves what is in a cubic grid by an orthogonal matrix about the
    centre of the grid,

    .. math::
        \mathbf{x}^{\prime}(\mathbf{p}) = \mathbf{x}(R^{-1} \mathbf{p}).

    Exact for the symmetries of the cube, interpolated for others, with zeros
    from outside. Only voxels move: components of fields turn by
    :meth:`~pyg_steerable.FieldType.transform`.

    Args:
        voxels (Tensor): The grids.
        R (Tensor): The matrix, which acts on *(x, y, z)*.
        order (int, optional): The degree of the splines, 0 to 5.
            (default: :obj:`3`)

    Shapes:
        - **voxels:** :math:`[*, S, S, S]`, **R:** :math:`[3, 3]`,
          **output:** :math:`[*, S, S, S]`

    Raises:
        ValueError: If the grid is no cube or the matrix not orthogonal.
    """
    checks.tensor('voxels', voxels, checks.NUMBERS)
    checks.has_values('voxels', voxels, 'interpolation')
    order, shape = checks.integer('order', order, 0, 5), voxels.shape
    if len(shape) < 3 or len(set(shape[-3:])) != 1:
        raise ValueError(f"Expected 'voxels' of shape [*, S, S, S] (got "
                         f"{list(shape)})")
    R = read_matrices('R', R).numpy()
    if R.shape != (3, 3):
        raise ValueError(f"Expected 'R' of shape [3, 3] (got {list(R.shape)})")
    pull = R.T[::-1, ::-1]  # from a voxel (z, y, x) to where it came from
    if np.allclose(pull, pull.round(), atol=1e-6):
        return _turned(voxels, pull.round())
    centre = (np.array(shape[-3:]) - 1) / 2
    if not voxels.numel():
        return voxels.clone()
    grids = voxels.detach().reshape(-1, *shape[-3:]).cpu()
    dtype = voxels.dtype if voxels.is_floating_point() else torch.float32
    grids = grids.to(torch.promote_types(dtype, torch.float32))
    out = [affine_transform(grid, pull, centre - pull @ centre, order=order)
           for grid in grids.numpy()]
    return torch.from_numpy(np.stack(out)).view(shape).to(voxels.device,
                                                          dtype)


def _turned(voxels: Tensor, pull) -> Tensor:
    """The same for a symmetry of the cube: axes permuted and flipped."""
    source = np.abs(pull).argmax(0)  # of each axis
    axes = voxels.dim() - 3 + np.arange(3)
    order = [*range(voxels.dim() - 3), *axes[source]]
    flip = [int(a) for a, sign in zip(axes, pull.sum(0)) if sign < 0]
    return voxels.permute(order).flip(flip)
