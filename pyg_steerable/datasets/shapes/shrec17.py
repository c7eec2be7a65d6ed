"""Shapes of SHREC17, as voxels."""
from __future__ import annotations

import csv
import os.path as osp
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_steerable import checks, files
from pyg_steerable.datasets import _items
from pyg_steerable.datasets.shapes.meshes import load_mesh
from pyg_steerable.datasets.shapes.voxels import VoxelData

SPLITS = ('train', 'val', 'test')
#: Points on the surface of a mesh, in all and at once.
_MOST_POINTS, _AT_ONCE = 2**28, 2**18


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
        FileNotFoundError: If a list or a mesh does not exist.
        ValueError: If a list or a mesh (at its access) is damaged, a name
            in the list or a link leads out of the folder, or a class is not
            in :obj:`classes`.
    """
    def __init__(self, root: str, split: str = 'train',
                 perturbed: bool = True, classes: Sequence[str] | None = None,
                 transform: Callable | None = None):
        checks.choice('split', split, SPLITS)
        root = checks.path('root', root)
        kind = 'perturbed' if checks.flag('perturbed', perturbed) else \
            'normal'
        self.transform = _items.transform(transform)
        self.folder = osp.join(root, f'{split}_{kind}')
        self.names, kinds = _read_list(osp.join(root, f'{split}.csv'))
        self.classes = sorted(set(kinds)) if classes is None else \
            _items.names('classes', classes)
        unknown = set(kinds) - set(self.classes)
        if unknown:
            raise ValueError(f"Expected the classes {self.classes[:99]} in "
                             f"'{split}.csv' (got {sorted(unknown)[:99]}, "
                             f"too)")
        number = {name: i for i, name in enumerate(self.classes)}
        self.label = torch.tensor([number[k] for k in kinds])
        missing = [n for n in self.names if not osp.isfile(self._path(n))]
        if missing:
            raise FileNotFoundError(
                f"Expected the meshes of '{split}.csv' in {self.folder} (got "
                f"no '{missing[0]}.obj', {len(missing)} of "
                f"{len(self.names)} missing). Download them again, or remove "
                f"these lines")

    def _path(self, name: str) -> str:
        return files.inside(self.folder, f'{name}.obj')

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Data:
        i = _items.index(i, len(self))
        data = load_mesh(self._path(self.names[i]))
        data.y = self.label[[i]]
        return data if self.transform is None else self.transform(data)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)} meshes, '
                f'{len(self.classes)} classes)')


def _read_list(path: str) -> tuple[list[str], list[str]]:
    path = files.existing('root', path, 'a folder with a list of meshes')
    with files.reading(path, 'a list of meshes'):
        rows = list(csv.DictReader(files.read_text(path).split('\n')))
        if not rows or not all(row.get('id') and row.get('synsetId')
                               for row in rows):
            raise ValueError(
                f"Expected the columns 'id' and 'synsetId', filled in every "
                f"one of at least one line (got {str(rows[:1])[:200]}, ...)")
        names = [files.component('id', row['id']) for row in rows]
        kinds = [row['synsetId'] for row in rows]
        if len(set(names)) < len(names):
            raise ValueError("Expected each 'id' once (got some again)")
    return names, kinds


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
        self.size = checks.integer('size', size, 1, 512)

    def forward(self, data: Data) -> VoxelData:
        pos, face = _items.attributes(data, 'pos', 'face')
        checks.has_values('pos', checks.positions('pos', pos), 'the surface')
        checks.finite('pos', pos, 'corner')
        checks.tensor('face', face, checks.INTEGERS)
        checks.shaped('face', face, (3, None), '[3, F]')
        checks.has_values('face', face, 'the surface')
        checks.indices('face', face.flatten().cpu(), len(pos))
        fine = 2 * self.size
        corners = pos.double().cpu()[face.long().cpu()]  # [3, F, 3]
        a, b, c = corners
        area = torch.linalg.cross(b - a, c - a).norm(dim=1, keepdim=True)
        if not 0 < float(area.sum()) < float('inf'):
            raise ValueError(f'Expected a mesh with a surface (got one of '
                             f'area {float(area.sum()) / 2})')
        centre = (corners.mean(0) * area).sum(0) / area.sum()
        radius = (corners - centre).norm(dim=-1).max()
        corners = ((corners - centre) / radius + 1) / 2 * fine
        there = _rasterise(corners, fine).view(3 * (self.size, 2))
        voxels = there.sum((1, 3, 5), dtype=torch.uint8).float() / 8
        rest = {key: value for key, value in data.to_dict().items()
                if key not in ('pos', 'face')}
        return VoxelData(voxels=voxels.unsqueeze(0).to(pos.device), **rest)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.size})'


def _rasterise(corners: Tensor, size: int) -> Tensor:
    """Which cells of unit size triangles go through, [size, size, size], by
    points on them that are at most half a cell apart: faces are cut into
    :math:`4^k` equal ones.
    """
    a, b, c = corners
    edge = torch.stack([(b - a).norm(dim=1), (c - b).norm(dim=1),
                        (a - c).norm(dim=1)]).amax(0)
    level = (2 * edge).clamp(min=1).log2().ceil().long()
    work = int((4**level).sum()) // 2 + len(level)
    if work > _MOST_POINTS:
        raise ValueError(f'Expected a surface that {_MOST_POINTS} points '
                         f'cover (got one that needs about {work}). Take a '
                         f"smaller 'size', or fewer faces inside of it")
    there = torch.zeros(size**3, dtype=torch.bool)
    for k in level.unique().tolist():
        n = 2**k
        i, j = torch.tril_indices(n + 1, n + 1)
        share = torch.stack([n - i, i - j, j], 1).double() / n
        here = (level == k).nonzero().flatten()
        for faces in here.split(max(1, _AT_ONCE // len(share))):
            for part in share.split(_AT_ONCE):
                points = torch.einsum('pc,cfx->pfx', part, corners[:, faces])
                x, y, z = points.floor_().long().clamp_(
                    0, size - 1).flatten(0, 1).T
                there[(z * size + y) * size + x] = True
    return there
