r"""Triangle meshes from OBJ and OFF files: corners and faces, nothing else
(no materials, no textures, no other files).
"""
from __future__ import annotations

import io
import os.path as osp
from array import array
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch_geometric.data import Data

from ... import files

__all__ = ['load_mesh']


def load_mesh(path: str) -> Data:
    r"""Reads a mesh: :obj:`pos` float :math:`[V, 3]` and :obj:`face` long
    :math:`[3, F]`. Polygons are cut into triangles at their first corner.

    * ``.obj``: lines ``v x y z`` and ``f i j k ...``, where a corner is
      ``i``, ``i/t``, ``i//n`` or ``i/t/n``, counts from 1, or from -1
      backwards from the last corner *so far*
    * ``.off``: ``OFF``, the numbers of corners, faces and edges (also on the
      first line, ``OFF8 6 12`` as in ModelNet), then the lists
    * both also with ``.gz``

    Args:
        path (str): The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind, or has no faces.

    Example:
        >>> mesh = load_mesh('chair.obj')
        >>> voxels = MeshToVoxels(64)(mesh).voxels
    """
    path = files.existing('path', path, 'an .obj or .off file')
    with files.reading(path, 'a complete mesh'):
        kind = osp.splitext(path.lower().removesuffix('.gz'))[1]
        if kind not in _READERS:
            raise ValueError(f'a name that ends in none of {list(_READERS)}')
        pos, face = _READERS[kind](io.StringIO(files.read_text(path)))
        if not len(face):
            raise ValueError('no faces')
        if face.min() < 0 or face.max() >= len(pos):
            raise ValueError('faces of corners that are not there')
        if not (np.abs(pos) < np.finfo(np.float32).max).all():
            raise ValueError('corners that are no numbers')
    return Data(pos=torch.from_numpy(pos.astype(np.float32)),
                face=torch.from_numpy(face.T.copy()))


Mesh = tuple[np.ndarray, np.ndarray]


def _obj(lines: Iterable[str]) -> Mesh:
    pos, faces, joined = array('d'), _Faces(), ''
    for line in lines:
        if line.endswith('\\\n'):
            joined += line[:-2] + ' '
            continue
        words, joined = (joined + line).split(), ''
        if not words:
            continue
        if words[0] == 'v':
            pos.extend(_corner(words[1:4]))
        elif words[0] == 'f':
            corners = [int(word.partition('/')[0]) for word in words[1:]]
            if 0 in corners:
                raise ValueError('the corner 0, where they count from 1')
            so_far = len(pos) // 3
            faces.add([i - 1 if i > 0 else so_far + i for i in corners])
    return _corners(pos), faces.triangles()


def _off(lines: Iterable[str]) -> Mesh:
    rows = (words for words in (line.partition('#')[0].split()
                                for line in lines) if words)
    first = next(rows, [''])
    if not first[0].upper().startswith('OFF'):
        raise ValueError("no 'OFF' at the beginning")
    first[0] = first[0][3:]  # ModelNet: OFF8 6 12
    numbers = [word for word in first if word] or next(rows, [])
    num_pos, num_faces = (int(word) for word in numbers[:2])
    pos, faces = array('d'), _Faces()
    for number, row in enumerate(rows):
        if number < num_pos:
            pos.extend(_corner(row[:3]))
        else:  # colours may follow
            size = int(row[0])
            if size >= len(row):
                raise ValueError(f'a face of {size} corners with '
                                 f'{len(row) - 1}')
            faces.add([int(word) for word in row[1:1 + size]])
    if len(pos) != 3 * num_pos or len(faces.size) != num_faces:
        raise ValueError(f'{len(pos) // 3} corners and {len(faces.size)} '
                         f'faces, not {num_pos} and {num_faces}')
    return _corners(pos), faces.triangles()


_READERS: dict[str, Callable[[Iterable[str]], Mesh]] = {'.obj': _obj,
                                                        '.off': _off}


def _corner(words: list[str]) -> list[float]:
    if len(words) != 3:
        raise ValueError(f'a corner with {len(words)} coordinates')
    return [float(word) for word in words]


def _corners(pos: array) -> np.ndarray:
    return np.array(pos, dtype=np.float64).reshape(-1, 3)


class _Faces:
    """Polygons, one after the other."""
    def __init__(self):
        self.size, self.corners = array('q'), array('q')

    def add(self, corners: list[int]) -> None:
        """One more."""
        if len(corners) < 3:
            raise ValueError(f'a face of {len(corners)} corners')
        self.size.append(len(corners))
        self.corners.extend(corners)

    def triangles(self) -> np.ndarray:
        """All of them cut at their first corners, [F, 3]."""
        size, corners = (np.array(a, dtype=np.int64)
                         for a in (self.size, self.corners))
        count = size - 2
        start = np.repeat(np.cumsum(size) - size, count)
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count,
                                                  count)
        return np.stack([corners[start], corners[start + step + 1],
                         corners[start + step + 2]], 1)
