"""QM9 as PyG downloads and processes it, made one with the other sources.

PyG reads what it has processed with pickle where it has to, and two more
files beside it in any case; a folder that somebody else could write to would
run their code. Here all is loaded weights-only.
"""
from __future__ import annotations

import os.path as osp
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import QM9

from ... import files
from ..archive import load_npz, save_npz
from .aromatic import find_aromatic

Collated = tuple[Data, dict[str, Tensor]]

# What is taken: the shape of one molecule's part, and what it counts.
_KEYS = {'x': ((None, ), 'atoms'), 'z': ((), 'atoms'), 'pos': ((3, ), 'atoms'),
         'edge_index': ((), 'edges'), 'edge_attr': ((4, ), 'edges'),
         'y': ((19, ), 'molecules'), 'idx': ((), 'molecules')}
_FIX = 'delete it (or pass force_reload=True) and load again'


class _QM9(QM9):
    """PyG's data set without its pickles; files are replaced whole."""

    def _process(self) -> None:
        if self.force_reload or not osp.isfile(self.processed_paths[0]):
            with files.reading(self.raw_dir, "PyG's raw files of QM9",
                                'delete the folder and load again'):
                if self.raw_paths[0].endswith('.pt'):
                    torch.load(self.raw_paths[0], weights_only=True)
                self.process()

    @staticmethod
    def save(data_list: Any, path: str) -> None:
        with files.writing(path) as part:
            InMemoryDataset.save(data_list, part)

    def load(self, path: str, data_cls: Any = Data) -> None:
        with files.reading(path, "PyG's processed QM9", _FIX):
            data, self.slices, *_ = torch.load(path, map_location='cpu',
                                               weights_only=True)
            _check(data, self.slices)
        self.data = Data.from_dict(data)


def read_pyg(root: str, force_reload: bool) -> Collated:
    """The data set in a folder, which PyG fills if it is empty.

    Raises:
        ImportError: If bonds have to be found aromatic, and RDKit is
            missing.
        ValueError: If a file in the folder is damaged.
    """
    processed = osp.join(root, 'processed', 'data_v3.pt')
    if force_reload or not osp.isfile(processed):
        with files.locked(root):
            full = _QM9(root, force_reload=force_reload)
    else:
        full = _QM9(root)
    old, slices = full._data, full.slices
    data = Data(x=old.x[:, :5].float(), z=old.z.long(), pos=old.pos.float(),
                edge_index=old.edge_index, edge_attr=old.edge_attr.float(),
                y=old.y.float(), idx=torch.as_tensor(old.idx))
    slices = {key: slices[key] for key in data.keys()}
    data.edge_attr = _with_aromatic(data, slices, root)
    return data, slices


def _check(data: Any, slices: Any) -> None:
    """Raises a ValueError unless these are the tensors of QM9."""
    missing = [key for key in _KEYS if key not in data or key not in slices]
    if missing:
        raise ValueError(f'no {missing}')
    size: dict[str, Tensor] = {}
    for key, (shape, what) in _KEYS.items():
        value = data[key] = torch.as_tensor(data[key])
        row = value if key != 'edge_index' else value.T
        if (value.is_sparse or value.numel() * value.element_size() >
                value.untyped_storage().nbytes()):
            raise ValueError(f"'{key}' with less than it says")
        if row.dim() != 1 + len(shape) + (key == 'edge_index') or any(
                n is not None and n != m for n, m in zip(shape,
                                                         row.shape[1:])):
            raise ValueError(f"'{key}' of shape {list(value.shape)}")
        cuts = slices[key]
        counts = cuts.diff()
        if cuts[0] != 0 or cuts[-1] != len(row) or (counts < 0).any() or (
                not torch.equal(size.setdefault(what, counts), counts)):
            raise ValueError(f"'{key}' in pieces that do not fit")
    if not (size['molecules'] == 1).all() or not len(
            size['molecules']) == len(size['atoms']) == len(size['edges']):
        raise ValueError('molecules that do not fit')
    room = size['atoms'].repeat_interleave(size['edges'])
    index = data['edge_index']
    if len(index) != 2 or (index < 0).any() or (index >= room).any():
        raise ValueError('bonds of atoms that are not there')
    if data['x'].shape[1] < 5 or not data['pos'].isfinite().all():
        raise ValueError("'x' or 'pos' that are not those of QM9")


def _with_aromatic(data: Data, slices: dict[str, Tensor], root: str
                   ) -> Tensor:
    """The types of bonds. As read by RDKit from the SDF file, none of them
    is aromatic; which ones are is found once and kept in the folder.
    """
    kind = data.edge_attr.argmax(1).numpy()
    if (kind == 3).any() or not (kind == 1).any():
        return data.edge_attr
    index = data.edge_index.numpy()
    stamp = np.array([zlib.crc32(np.ascontiguousarray(index).tobytes()),
                      zlib.crc32(kind.tobytes())])
    path = osp.join(root, 'aromatic.npz')
    found = load_npz(path, ('aromatic', 'stamp')) if osp.isfile(
        path) else {}
    aromatic = found.get('aromatic')
    if aromatic is None or aromatic.shape != kind.shape or (
            not np.array_equal(found.get('stamp', ()), stamp)):
        if find_spec('rdkit') is None:
            raise ImportError(
                "Expected RDKit, to find the aromatic bonds of source='pyg', "
                "which was read without (got none). Install it with 'pip "
                "install rdkit'")
        aromatic = _aromatic(data.z.numpy(), index, kind, slices)
        save_npz(path, {'aromatic': aromatic, 'stamp': stamp})
    kind = np.where(aromatic.astype(bool), 3, kind)
    return torch.eye(4)[torch.from_numpy(kind)]


def _aromatic(z: np.ndarray, index: np.ndarray, kind: np.ndarray,
              slices: dict[str, Tensor]) -> np.ndarray:
    out = np.zeros(len(kind), np.uint8)
    atoms, edges = (slices[key].tolist() for key in ('z', 'edge_index'))
    for a, b, c, d in zip(atoms, atoms[1:], edges, edges[1:]):
        # Both directions are there: the bonds are those with row < column.
        once = c + (index[0, c:d] < index[1, c:d]).nonzero()[0]
        back = c + (index[0, c:d] > index[1, c:d]).nonzero()[0]
        bond = index[:, once].T
        here = find_aromatic(z[a:b], bond, kind[once])
        key = {(i, j) for i, j in bond[here].tolist()}
        out[once] = here
        out[back] = [(j, i) in key for i, j in index[:, back].T.tolist()]
    return out
