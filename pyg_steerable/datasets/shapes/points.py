r"""Labelled point clouds, in memory or from a file.

The layout of a file: ``points`` ``[n, P, 3]`` (any number type, times the
optional number ``scale``), ``label`` ``[n]`` from 0, and ``classes`` (their
names).
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

__all__ = ['PointClouds', 'load_points']


class PointClouds(LabelledDataset):
    r"""Clouds of equally many points, with labels; items are :obj:`Data` with
    :obj:`pos` :math:`[P, 3]` and :obj:`y`.

    Args:
        points (Tensor): The clouds.
        label (Tensor): Their classes.
        classes (list[str]): The names of the classes.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Shapes:
        - **points:** :math:`[n, P, 3]`, **label:** :math:`[n]`

    Raises:
        ValueError: If shapes do not fit, positions are not finite, or a
            label has no class.
    """
    def __init__(self, points: Tensor, label: Tensor, classes: list[str],
                 transform: Callable | None = None):
        checks.tensor('points', points, checks.FLOATING + checks.INTEGERS)
        if points.dim() != 3 or points.shape[2] != 3 or not points.shape[1]:
            raise ValueError(f"Expected 'points' of shape [n, P, 3], P not "
                             f"zero (got {list(points.shape)})")
        checks.has_values('points', points, 'whether they are finite')
        if not points.isfinite().all():
            i = int((~points.isfinite()).flatten(1).any(1).nonzero()[0])
            raise ValueError(f"Expected finite 'points' (got nan or inf in "
                             f"cloud {i}). Fix: drop such clouds")
        super().__init__(label, classes, transform, points=points.float())

    @property
    def points(self) -> Tensor:
        """All clouds, :math:`[n, P, 3]`."""
        return self._column('points')

    def get(self, idx: int) -> Data:
        return Data(pos=self._entry('points', idx),
                    y=self._entry('label', idx).view(1))

    def __repr__(self) -> str:
        size = self.points.shape[1]
        return (f'{self.__class__.__name__}({len(self)} clouds of {size} '
                f'points, '
                f'{len(self.classes)} classes)')


def load_points(path: str) -> PointClouds:
    """Reads a file in the layout of this module.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, lacks an array, or the arrays do not
            fit.
    """
    found = load_npz(path, ('points', 'label', 'scale', 'classes'))
    with files.reading(os.fspath(path), 'labelled clouds of points'):
        missing = {'points', 'label'} - set(found)
        if missing:
            raise ValueError(f"Expected the arrays 'points' [n, P, 3] and "
                             f"'label' [n] (got no {sorted(missing)})")
        return _point_clouds(**found)


_ONE = np.ones((), np.float32)


def _point_clouds(points, label, scale=_ONE, classes=None) -> PointClouds:
    """From the arrays of a file."""
    for name, array in (('points', points), ('scale', scale)):
        if array.dtype.kind not in 'iuf':
            raise ValueError(f"Expected '{name}' to hold numbers (got "
                             f"{array.dtype})")
    if label.dtype.kind not in 'iu':
        raise ValueError(f"Expected 'label' to hold integers (got "
                         f"{label.dtype})")
    if np.size(scale) != 1:
        raise ValueError(f"Expected 'scale' to be one number (got shape "
                         f"{list(np.shape(scale))})")
    number = int(label.max(initial=-1)) + 1 if classes is None else \
        len(classes)
    if number > checks.MAX_CLASSES or np.ndim(classes) > 1:
        raise ValueError(f'Expected at most {checks.MAX_CLASSES} classes '
                         f'(got {number})')
    if classes is None:
        classes = range(number)
    points = points.astype(np.float32)
    with np.errstate(over='ignore', invalid='ignore'):
        points *= np.float32(scale.item())
    return PointClouds(torch.from_numpy(points),
                       torch.from_numpy(label.astype(np.int64)),
                       [str(c) for c in classes])
