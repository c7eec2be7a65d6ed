r"""SHREC17: ShapeNetCore55 meshes to classify and to retrieve.

The layout is that of the contest: ``<split>.csv`` with the columns ``id`` and
``synsetId`` (the class), and the meshes ``<split>_perturbed/<id>.obj`` (or
``_normal``). Meshes are read through trimesh, which is only needed here.
"""
from __future__ import annotations

import csv
import os
import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_steerable.datasets.voxels import VoxelData

SPLITS = ('train', 'val', 'test')
#: Lists are no longer than this, by the rules of the contest.
MAX_RETRIEVED = 1000


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise ImportError("Expected the package 'trimesh', which reads "
                          "meshes (got none). Install it with 'pip install "
                          "trimesh'") from error
    return trimesh


class Shrec17Meshes(Dataset):
    r"""The meshes of a split, read at every access; items are :obj:`Data`
    with :obj:`pos` :math:`[V, 3]`, :obj:`face` :math:`[3, F]` and
    :obj:`y`. For voxels, a rotation in between:

    .. code-block:: python

        data = Shrec17Meshes(root, 'train', transform=T.Compose([
            RandomGroupElement('SO(3)'), MeshToVoxels(64)]))
        data[0].voxels                                  # [1, 64, 64, 64]

    Args:
        root (str): The folder in the layout of this module.
        split (str, optional): :obj:`"train"`, :obj:`"val"` or
            :obj:`"test"`. (default: :obj:`"train"`)
        perturbed (bool, optional): Whether to read meshes in random
            rotations. (default: :obj:`True`)
        classes (list[str], optional): Their names, e.g. those of the
            training split. (default: those of the split, sorted)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        ImportError: If trimesh is missing, at the first access.
        FileNotFoundError: If a list or a mesh does not exist.
        ValueError: If a list or a mesh (at its access) is damaged, or a
            class is not in :obj:`classes`.
    """
    def __init__(self, root: str, split: str = 'train',
                 perturbed: bool = True, classes: Sequence[str] | None = None,
                 transform: Callable | None = None):
        if split not in SPLITS:
            raise ValueError(f"Expected 'split' to be one of {SPLITS} (got "
                             f"{split!r})")
        kind = 'perturbed' if perturbed else 'normal'
        self.folder = osp.join(root, f'{split}_{kind}')
        self.names, kinds = _read_list(osp.join(root, f'{split}.csv'))
        self.classes = sorted(set(kinds)) if classes is None else [*classes]
        unknown = set(kinds) - set(self.classes)
        if unknown:
            raise ValueError(f"Expected the classes {self.classes} in "
                             f"'{split}.csv' (got {sorted(unknown)}, too)")
        self.label = torch.tensor([self.classes.index(k) for k in kinds])
        missing = [n for n in self.names if not osp.isfile(self._path(n))]
        if missing:
            raise FileNotFoundError(
                f"Expected the meshes of '{split}.csv' in {self.folder} (got "
                f"no '{missing[0]}.obj', {len(missing)} of "
                f"{len(self.names)} missing). Download them again, or remove "
                f"these lines")
        self.transform = transform

    def _path(self, name: str) -> str:
        return osp.join(self.folder, f'{name}.obj')

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Data:
        pos, face = _read_mesh(self._path(self.names[i]))
        data = Data(pos=pos, face=face, y=self.label[[i]])
        return data if self.transform is None else self.transform(data)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)} meshes, '
                f'{len(self.classes)} classes)')


def _read_list(path: str) -> tuple[list[str], list[str]]:
    if not osp.isfile(path):
        raise FileNotFoundError(f"Expected a list of meshes (got '{path}', "
                                f"which does not exist)")
    with open(path, newline='') as f:
        rows = list(csv.DictReader(f))
    if not rows or not all(row.get('id') and row.get('synsetId')
                           for row in rows):
        raise ValueError(f"{path}: expected the columns 'id' and 'synsetId', "
                         f"filled in every one of at least one line (got "
                         f"{rows[:1]}, ...)")
    return [row['id'] for row in rows], [row['synsetId'] for row in rows]


def _read_mesh(path: str) -> tuple[Tensor, Tensor]:
    trimesh = _trimesh()
    try:
        mesh = trimesh.load(path, force='mesh', process=False)
        pos, face = np.asarray(mesh.vertices), np.asarray(mesh.faces)
        if not len(face):
            raise ValueError('no faces')
        if face.min() < 0 or face.max() >= len(pos):
            raise ValueError('faces of vertices that are not there')
        if not np.isfinite(pos).all():
            raise ValueError('vertices that are no numbers')
    except (ValueError, IndexError, KeyError, TypeError,
            AttributeError) as error:
        raise ValueError(f'{path}: expected a complete mesh (got '
                         f'{type(error).__name__}: {error})') from error
    return (torch.from_numpy(pos.astype(np.float32)),
            torch.from_numpy(face.astype(np.int64).T.copy()))


