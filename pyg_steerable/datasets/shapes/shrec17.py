r"""SHREC17: ShapeNetCore55 meshes to classify and to retrieve.

The layout is that of the contest: ``<split>.csv`` with the columns ``id`` and
``synsetId`` (the class), and the meshes ``<split>_perturbed/<id>.obj`` (or
``_normal``). What is retrieved is a file for each mesh, ``<id>``.
"""
from __future__ import annotations

import csv
import os
import os.path as osp
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from ... import checks, files
from ...metrics.retrieval import read_lists
from ..base import LabelledDataset
from .meshes import load_mesh

__all__ = ['Shrec17Meshes', 'write_retrieval_lists']

SPLITS = ('train', 'val', 'test')


class Shrec17Meshes(LabelledDataset):
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
        self.folder = osp.join(root, f'{split}_{kind}')
        names, kinds = _read_list(osp.join(root, f'{split}.csv'))
        classes = sorted(set(kinds)) if classes is None else \
            checks.texts('classes', classes)
        unknown = set(kinds) - set(classes)
        if unknown:
            raise ValueError(f"Expected the classes {classes[:99]} in "
                             f"'{split}.csv' (got {sorted(unknown)[:99]}, "
                             f"too)")
        number = {name: i for i, name in enumerate(classes)}
        super().__init__(torch.tensor([number[k] for k in kinds]), classes,
                         transform, names=names)
        missing = [n for n in self.names if not osp.isfile(self._path(n))]
        if missing:
            raise FileNotFoundError(
                f"Expected the meshes of '{split}.csv' in {self.folder} (got "
                f"no '{missing[0]}.obj', {len(missing)} of "
                f"{len(self.names)} missing). Download them again, or remove "
                f"these lines")

    def _path(self, name: str) -> str:
        return files.inside(self.folder, f'{name}.obj')

    @property
    def names(self) -> list[str]:
        """The names of the meshes."""
        return self._column('names')

    def get(self, idx: int) -> Data:
        data = load_mesh(self._path(self._entry('names', idx)))
        data.y = self._entry('label', idx).view(1)
        return data

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


def write_retrieval_lists(folder: str, lists: Sequence[Tensor],
                          names: Sequence[str]) -> None:
    """Writes lists as the contest's own evaluation reads them: for each
    item a file of its name, with a name and a distance (here the rank) on
    each line. Each file is written whole or not at all.

    Args:
        folder (str): Where to write; made if there is none.
        lists (list[Tensor]): The items found for each, best first.
        names (list[str]): The names of all items, without folders.

    Raises:
        ValueError: If there are not as many lists as names, an item of a
            list is not there, or a name is no file name or there twice.
    """
    folder = checks.path('folder', folder)
    names = [files.component('names', name)
             for name in checks.sequence('names', names)]
    if len(set(names)) < len(names):
        raise ValueError("Expected each of 'names' once (got some again)")
    lists = read_lists(lists, len(names))
    os.makedirs(folder, exist_ok=True)
    for name, found in zip(names, lists):
        with files.writing(osp.join(folder, name)) as part, open(
                part, 'x') as f:
            f.writelines(f'{names[j]} {rank}\n'
                         for rank, j in enumerate(found.tolist()))
