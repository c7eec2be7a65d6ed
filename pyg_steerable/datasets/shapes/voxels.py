r"""Labelled voxel grids: their container, rotating them, ModelNet-10.

Axes are those of :mod:`pyg_steerable.graph.lattice`: the last three of a
voxel tensor are :math:`z, y, x`.

The layout of a file of ModelNet-10: ``train`` ``[n, 30, 30, 4]`` uint8,
occupancies with axes :math:`x, y, z` (z is up) and their bits packed along
the last one (as by :func:`numpy.packbits`), ``train_label`` ``[n]`` from 0
in the alphabetical order of the classes, and the same for ``test``. Grids of
other sizes will do if they are cubes.
"""
from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import affine_transform
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from pyg_steerable import checks, files
from pyg_steerable.datasets import _items
from pyg_steerable.datasets._npz import load_npz

MODELNET10 = ('bathtub', 'bed', 'chair', 'desk', 'dresser', 'monitor',
              'night_stand', 'sofa', 'table', 'toilet')


class VoxelData(Data):
    r"""A voxel grid :obj:`voxels` :math:`[C, D, H, W]`; batches of PyG's
    loaders are :math:`[B, C, D, H, W]`.
    """
    def __cat_dim__(self, key: str, value, *args, **kwargs):
        if key == 'voxels':
            return None  # a new dimension
        return super().__cat_dim__(key, value, *args, **kwargs)


class VoxelGrids(Dataset):
    r"""Grids of one size, with labels; items are :class:`VoxelData` with
    :obj:`voxels` and :obj:`y`.

    Args:
        voxels (Tensor): The grids, of any type: items are float32.
        label (Tensor): Their classes.
        classes (list[str]): The names of the classes.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Shapes:
        - **voxels:** :math:`[n, C, D, H, W]`, **label:** :math:`[n]`

    Raises:
        ValueError: If shapes do not fit, voxels are not finite, or a label
            has no class.
    """
    def __init__(self, voxels: Tensor, label: Tensor, classes: list[str],
                 transform: Callable | None = None):
        checks.tensor('voxels', voxels, _items.NUMBERS)
        if voxels.dim() != 5 or not voxels[:1].numel() and len(voxels):
            raise ValueError(f"Expected 'voxels' of shape [n, C, D, H, W], "
                             f"none of them zero (got {list(voxels.shape)})")
        checks.has_values('voxels', voxels, 'whether they are finite')
        if voxels.is_floating_point():
            for i, grid in enumerate(voxels):
                if not grid.isfinite().all():
                    raise ValueError(
                        f"Expected finite 'voxels' (got nan or inf in grid "
                        f"{i}). Drop such grids, or fill them with "
                        f"'torch.nan_to_num'")
        self.classes = _items.names('classes', classes)
        self.label = checks.labels('label', label, len(voxels), self.classes)
        self.voxels = voxels
        self.transform = _items.transform(transform)

    def __len__(self) -> int:
        return len(self.voxels)

    def __getitem__(self, i: int) -> VoxelData:
        i = _items.index(i, len(self))
        data = VoxelData(voxels=self.voxels[i].to(torch.float32, copy=True),
                         y=self.label[i:i + 1].clone())
        return data if self.transform is None else self.transform(data)

    def subset(self, index, transform: Callable | None = None) -> VoxelGrids:
        """Some of the grids, with a transform of their own."""
        index = _items.subset(index, len(self))
        return VoxelGrids(self.voxels[index], self.label[index],
                          self.classes, transform)

    def counts(self) -> Tensor:
        """The number of grids of each class."""
        return self.label.bincount(minlength=len(self.classes))

    def __repr__(self) -> str:
        n, *shape = self.voxels.shape
        return (f'{self.__class__.__name__}({n} grids of {shape}, '
                f'{len(self.classes)} classes)')


def load_voxels(path: str, split: str = 'train',
                transform: Callable | None = None) -> VoxelGrids:
    r"""Reads ModelNet-10 as grids :math:`[1, 30, 30, 30]`, from a file in
    the layout of this module.

    Args:
        path (str): The ``.npz`` file.
        split (str, optional): :obj:`"train"` or :obj:`"test"`, the official
            ones. (default: :obj:`"train"`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, lacks an array, or the arrays do not
            fit.
    """
    checks.choice('split', split, ('train', 'test'))
    keys = (split, f'{split}_label')
    found = load_npz(path, keys)
    with files.reading(os.fspath(path), 'labelled grids of voxels'):
        missing = set(keys) - set(found)
        if missing:
            raise ValueError(f'Expected the arrays {list(keys)} (got no '
                             f'{sorted(missing)})')
        bits, label = (found[key] for key in keys)
        size = bits.shape[1] if bits.ndim == 4 else 0
        packed = (size, size, -(-size // 8))
        if bits.dtype != np.uint8 or not size or bits.shape[1:] != packed:
            raise ValueError(
                f"Expected '{split}' of shape [n, S, S, ceil(S / 8)] and "
                f"dtype uint8, bits of cubes (got {list(bits.shape)} and "
                f"{bits.dtype})")
        if label.dtype.kind not in 'iu':
            raise ValueError(f"Expected '{split}_label' to hold integers "
                             f"(got {label.dtype})")
        xyz = np.unpackbits(bits, axis=-1, count=size).view(bool)
        zyx = np.ascontiguousarray(xyz.transpose(0, 3, 2, 1))
        return VoxelGrids(torch.from_numpy(zyx).unsqueeze(1),
                          torch.from_numpy(label.astype(np.int64)),
                          list(MODELNET10), transform)


# Rotations ###################################################################


def rotate_voxels(voxels: Tensor, R, order: int = 3) -> Tensor:
    r"""Moves what is in a cubic grid by an orthogonal matrix about the
    centre of the grid,

    .. math::
        \mathbf{x}^{\prime}(\mathbf{p}) = \mathbf{x}(R^{-1} \mathbf{p}).

    Exact for the symmetries of the cube, interpolated for others, with zeros
    from outside. Only voxels move: components of fields turn by
    :meth:`FieldType.transform`.

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
    checks.tensor('voxels', voxels, _items.NUMBERS)
    checks.has_values('voxels', voxels, 'interpolation')
    order, shape = checks.integer('order', order, 0, 5), voxels.shape
    if len(shape) < 3 or len(set(shape[-3:])) != 1:
        raise ValueError(f"Expected 'voxels' of shape [*, S, S, S] (got "
                         f"{list(shape)})")
    R = _matrix(R)
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


def _matrix(R) -> np.ndarray:
    """An orthogonal matrix from whatever holds one."""
    try:
        R = R.detach().cpu() if isinstance(R, torch.Tensor) else R
        R = np.asarray(R).astype(np.float64, casting='same_kind')
    except Exception as error:
        raise TypeError(f"Expected 'R' to be an orthogonal 3 x 3 matrix "
                        f"(got {checks.show(R)})") from error
    if R.shape != (3, 3) or not np.allclose(R @ R.T, np.eye(3), atol=1e-5):
        raise ValueError(f"Expected 'R' to be an orthogonal 3 x 3 matrix "
                         f"(got {checks.show(R.tolist())})")
    return R


def _turned(voxels: Tensor, pull) -> Tensor:
    """The same for a symmetry of the cube: axes permuted and flipped."""
    source = np.abs(pull).argmax(0)  # of each axis
    axes = voxels.dim() - 3 + np.arange(3)
    order = [*range(voxels.dim() - 3), *axes[source]]
    flip = [int(a) for a, sign in zip(axes, pull.sum(0)) if sign < 0]
    return voxels.permute(order).flip(flip)
