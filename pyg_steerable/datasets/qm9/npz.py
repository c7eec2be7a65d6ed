r"""The ``.npz`` layout of QM9: reading, checking, collating.

Per molecule, length :math:`M`: ``id`` (QM9's own number, from 1),
``num_atoms``, ``num_bonds``, ``mu`` [D], ``alpha`` [bohr^3], ``homo lumo gap
zpve U0 U H G`` and ``U0_atom U_atom H_atom G_atom`` [Hartree], ``r2``
[bohr^2], ``Cv`` [cal/(mol K)]. Per atom, all molecules one after the other:
``z`` and ``pos`` [Angstrom] of shape ``[N, 3]``. Per bond, each bond once:
``bond`` ``[B, 2]``, atom indices that start from 0 in every molecule, and
``bond_type`` (0 single, 1 double, 2 triple, 3 aromatic).

Optional: ``A B C`` [GHz] per molecule and ``charge`` (formal) per atom.
"""
from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from ... import files
from ..archive import Arrays, load_npz

HARTREE = 27.211386246  # eV, the value that PyG's QM9 uses

# In the order of PyG's ``QM9.y``; the second entry converts to its units.
COLUMNS = {
    'mu': 1.0,
    'alpha': 1.0,
    'homo': HARTREE,
    'lumo': HARTREE,
    'gap': HARTREE,
    'r2': 1.0,
    'zpve': HARTREE,
    'U0': HARTREE,
    'U': HARTREE,
    'H': HARTREE,
    'G': HARTREE,
    'Cv': 1.0,
    'U0_atom': HARTREE,
    'U_atom': HARTREE,
    'H_atom': HARTREE,
    'G_atom': HARTREE,
    'A': 1.0,
    'B': 1.0,
    'C': 1.0,
}
ELEMENTS = (1, 6, 7, 8, 9)
#: Limits far beyond QM9: atoms of a molecule, coordinates, properties.
_MOST_ATOMS, _FAR, _LARGE = 2**12, 1e6, 1e30
_STRUCTURE = ('id', 'num_atoms', 'num_bonds', 'z', 'pos', 'bond', 'bond_type')
_OPTIONAL = ('A', 'B', 'C', 'charge')
_TARGETS = tuple(key for key in COLUMNS if key not in _OPTIONAL)
_KEYS = (*_STRUCTURE, *_TARGETS)


def read_npz(path: str) -> Arrays:
    """Read and check a file in the layout of this module.

    Args:
        path (str): The ``.npz`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or its content breaks the layout.
    """
    arrays = load_npz(path, (*_KEYS, *_OPTIONAL))
    with files.reading(os.fspath(path), 'molecules of QM9'):
        check_arrays(arrays, os.fspath(path))
    return arrays


def read_collated(path: str) -> tuple[Data, dict[str, Tensor]]:
    """The same as :meth:`collate` makes of it."""
    arrays = read_npz(path)
    with files.reading(os.fspath(path), 'molecules of QM9'):
        return collate(arrays)


def check_arrays(arrays: Arrays, name: str) -> None:
    """Raise a :class:`ValueError` on the first thing that is wrong.

    Args:
        arrays (dict): The arrays, by key.
        name (str): What to call their source in the message.
    """
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f'{name}: expected the keys {list(_KEYS)} (got no {missing}). '
            f'Fix: write these arrays; the layout is described in '
            f'pyg_steerable/datasets/qm9/npz.py')
    _check_shapes(arrays, name)
    _check_numbers(arrays, name)
    _check_atoms(arrays, name)
    _check_bonds(arrays, name)
    _check_molecules(arrays, name)


def _fail(name: str, key: str, expected: str, got: object, fix: str) -> None:
    raise ValueError(f"{name}: key '{key}': expected {expected} (got {got}). "
                     f'Fix: {fix}')


