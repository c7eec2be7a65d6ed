r"""CATH: protein domains by architecture.

The data set of the `"3D Steerable CNNs" <https://arxiv.org/abs/1807.02547>`_
paper: ``cath_10arch_ca.npz`` of https://github.com/wouterboomsma/cath_datasets
with 7,110 domains, all atoms within 50 Angstrom of their centre, in ten
splits that share no superfamily.

The layout: ``n_atoms`` ``[n]``, ``positions`` ``[n, P, 3]`` in Angstrom and
``atom_types`` ``[n, P]`` (names, e.g. ``CA``), both filled up after
``n_atoms``, ``labels`` ``[n, ...]`` (numbers of CATH: class and
architecture), ``split_start_indices`` ``[10]``: domains are in the order of
their splits. ``res_indices`` is not needed.
"""
from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from ... import checks, files
from ..archive import Arrays, load_npz
from ..base import LabelledDataset

__all__ = ['CathDomains', 'load_cath']

#: The published use of the ten splits.
SPLITS = {'train': range(7), 'valid': range(7, 8), 'test': range(8, 10)}
#: The largest coordinate in Angstrom; what is larger is no protein.
_FAR = 1e6
_MOST_TYPES = 1024
_KEYS = ('n_atoms', 'positions', 'atom_types', 'labels',
         'split_start_indices')


class CathDomains(LabelledDataset):
    r"""Domains; items are :obj:`Data` with :obj:`pos` :math:`[N, 3]` in
    Angstrom, :obj:`x` :math:`[N, C]`, the type of the atom as one-hot
    vector, and :obj:`y`. Made by :func:`load_cath`.

    Args:
        pos (list[Tensor]): The positions of each domain.
        kind (list[Tensor]): The types of its atoms, as numbers.
        label (Tensor): The classes.
        atom_types (list[str]): The names of the types.
        classes (list[str]): The names of the classes.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        ValueError: If shapes do not fit, or an atom or a domain is of no
            type or class.
    """
    def __init__(self, pos: list[Tensor], kind: list[Tensor], label: Tensor,
                 atom_types: list[str], classes: list[str],
                 transform: Callable | None = None):
        pos = checks.sequence('pos', pos)
        kind = checks.sequence('kind', kind)
        if len(kind) != len(pos):
            raise ValueError(f"Expected 'kind' for each of the {len(pos)} "
                             f"domains of 'pos' (got {len(kind)})")
        self.atom_types = checks.texts('atom_types', atom_types)
        for place, types in zip(pos, kind):
            checks.has_values('pos', checks.positions('pos', place), 'x')
            checks.indices('kind', types, len(self.atom_types), len(place),
                           f'[{len(place)}] like its positions')
        super().__init__(label, classes, transform, pos=pos, kind=kind)

    @property
    def pos(self) -> list[Tensor]:
        """The positions of each domain."""
        return self._column('pos')

    @property
    def kind(self) -> list[Tensor]:
        """The types of its atoms, as numbers."""
        return self._column('kind')

    def get(self, idx: int) -> Data:
        x = torch.nn.functional.one_hot(self._entry('kind', idx).long(),
                                        len(self.atom_types)).float()
        return Data(x=x, pos=self._entry('pos', idx),
                    y=self._entry('label', idx).view(1))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)} domains, '
                f'{len(self.classes)} classes)')


def load_cath(path: str, split: str = 'train',
              transform: Callable | None = None) -> CathDomains:
    r"""Reads one of the published splits. As voxels of the paper, with
    random rotations for training:

    .. code-block:: python

        voxels = GaussianDensities(size=50, spacing=2.)
        train = load_cath(path, 'train', T.Compose([
            RandomGroupElement('SO(3)'), voxels]))
        test = load_cath(path, 'test', voxels)
        train[0].voxels                                 # [1, 50, 50, 50]

    Args:
        path (str): A file in the layout of this module.
        split (str, optional): :obj:`"train"` (splits 0 to 6),
            :obj:`"valid"` (7) or :obj:`"test"` (8 and 9).
            (default: :obj:`"train"`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, lacks an array, or the arrays do not
            fit.
    """
    checks.choice('split', split, list(SPLITS))
    arrays = load_npz(path, _KEYS)
    with files.reading(os.fspath(path), 'domains of CATH'):
        _check(arrays)
        return _domains(arrays, split, transform)


