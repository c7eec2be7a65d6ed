r"""Proteins from PDB and mmCIF files, read through gemmi, which is only
needed here.
"""
from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ... import files
from . import residues as _residues
from .amber99sb import AMINO_ACIDS, PROTONATION, TEMPLATES

#: The largest coordinate in Angstrom; what is larger is no protein.
_FAR = 1e6
#: Of one residue, with alternative positions.
_MOST_ATOMS = 1000
_KNOWN = [*TEMPLATES, *PROTONATION]


class Protein(NamedTuple):
    """All N atoms of a protein, and M residues with their frames."""
    pos: Tensor  # [N, 3]
    x: Tensor  # [N, 2]
    residue: Tensor  # [N]
    centre: Tensor  # [M, 3]
    frame: Tensor  # [M, 3, 3]
    own: Tensor  # [M], the number of the residue itself
    label: Tensor  # [M]


def _gemmi() -> Any:
    try:
        import gemmi
    except ImportError as error:
        raise ImportError("Expected the package 'gemmi', which reads PDB and "
                          "mmCIF files (got none). Install it with 'pip "
                          "install gemmi'") from error
    return gemmi


def read_protein(path: str, skipped: Counter[str]) -> Protein:
    """The protein in a file. Damage is a ValueError with the file's name."""
    gemmi = _gemmi()
    path = files.existing('paths', path, 'PDB or mmCIF files')
    count: Counter[str] = Counter()  # of this file, if all goes well
    with files.reading(path, 'a complete PDB or mmCIF file'):
        structure, elements = _structure(path, gemmi)
        _rename(structure, elements, gemmi)
        structure.setup_entities()
        structure.remove_ligands_and_waters()
        most = max((len(residue) for model in structure for chain in model
                    for residue in chain), default=0)
        if most > _MOST_ATOMS:  # gemmi compares all with all
            raise ValueError(f'{most} atoms in one residue')
        structure.remove_alternative_conformations()
        residues = [residue for model in list(structure)[:1]
                    for chain in model for residue in chain]
        if not any(len(residue) for residue in residues):
            raise ValueError('no residues of a protein')
        protein = _protein(residues, count)
    skipped.update(count)
    return protein


def _structure(path: str, gemmi: Any) -> tuple[Any, bool]:
    """What is in a file, where only ASCII matters, and whether it says
    which elements there are.
    """
    name = path.lower().removesuffix('.gz')
    if not name.endswith(('.pdb', '.ent', '.cif', '.mmcif')):
        raise ValueError("a name that ends in none of '.pdb', '.ent', "
                         "'.cif', '.mmcif'")
    is_pdb = name.endswith(('.pdb', '.ent'))
    text = files.read_text(path)
    if '\0' in text:
        raise ValueError('null characters')
    elements = _check_columns(text) if is_pdb else True
    data = text.encode('ascii', 'replace')
    structure = gemmi.read_pdb_string(data) if is_pdb else \
        gemmi.make_structure_from_block(gemmi.cif.read_string(data)[0])
    structure.merge_chain_parts()
    return structure, elements


def _check_columns(text: str) -> bool:
    """In PDB files gemmi takes what is no number for zero, and guesses
    elements that are not there.
    """
    elements = False
    for number, line in enumerate(text.split('\n'), 1):
        if line.startswith(('ATOM', 'HETATM')):
            try:
                [float(line[i:i + 8]) for i in (30, 38, 46)]
            except ValueError as error:
                raise ValueError(f'line {number}: {error}') from None
            elements = elements or bool(line[76:78].strip())
    return elements


def _rename(structure: Any, elements: bool, gemmi: Any) -> None:
    """Gives all that is known the names of PDB version 3, before gemmi
    tells proteins from ligands; :obj:`flag` says which protonation it is.
    """
    for model in list(structure)[:1]:
        for residue in (residue for chain in model for residue in chain):
            name = _residues.find(residue.name, gemmi)
            if name is None:
                residue.flag = '\0'
                continue
            residue.name = _residues.parent(name)
            residue.flag = chr(1 + _KNOWN.index(name))
            for atom in residue:
                old, atom.name = atom.name, _residues.atom_name(
                    atom.name, residue.name)
                if atom.name in TEMPLATES[residue.name] or (
                        atom.name == 'OXT'):
                    atom.element = gemmi.Element(atom.name[0])
                elif atom.name[:1] == 'H' and not (
                        elements and atom.is_hydrogen()):
                    atom.element = gemmi.Element(
                        old.lstrip('0123456789').upper()[0])


def _protein(residues, count: Counter[str]) -> Protein:
    pos, x, numbers, own, backbone, label = [], [], [], [], [], []
    for number, residue in enumerate(residues):
        atoms = [_residues.Atom(a.name, a.pos.tolist(), a.element.weight,
                                a.is_hydrogen())
                 for a in residue if a.element.atomic_number]
        if len(atoms) < len(residue):
            count['atoms of unknown element'] += len(residue) - len(atoms)
        if residue.flag == '\0':
            count['unknown residues'] += 1
            found = [(atom.mass, 0.) for atom in atoms]
            unknown = len(atoms)
        else:
            # A name twice is an atom twice: one that is hydrogen and
            # deuterium, or under its names in two schemes.
            named = {atom.name: atom for atom in reversed(atoms)}
            atoms = [atom for atom in atoms if named[atom.name] is atom]
            found, unknown = _residues.features(
                _KNOWN[ord(residue.flag) - 1], atoms)
            if named.keys() >= {'N', 'CA', 'C'}:
                own.append(number)
                backbone.append([named[n].pos for n in ('N', 'CA', 'C')])
                label.append(AMINO_ACIDS.index(residue.name))
            else:
                count['residues without backbone'] += 1
        if unknown:
            count['atoms without charge'] += unknown
        pos += [atom.pos for atom in atoms]
        x += found
        numbers += len(atoms) * [number]
    place = np.asarray(pos)
    if not (np.abs(place) <= _FAR).all():
        raise ValueError(f'positions that are no numbers from {-_FAR:.0f} to '
                         f'{_FAR:.0f}')
    N, CA, C = torch.tensor(backbone, dtype=torch.float64).view(
        len(own), 3, 3).unbind(1)
    frame, good = _frames(C - CA, N - CA)
    if not good.all():
        count['residues without backbone'] += int((~good).sum())
    return Protein(torch.from_numpy(place).float().view(-1, 3),
                    torch.tensor(x).view(-1, 2), torch.tensor(numbers),
                    CA[good].float(), frame[good].float(),
                    torch.tensor(own).long()[good],
                    torch.tensor(label).long()[good])


def _frames(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Axes x along a and y towards b as rows, and whether there are any."""
    c = torch.linalg.cross(a, b)
    good = c.norm(dim=-1) > 1e-3
    axes = torch.stack([a, torch.linalg.cross(c, a), c], 1)
    return axes / axes.norm(dim=-1, keepdim=True), good