def _check_shapes(arrays: Arrays, name: str) -> None:
    for key in ('id', 'num_atoms', 'num_bonds', 'z', 'bond', 'bond_type'):
        if arrays[key].dtype.kind not in 'iu':
            _fail(name, key, 'integers', f'dtype {arrays[key].dtype}',
                  'store it with an integer dtype')
    mols = len(arrays['id']) if arrays['id'].ndim == 1 else -1
    if mols < 1:
        _fail(name, 'id', 'a 1-D array of at least one molecule',
              f"shape {arrays['id'].shape}", 'write one id per molecule')
    for key in ('num_atoms', 'num_bonds', *_TARGETS, 'A', 'B', 'C'):
        if key in arrays and arrays[key].shape != (mols, ):
            _fail(name, key, f"shape ({mols},) like 'id'",
                  f'shape {arrays[key].shape}', 'one value per molecule')
    for key, low, most in (('num_atoms', 1, _MOST_ATOMS),
                           ('num_bonds', 0, _MOST_ATOMS**2)):
        bad = (arrays[key] < low) | (arrays[key] > most)
        if bad.any():
            where = int(bad.argmax())
            _fail(name, key, f'counts from {low} to {most}',
                  f'{arrays[key][where]} for molecule {where}',
                  'correct or remove that molecule')
    atoms = int(arrays['num_atoms'].sum(dtype=np.int64))
    bonds = int(arrays['num_bonds'].sum(dtype=np.int64))
    _expect_shape(arrays, name, 'z', (atoms, ), 'num_atoms')
    _expect_shape(arrays, name, 'pos', (atoms, 3), 'num_atoms')
    _expect_shape(arrays, name, 'bond', (bonds, 2), 'num_bonds')
    _expect_shape(arrays, name, 'bond_type', (bonds, ), 'num_bonds')
    if 'charge' in arrays:
        _expect_shape(arrays, name, 'charge', (atoms, ), 'num_atoms')


def _expect_shape(arrays: Arrays, name: str, key: str,
                  shape: tuple[int, ...], counts: str) -> None:
    if arrays[key].shape != shape:
        _fail(name, key, f"shape {shape}, from the sum of '{counts}'",
              f'shape {arrays[key].shape}',
              f"make '{key}' and '{counts}' agree")


def _check_numbers(arrays: Arrays, name: str) -> None:
    for key in ('pos', *_TARGETS, *_OPTIONAL):
        if key in arrays and arrays[key].dtype.kind not in 'iuf':
            _fail(name, key, 'numbers', f'dtype {arrays[key].dtype}',
                  'store it with a number type')


def _check_atoms(arrays: Arrays, name: str) -> None:
    mol = np.repeat(np.arange(len(arrays['id'])), arrays['num_atoms'])
    known = np.isin(arrays['z'], ELEMENTS)
    if not known.all():
        where = int(np.argmin(known))
        _fail(name, 'z', f'atomic numbers out of {ELEMENTS} (H, C, N, O, F)',
              f"{arrays['z'][where]} in molecule {mol[where]} "
              f"(id {arrays['id'][mol[where]]})",
              'remove molecules with other elements')
    finite = (np.abs(arrays['pos'].astype(np.float64)) <= _FAR).all(axis=1)
    if not finite.all():
        where = int(np.argmin(finite))
        _fail(name, 'pos', 'finite positions in Angstrom',
              f"{arrays['pos'][where].tolist()} in molecule {mol[where]} "
              f"(id {arrays['id'][mol[where]]})",
              'correct or remove that molecule')


def _check_bonds(arrays: Arrays, name: str) -> None:
    bond, kind = arrays['bond'].astype(np.int64), arrays['bond_type']
    mol = np.repeat(np.arange(len(arrays['id'])), arrays['num_bonds'])
    size = arrays['num_atoms'].astype(np.int64)[mol]
    bad = (bond < 0).any(axis=1) | (bond >= size[:, None]).any(axis=1)
    bad |= bond[:, 0] == bond[:, 1]
    if bad.any():
        where = int(np.argmax(bad))
        _fail(name, 'bond',
              f'two different atom indices from 0 to {size[where] - 1}',
              f'{bond[where].tolist()} in molecule {mol[where]} '
              f"(id {arrays['id'][mol[where]]})",
              'indices count the atoms of one molecule from 0')
    if kind.size and (kind.min() < 0 or kind.max() > 3):
        where = int(np.argmax((kind < 0) | (kind > 3)))
        _fail(name, 'bond_type', '0, 1, 2 or 3 (single, double, triple, '
              'aromatic)', int(kind[where]), 'map other types to these')
    width = int(arrays['num_atoms'].max())
    key = (mol * width + bond.min(axis=1)) * width + bond.max(axis=1)
    unique, first = np.unique(key, return_index=True)
    if len(unique) != len(key):
        where = int(np.setdiff1d(np.arange(len(key)), first)[0])
        _fail(name, 'bond', 'every bond once, in one direction',
              f'{bond[where].tolist()} again in molecule {mol[where]} '
              f"(id {arrays['id'][mol[where]]})", 'remove the repetition')