def _domains(arrays: Arrays, split: str, transform: Callable | None
             ) -> CathDomains:
    # Classes and types are numbered over the whole file, not the split.
    codes, label = np.unique(arrays['labels'].reshape(
        len(arrays['labels']), -1), axis=0, return_inverse=True)
    used = _used(arrays)
    names, kind = np.unique(arrays['atom_types'][used], return_inverse=True)
    if len(names) > _MOST_TYPES:
        raise ValueError(f"Expected at most {_MOST_TYPES} types of atoms in "
                         f"'atom_types' (got {len(names)})")
    counts = used.sum(1).tolist()
    pos = torch.from_numpy(arrays['positions'][used].astype(np.float32))
    pos, kind = pos.split(counts), torch.from_numpy(kind).split(counts)
    starts = [*arrays['split_start_indices'].tolist(), len(counts)]
    first, last = SPLITS[split].start, SPLITS[split].stop
    here = slice(starts[first], starts[last])
    return CathDomains(list(pos[here]), list(kind[here]),
                       torch.from_numpy(label.reshape(-1))[here],
                       [str(n) for n in names.astype(str)],
                       ['.'.join(str(i) for i in code) for code in codes],
                       transform)


def _used(arrays: Arrays) -> np.ndarray:
    """Which of the places for atoms are in use, [n, P]."""
    places = np.arange(arrays['positions'].shape[1])
    return places < arrays['n_atoms'][:, None]


def _check(arrays: Arrays) -> None:
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f'Expected the arrays {list(_KEYS)} (got no '
                         f'{missing})')
    n_atoms, positions, types, labels, starts = (arrays[k] for k in _KEYS)
    for key, kinds in (('n_atoms', 'iu'), ('positions', 'iuf'),
                       ('atom_types', 'SU'), ('split_start_indices', 'iu')):
        if arrays[key].dtype.kind not in kinds:
            what = 'strings' if kinds == 'SU' else (
                'numbers' if 'f' in kinds else 'integers')
            raise ValueError(f"Expected '{key}' to hold {what} (got "
                             f"{arrays[key].dtype})")
    if n_atoms.ndim != 1:
        raise ValueError(f"Expected 'n_atoms' of shape [n] (got "
                         f"{list(n_atoms.shape)})")
    n, room = len(n_atoms), positions.shape[1:2]
    if positions.shape != (n, *room, 3) or types.shape != (n, *room):
        raise ValueError(f"Expected 'positions' of shape [{n}, P, 3] and "
                         f"'atom_types' [{n}, P] (got "
                         f"{list(positions.shape)} and {list(types.shape)})")
    if labels.shape[:1] != (n, ):
        raise ValueError(f"Expected 'labels' of shape [{n}, ...], one row "
                         f"for each domain (got {list(labels.shape)})")
    if n_atoms.min(initial=1) < 1 or n_atoms.max(initial=0) > room[0]:
        raise ValueError(f"Expected 'n_atoms' from 1 to {room[0]} (got "
                         f"{n_atoms.min()} to {n_atoms.max()})")
    splits = SPLITS['test'].stop
    rising = (np.diff([*map(int, starts.ravel()), n]) > 0).all()
    if starts.shape != (splits, ) or starts[0] != 0 or not rising:
        raise ValueError(f"Expected 'split_start_indices' to be {splits} "
                         f"rising numbers from 0 to less than {n} (got "
                         f"{checks.show(starts.tolist())})")
    used = _used(arrays)
    near = np.abs(positions.astype(np.float64)) <= _FAR
    bad = (~near.all(-1) & used).any(1)
    if bad.any():
        raise ValueError(f"Expected 'positions' up to {_FAR:g} (got nan "
                         f"or others in domain {int(bad.argmax())})")
    empty = types == np.zeros(1, types.dtype)
    bad = (empty & used).any(1)
    if bad.any():
        raise ValueError(f"Expected a type for every atom in 'atom_types' "
                         f"(got none in domain {int(bad.argmax())})")
