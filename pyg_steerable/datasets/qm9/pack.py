"""QM9 from the PyPI package ``qm9pack``, with bonds by RDKit."""
from __future__ import annotations

import csv
import os
import os.path as osp
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import files

Arrays = dict[str, NDArray[Any]]

_FILES = ('qm9_part1.csv', 'qm9_part2.csv', 'qm9_part3.csv')

# Our key -> (column of the package's tables, stored dtype). The spelling
# "Enthalphy" is the package's own. Total energies need the full seven
# digits after the point, which float32 cannot hold at -500 Hartree.
_COLUMNS = {
    'mu': ('Dipole_debye', np.float32),
    'alpha': ('Polarizability_bohr3', np.float32),
    'homo': ('HOMO_au', np.float32),
    'lumo': ('LUMO_au', np.float32),
    'gap': ('HOMO_LUMO_gap_au', np.float32),
    'r2': ('R2_bohr2', np.float32),
    'zpve': ('ZPVE_au', np.float32),
    'U0': ('InternalEnergy_0K_au', np.float64),
    'U': ('InternalEnergy_298K_au', np.float64),
    'H': ('Enthalphy_298K_au', np.float64),
    'G': ('GibbsFreeEnergy_298K_au', np.float64),
    'Cv': ('Heatcapacity_Cv_cal_mol_K', np.float32),
    'A': ('RotA_GHz', np.float32),
    'B': ('RotB_GHz', np.float32),
    'C': ('RotC_GHz', np.float32),
}

_FIX = 'pip install --force-reinstall qm9pack==1.0.3'
#: QM9 has no more, and no coordinate as large [Angstrom].
_MOST_ATOMS, _FAR = 29, 1e3
_NUMBERS = {'H': 1, 'C': 6, 'N': 7, 'O': 8, 'F': 9}