def _check_molecules(arrays: Arrays, name: str) -> None:
    ids, count = np.unique(arrays['id'], return_counts=True)
    if count.max() > 1 or ids[0] < 1 or ids[-1] >= 2**31:
        _fail(name, 'id', 'distinct QM9 numbers >= 1',
              f'{ids[count.argmax()]} {count.max()} times, '
              f'smallest {ids[0]}, largest {ids[-1]}',
              'keep each molecule once')
    for key in _TARGETS:
        finite = np.abs(arrays[key].astype(np.float64)) <= _LARGE
        if not finite.all():
            where = int(np.argmin(finite))
            _fail(name, key, 'finite values',
                  f'{arrays[key][where]} for molecule {where} '
                  f"(id {arrays['id'][where]})",
                  'correct or remove that molecule')


def collate(arrays: Arrays) -> tuple[Data, dict[str, Tensor]]:
    """Build the storage of an ``InMemoryDataset`` in one go.

    Args:
        arrays (dict): Arrays that passed :meth:`check_arrays`.

    Returns:
        (Data, dict): All molecules end to end, and where each one starts.
    """
    index, attr = _edges(arrays)
    z = torch.from_numpy(arrays['z'].astype(np.int64))
    pos = torch.from_numpy(arrays['pos'].astype(np.float32))
    hot = np.zeros((256, len(ELEMENTS)), np.float32)
    hot[list(ELEMENTS)] = np.eye(len(ELEMENTS))
    data = Data(x=torch.from_numpy(hot[arrays['z']]), z=z, pos=pos,
                edge_index=index, edge_attr=attr,
                y=torch.from_numpy(_targets(arrays)),
                idx=torch.from_numpy(arrays['id'].astype(np.int64) - 1))
    if 'charge' in arrays:
        data.charge = torch.from_numpy(arrays['charge'].astype(np.int64))
    atoms, edges = _starts(arrays['num_atoms']), _starts(
        arrays['num_bonds'].astype(np.int64) * 2)
    mols = torch.arange(len(arrays['id']) + 1)
    where = {'edge_index': edges, 'edge_attr': edges, 'y': mols, 'idx': mols}
    return data, {key: where.get(key, atoms) for key in data.keys()}


def _edges(arrays: Arrays) -> tuple[Tensor, Tensor]:
    bond = arrays['bond'].astype(np.int64)
    both = np.concatenate([bond, bond[:, ::-1]])  # [2B, 2]
    mol = np.repeat(np.arange(len(arrays['id'])), arrays['num_bonds'])
    width = int(arrays['num_atoms'].max())
    key = (np.tile(mol, 2) * width + both[:, 0]) * width + both[:, 1]
    order = np.argsort(key)
    kind = np.tile(arrays['bond_type'], 2)[order]
    attr = np.eye(4, dtype=np.float32)[kind]
    return (torch.from_numpy(both[order].T.copy()), torch.from_numpy(attr))


def _targets(arrays: Arrays) -> NDArray[np.float32]:
    # Converted in float64: U0 is near -11,000 eV, where float32 steps are
    # 1 meV, so a product in float32 would lose more than PyG's own values.
    nan = np.full(len(arrays['id']), np.nan)
    columns = [
        arrays.get(key, nan).astype(np.float64) * factor
        for key, factor in COLUMNS.items()
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _starts(counts: NDArray[Any]) -> Tensor:
    total = np.cumsum(counts, dtype=np.int64)
    return torch.from_numpy(np.concatenate([[0], total]))
