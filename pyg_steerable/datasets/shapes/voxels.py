r"""Labelled voxel grids, in memory or, as ModelNet-10, from a file.

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
from torch import Tensor
from torch_geometric.data import Data

from ... import checks, files
from ..archive import load_npz
from ..base import LabelledDataset

__all__ = ['VoxelData', 'VoxelGrids', 'load_voxels']

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


class VoxelGrids(LabelledDataset):
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
        checks.tensor('voxels', voxels, checks.NUMBERS)
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
        super().__init__(label, classes, transform, voxels=voxels)

    @property
    def voxels(self) -> Tensor:
        """All grids, :math:`[n, C, D, H, W]`."""
        return self._column('voxels')

    def get(self, idx: int) -> VoxelData:
        return VoxelData(voxels=self._entry('voxels', idx).float(),
                         y=self._entry('label', idx).view(1))

    def __repr__(self) -> str:
        shape = list(self.voxels.shape[1:])
        return (f'{self.__class__.__name__}({len(self)} grids of {shape}, '
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
