"""Amino acids by the names of their atoms, in all schemes: PDB (versions 2
and 3), AMBER, CHARMM, GROMACS.

Hydrogens are not looked up by name. Each is given to the heavy atom that
bears it, by the place in its name (``HB1``, ``1HB`` and ``DB1`` are at CB),
and then only their number counts.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from .amber99sb import (
    AMINO_ACIDS,
    PARENT,
    PROTONATION,
    TEMPLATES,
    HeavyAtom,
)

HYDROGEN = 1.00794  # its mass

_SAME = {
    'HIS': 'HIE HSE HISB HISE HIS2',
    'HID': 'HSD HISA HISD HIS1',
    'HIP': 'HSP HISH HISP',
    'CYS': 'CYSH CYSN',
    'CYX': 'CYS2 CYSS',
    'CYM': 'CYSM',
    'ASH': 'ASPH ASPP',
    'GLH': 'GLUH GLUP',
    'LYS': 'LYSH LYSP LYP',
    'LYN': 'LSN LYSN',
}
_RESIDUES = {other: name for name, others in _SAME.items()
             for other in others.split()}
_ATOMS = {"O'": 'O', 'OT1': 'O', 'O1': 'O', 'OC1': 'O', "O''": 'OXT',
          'OT': 'OXT', 'OT2': 'OXT', 'O2': 'OXT', 'OC2': 'OXT'}
# With these hydrogens a residue is another one, whatever its name.
_ACIDS = {'ASP': ('ASH', 'OD1', 'OD2'), 'GLU': ('GLH', 'OE1', 'OE2')}
_HYDROGEN_NAME = re.compile(r"(\d*)[HD]([A-Z]*\d*)[*']*")
#: A hydrogen of unknown name belongs to an atom that is no farther.
_BOND = 1.3


class Atom(NamedTuple):
    """An atom of a known residue: name by PDB version 3, mass in Dalton."""
    name: str
    pos: list[float]
    mass: float
    hydrogen: bool


def find(name: str, gemmi: Any) -> str | None:
    """The name that :func:`template` has for a residue, if any."""
    name = name.upper()
    end = name[1:] if len(name) == 4 and name[0] in 'NC' else name
    for known in (name, end):  # AMBER's NALA and CALA are ends of chains
        known = _RESIDUES.get(known, known)
        if known in TEMPLATES or known in PROTONATION:
            return known
    row = gemmi.find_tabulated_residue(name)
    if row.is_amino_acid() and row.is_standard():  # the same by another name
        for known in AMINO_ACIDS:
            if (gemmi.find_tabulated_residue(known).one_letter_code
                    == row.one_letter_code):
                return known
    return None


def parent(name: str) -> str:
    """Which of the twenty it is."""
    return PARENT.get(name, name)


def atom_name(name: str, residue: str) -> str:
    """The name that PDB version 3 has for an atom of a known residue, or
    for a hydrogen one of the same form: ``1HB`` is ``HB1``, ``DA`` is
    ``HA``.
    """
    name = name.upper()
    if residue == 'ILE' and name == 'CD':
        return 'CD1'
    match = _HYDROGEN_NAME.fullmatch(name)
    return f'H{match[2]}{match[1]}' if match else _ATOMS.get(name, name)


def features(residue: str, atoms: list[Atom]) -> tuple[
        list[tuple[float, float]], int]:
    """The mass and the charge of each atom of a residue, and the number of
    atoms without charge. Hydrogens that are not there count to the atoms
    that would bear them.
    """
    heavy = [atom for atom in atoms if not atom.hydrogen]
    bearers = [(_bearer(atom.name, parent(residue)) or _nearest(atom, heavy))
               if atom.hydrogen else None for atom in atoms]
    there, number = [name for name in bearers if name], Counter[str]()
    template = _template(residue, set(there))
    protonated = there.count('N') == len(_hydrogens(template, 'N')) + 2
    out, unknown = [], 0
    for atom, bearer in zip(atoms, bearers):
        mass, charge = atom.mass, 0.
        if bearer:
            given = _hydrogens(template, bearer)
            if number[bearer] < len(given):
                charge = given[number[bearer]]
            elif bearer == 'N' and protonated:
                charge = 0.5
            elif bearer == 'OXT':
                charge = 1.
            number[bearer] += 1
        elif atom.name in template and not atom.hydrogen:
            given = list(template[atom.name].hydrogens.values())
            missing = given[there.count(atom.name):]
            mass += len(missing) * HYDROGEN
            charge = template[atom.name].charge + sum(missing)
        elif atom.name == 'OXT':
            # Not its charge in the force field, which differs by residue:
            # with this one the end has the right charge in all.
            charge = -1.
        else:
            unknown += 1
        out.append((mass, charge))
    return out, unknown


def _hydrogens(template: dict[str, HeavyAtom], name: str) -> list[float]:
    """Their charges at a heavy atom."""
    return list(template[name].hydrogens.values()) if name in template else []


def _template(residue: str, bearers: set[str]) -> dict[str, HeavyAtom]:
    """The heavy atoms of a residue, as protonated as the file says."""
    base = parent(residue)
    if base == 'HIS' and 'ND1' in bearers:
        residue = 'HIP' if residue == 'HIP' or 'NE2' in bearers else 'HID'
    elif base == 'HIS' and residue == 'HID' and 'NE2' in bearers:
        residue = 'HIS'
    elif base in _ACIDS:
        acid, first, second = _ACIDS[base]
        if first in bearers and second not in bearers:
            template = PROTONATION[acid]
            return template | {first: template[second],
                               second: template[first]}
        residue = acid if second in bearers else residue
    return TEMPLATES.get(residue) or PROTONATION[residue]


@lru_cache(maxsize=2**14)
def _bearer(name: str, base: str) -> str | None:
    """The heavy atom of one of the twenty that a hydrogen belongs to, by
    the name of the hydrogen.
    """
    for heavy, (_, hydrogens) in TEMPLATES[base].items():
        if name in hydrogens:
            return heavy
    place = name[1:]
    if re.fullmatch('[NT]?[1-3]?', place):
        return 'N'
    if place in ('O', 'XT', 'OXT', 'OC'):
        return 'OXT'
    short = place.rstrip('0123456789')
    bear = {heavy for t in (TEMPLATES[base], *(
        PROTONATION[k] for k, other in PARENT.items() if other == base))
        for heavy, (_, hydrogens) in t.items() if hydrogens}
    bear.update(_ACIDS.get(base, ())[1:])
    for end in (f'{place}$', f'{place[:-1]}$', rf'{short}\d*$'):
        found = [heavy for heavy in bear if re.match(end, heavy[1:])]
        if short and len(found) == 1:
            return found[0]
    return None


def _nearest(atom: Atom, heavy: Iterable[Atom]) -> str | None:
    def far(other: Atom) -> float:
        return sum((a - b)**2 for a, b in zip(atom.pos, other.pos))

    found = min(heavy, key=far, default=None)
    return found.name if found and far(found) < _BOND**2 else None