class MeshToVoxels(BaseTransform):
    r"""The surface of a mesh, :obj:`data.pos` and :obj:`data.face`, as
    :obj:`data.voxels` :math:`[1, S, S, S]`: each voxel holds the part of its
    :math:`2^3` halves that the surface goes through.

    The centroid of the surface goes to the centre of the grid, and the
    farthest corner, in any direction, as far as the faces of the grid: where
    things are and how large does not depend on how a mesh is rotated. The
    sum does: oblique faces go through more voxels.

    Args:
        size (int, optional): The number of voxels *S*. (default: :obj:`64`)

    Raises:
        ValueError: If the size is not positive, or a mesh has no area.
    """
    def __init__(self, size: int = 64):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"Expected 'size' to be a positive integer (got "
                             f"{size!r})")
        self.size = size

    def forward(self, data: Data) -> VoxelData:
        remesh = _trimesh().remesh
        pos, fine = data.pos.double(), 2 * self.size
        a, b, c = corners = pos[data.face]
        area = torch.linalg.cross(b - a, c - a).norm(dim=1, keepdim=True)
        if not 0 < float(area.sum()) < float('inf'):
            raise ValueError(f'Expected a mesh with a surface (got one of '
                             f'area {float(area.sum()) / 2})')
        centre = (corners.mean(0) * area).sum(0) / area.sum()
        radius = (corners - centre).norm(dim=-1).max()
        pos = ((pos - centre) / radius + 1) / 2 * fine
        # Corners closer than half a voxel leave no hole.
        points, _ = remesh.subdivide_to_size(
            pos.numpy(), data.face.T.numpy(), max_edge=0.5, max_iter=30)
        x, y, z = np.floor(points).astype(int).clip(0, fine - 1).T
        voxels = torch.zeros(1, fine, fine, fine)
        voxels[0, z, y, x] = 1.
        rest = {key: value for key, value in data.to_dict().items()
                if key not in ('pos', 'face')}
        return VoxelData(voxels=torch.nn.functional.avg_pool3d(voxels, 2),
                         **rest)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.size})'


# Retrieval ###################################################################


class MeanAveragePrecision(NamedTuple):
    """Over all queries, and over classes of queries."""
    micro: float
    macro: float


def retrieve(scores: Tensor) -> list[Tensor]:
    r"""For each item all items of the same predicted class, the one with
    the highest score of that class first: the lists of the `"3D Steerable
    CNNs" <https://arxiv.org/abs/1807.02547>`_ paper.

    Args:
        scores (Tensor): The scores of the classes.

    Shapes:
        - **scores:** :math:`[n, K]`
    """
    best, kind = scores.max(1)
    order = best.argsort(descending=True, stable=True)
    lists = [order[kind[order] == k][:MAX_RETRIEVED]
             for k in range(scores.shape[1])]
    return [lists[k] for k in kind.tolist()]


def mean_average_precision(lists: Sequence[Tensor], label: Tensor
                           ) -> MeanAveragePrecision:
    r"""How well lists find what is of the class of the query,

    .. math::
        AP = \frac{1}{R} \sum_{k: \, k \text{th is relevant}}
        \frac{\text{relevant among the first } k}{k}

    with :math:`R` relevant items in all.

    Args:
        lists (list[Tensor]): The items found for each, best first.
        label (Tensor): The true classes.

    Shapes:
        - **label:** :math:`[n]`
    """
    counts = label.bincount()
    precision = torch.zeros(len(lists), dtype=torch.float64)
    for i, found in enumerate(lists):
        hit = label[found] == label[i]
        rank = hit.nonzero().flatten().double() + 1
        number = torch.arange(1, len(rank) + 1)
        precision[i] = (number / rank).sum() / counts[label[i]]
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add(
        0, label, precision)
    some = counts > 0
    return MeanAveragePrecision(float(precision.mean()),
                                float((sums[some] / counts[some]).mean()))


def write_retrieval_lists(folder: str, lists: Sequence[Tensor],
                          names: Sequence[str]) -> None:
    """Writes lists as the contest's own evaluation reads them: for each
    item a file of its name, with a name and a distance (here the rank) on
    each line.
    """
    os.makedirs(folder, exist_ok=True)
    for name, found in zip(names, lists):
        with open(osp.join(folder, name), 'w') as f:
            f.writelines(f'{names[j]} {rank}\n'
                         for rank, j in enumerate(found.tolist()))