# Energies of the free atoms in Hartree, same level of theory
# (B3LYP/6-31G(2df,p)), from the table published with QM9
# (doi:10.6084/m9.figshare.c.978904). Rows H, C, N, O, F.
ATOM_ENERGIES = {
    'U0': (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    'U': (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    'H': (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    'G': (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}

# Two atoms are bonded if closer than this multiple of the sum of their
# covalent radii. RDKit's default of 1.3 alone fails on one molecule in
# fourteen, because it bonds atoms across small strained cages (1.87 A in
# bicyclo[1.1.1]pentane); going down from it keeps the long N-O bonds (1.7 A).
_COVALENT_FACTORS = (1.3, 1.25, 1.2, 1.15, 1.1)


def find_tables() -> str:
    """Return the folder with the tables of the installed ``qm9pack``.

    The package itself is not imported: it needs ``pkg_resources``, which
    setuptools removed in version 82.

    Raises:
        ImportError: If ``qm9pack`` is not installed.
    """
    spec = find_spec('qm9pack')
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("source='qm9pack' needs the package 'qm9pack': "
                          "pip install qm9pack rdkit (104 MB; pandas, which "
                          "it lists, is not used here)")
    return osp.join(next(iter(spec.submodule_search_locations)), 'data')


def read_tables(folder: str) -> list[dict[str, str]]:
    """Return all rows of the package's tables, in the order of QM9."""
    rows: list[dict[str, str]] = []
    for name in _FILES:
        path = osp.join(folder, name)
        if not osp.isfile(path):
            raise ValueError(
                f'Expected the table {name} in {folder} (found '
                f'{sorted(os.listdir(folder))}). Fix: {_FIX}')
        with files.reading(path, 'a table of qm9pack', _FIX):
            lines = files.read_text(path).split('\n')
            for row in csv.DictReader(lines):
                if not 0 < int(row['Index']) < 2**31:
                    raise ValueError(f"the 'Index' {row['Index']}")
                rows.append({**row, 'file': path})
    rows.sort(key=lambda row: int(row['Index']))
    return rows


def parse_molecule(row: dict[str, str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return atomic numbers ``[n]`` and float64 positions ``[n, 3]``."""
    name = f'qm9pack molecule {row["Index"]}'
    symbols = row['Elements'].translate(_STRIP).split(',')
    pos = np.array(row['XYZ_Ang'].translate(_STRIP).split(','), float)
    if len(symbols) > _MOST_ATOMS or set(symbols) - _NUMBERS.keys():
        raise ValueError(f'{name}: expected at most {_MOST_ATOMS} atoms of '
                         f'{list(_NUMBERS)} (got {len(symbols)}, '
                         f'{sorted(set(symbols))[:9]}). Fix: {_FIX}')
    z = np.array([_NUMBERS[s] for s in symbols], np.uint8)
    if pos.size != 3 * z.size:
        raise ValueError(f'{name}: expected {3 * z.size} coordinates for '
                         f'{z.size} atoms (got {pos.size}). Fix: {_FIX}')
    if not (np.abs(pos) < _FAR).all():
        raise ValueError(f'{name}: expected coordinates in Angstrom (got '
                         f'{np.abs(pos).max()}). Fix: {_FIX}')
    return z, pos.reshape(-1, 3)


def parse_properties(row: dict[str, str]) -> list[float]:
    """Return the numbers of :obj:`_COLUMNS`, all of them finite."""
    values = [float(row[column]) for column, _ in _COLUMNS.values()]
    if not (np.abs(values) < 1e30).all():
        raise ValueError(f'qm9pack molecule {row["Index"]}: expected finite '
                         f'properties (got {values}). Fix: {_FIX}')
    return values


_STRIP = str.maketrans('', '', '[]\'" ')


def find_bonds(z: NDArray[Any], pos: NDArray[Any]) -> Any:
    """Assign bonds and formal charges from coordinates with RDKit.

    ``DetermineBonds`` gets total charge 0; formal charges may appear on
    atoms (zwitterions). Several distance factors are tried in a fixed order
    and the first whose molecule is one connected, valid structure is taken.

    Args:
        z (numpy.ndarray): Atomic numbers ``[n]``.
        pos (numpy.ndarray): Positions ``[n, 3]`` in Angstrom.

    Returns:
        tuple or None: ``bond`` uint8 ``[b, 2]``, ``bond_type`` uint8
        ``[b]`` (0 single, 1 double, 2 triple, 3 aromatic) and ``charge``
        int8 ``[n]``; :obj:`None` if no factor works.
    """
    for factor in _COVALENT_FACTORS:
        mol = _determine(z, pos, factor)
        if mol is not None:
            return _tabulate(mol)
    return None


def _determine(z: NDArray[Any], pos: NDArray[Any], factor: float) -> Any:
    from rdkit import Chem
    from rdkit.Chem import rdDetermineBonds
    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(z))
    for i, (number, point) in enumerate(zip(z.tolist(), pos.tolist(),
                                            strict=True)):
        mol.AddAtom(Chem.Atom(number))
        conformer.SetAtomPosition(i, point)
    mol.AddConformer(conformer)
    try:
        rdDetermineBonds.DetermineBonds(mol, charge=0, useVdw=True,
                                        covFactor=factor)
    except ValueError:  # also RDKit's sanitisation errors
        return None
    return mol if len(Chem.GetMolFrags(mol)) == 1 else None


def _tabulate(mol: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    names = {'SINGLE': 0, 'DOUBLE': 1, 'TRIPLE': 2, 'AROMATIC': 3}
    bonds = list(mol.GetBonds())
    pairs = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in bonds]
    types = [names[b.GetBondType().name] for b in bonds]
    charges = [a.GetFormalCharge() for a in mol.GetAtoms()]
    return (np.array(pairs, np.uint8).reshape(-1, 2),
            np.array(types, np.uint8), np.array(charges, np.int8))


def build_arrays(rows: Sequence[dict[str, str]],
                 progress: bool = False) -> Arrays:
    """Turn table rows into the arrays of the ``.npz`` layout.

    Molecules whose bonds cannot be assigned are left out with one warning
    that counts and names them (none in qm9pack 1.0.3).

    Args:
        rows (sequence): Rows from :meth:`read_tables`.
        progress (bool, optional): Show a progress bar, half a minute for
            all of QM9. (default: :obj:`False`)

    Raises:
        ImportError: If RDKit is not installed.
    """
    if find_spec('rdkit') is None:
        raise ImportError("Bonds for source='qm9pack' need RDKit: "
                          'pip install rdkit')
    kept, lost, parts = [], [], []
    with _quiet_rdkit():
        for row in _bar(rows, progress):
            with files.reading(row.get('file', 'qm9pack'), f"molecule "
                                f"{row.get('Index')} of QM9", _FIX):
                z, pos = parse_molecule(row)
                values = parse_properties(row)
                found = find_bonds(z, pos)
            if found is None:
                lost.append(int(row['Index']))
                continue
            kept.append((int(row['Index']), values))
            parts.append((z, pos, *found))
    if lost:
        warnings.warn(
            f'{len(lost)} of {len(rows)} molecules are left out: RDKit found '
            f'no bonds for QM9 ids {lost}', stacklevel=2)
    return _join(kept, parts)


def _join(rows: Sequence[tuple[int, list[float]]], parts: Sequence[Any]
          ) -> Arrays:
    if not parts:
        raise ValueError('Expected at least one molecule with bonds (got 0)')
    z, pos, bond, bond_type, charge = zip(*parts, strict=True)
    out: Arrays = {
        'id': np.array([number for number, _ in rows], np.int32),
        'num_atoms': np.array([len(a) for a in z], np.int32),
        'num_bonds': np.array([len(b) for b in bond], np.int32),
        'z': np.concatenate(z),
        'pos': np.concatenate(pos).astype(np.float32),
        'bond': np.concatenate(bond),
        'bond_type': np.concatenate(bond_type),
        'charge': np.concatenate(charge),
    }
    columns = zip(*(values for _, values in rows), strict=True)
    for (key, (_, dtype)), values in zip(_COLUMNS.items(), columns,
                                         strict=True):
        out[key] = np.array(values, dtype)
    add_atomisation(out)
    return out


def add_atomisation(arrays: Arrays) -> None:
    """Add ``U0_atom``, ... = molecule minus its free atoms, in Hartree."""
    mol = np.repeat(np.arange(len(arrays['num_atoms'])), arrays['num_atoms'])
    for key, refs in ATOM_ENERGIES.items():
        per_number = np.zeros(256)
        per_number[list(_NUMBERS.values())] = refs
        atoms = np.bincount(mol, weights=per_number[arrays['z']])
        arrays[f'{key}_atom'] = (arrays[key] - atoms).astype(np.float32)


class _quiet_rdkit:
    """Mute RDKit's log inside a ``with`` block."""

    def __enter__(self) -> None:
        from rdkit import rdBase
        self._block = rdBase.BlockLogs()

    def __exit__(self, *args: object) -> None:
        del self._block


def _bar(rows: Sequence[Any], progress: bool) -> Iterator[Any]:
    if progress:
        from tqdm import tqdm  # torch_geometric brings it
        return iter(tqdm(rows, desc='QM9 bonds', mininterval=1.0))
    return iter(rows)
