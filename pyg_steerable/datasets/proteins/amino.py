r"""The surroundings of residues in proteins, to tell which amino acid is
missing there: the task of section 5.4 of the `"3D Steerable CNNs"
<https://arxiv.org/abs/1807.02547>`_ paper. Reads PDB and mmCIF files through
gemmi, which is only needed here.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from pyg_steerable import checks, files
from pyg_steerable.datasets import _items
from pyg_steerable.datasets.proteins import residues as _residues
from pyg_steerable.datasets.proteins.amber99sb import (
    AMINO_ACIDS,
    PROTONATION,
    TEMPLATES,
)
from pyg_steerable.datasets.qm9.molecules import Split

#: The largest coordinate in Angstrom; what is larger is no protein.
_FAR = 1e6
#: Of one residue, with alternative positions.
_MOST_ATOMS = 1000
_KNOWN = [*TEMPLATES, *PROTONATION]


class _Protein(NamedTuple):
    """All N atoms of a protein, and M residues with their frames."""
    pos: Tensor  # [N, 3]
    x: Tensor  # [N, 2]
    residue: Tensor  # [N]
    centre: Tensor  # [M, 3]
    frame: Tensor  # [M, 3, 3]
    own: Tensor  # [M], the number of the residue itself
    label: Tensor  # [M]


class AminoAcidEnvironments(Dataset):
    r"""For each residue of the given proteins the atoms of all *other*
    residues around it; items are :obj:`Data` with

    * :obj:`pos` float :math:`[N, 3]`: positions in Angstrom in the frame of
      the residue, with CA at the origin, C along *x* and N in the plane of
      *x* and *y*
    * :obj:`x` float :math:`[N, 2]`: mass and partial charge (AMBER99SB)
    * :obj:`y` long :math:`[1]`: the amino acid, in the order of
      :obj:`classes`

    As voxels, two to the Angstrom and every atom in one of them, as in the
    baseline of the paper:

    .. code-block:: python

        data = AminoAcidEnvironments(paths, transform=GaussianDensities(
            size=48, spacing=0.5, sigma=0.))
        data[0].voxels                                  # [2, 48, 48, 48]

    Of each file, the first model and the first of alternative positions are
    read, without water and ligands. Hydrogens that a file lacks give their
    mass and charge to the atom that bears them. Names may be those of PDB
    (versions 2 and 3), AMBER, CHARMM or GROMACS: ``HID``, ``HSD`` and their
    like are the amino acid that they are, as protonated as the name or the
    hydrogens say (a ``CYS`` has its hydrogen, only a ``CYX`` has none), and
    deuterium has its own mass. What cannot be used is counted in
    :obj:`skipped`:

    * ``'unknown residues'``: none of the twenty amino acids; no item, but
      part of the surroundings of others
    * ``'residues without backbone'``: N, CA or C is missing, or the three
      are in line; the same
    * ``'atoms of unknown element'``: left out altogether
    * ``'atoms without charge'``: not in the force field's residue; charge 0
    * ``'files'``: damaged, with :obj:`on_error='skip'`; names and reasons
      are in :obj:`errors`

    Args:
        paths (list[str]): The files, ``.pdb``, ``.ent``, ``.cif`` or
            ``.mmcif``, also with ``.gz``.
        radius (float, optional): The largest distance of atoms from CA.
            (default: :obj:`12.0`)
        on_error (str, optional): What to do about damaged files,
            :obj:`"error"` or :obj:`"skip"`. (default: :obj:`"error"`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        ImportError: If gemmi is missing.
        FileNotFoundError: If there is no such file.
        ValueError: If a file is damaged, or no residue is left.
    """
    classes = list(AMINO_ACIDS)

    def __init__(self, paths: Sequence[str], radius: float = 12.,
                 on_error: str = 'error', transform: Callable | None = None):
        checks.choice('on_error', on_error, ('error', 'skip'))
        self.radius = checks.positive('radius', radius)
        self.transform = _items.transform(transform)
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else \
            checks.sequence('paths', paths)
        paths = [checks.path('paths', path) for path in paths]
        self.skipped: Counter[str] = Counter()
        self.errors: dict[str, str] = {}
        self.proteins: list[_Protein] = []
        for path in paths:
            try:
                self.proteins.append(_read(path, self.skipped))
            except ValueError as error:
                if on_error == 'error':
                    raise
                self.skipped['files'] += 1
                self.errors[path] = str(error)
        sizes = torch.tensor([len(p.label) for p in self.proteins]).long()
        #: The protein that each item belongs to, of those read.
        self.protein = torch.arange(len(sizes)).repeat_interleave(sizes)
        self._start = sizes.cumsum(0) - sizes
        if not len(self.protein):
            names = ', '.join(paths[:3]) + ', ...' * (len(paths) > 3)
            raise ValueError(f'Expected at least one residue to classify in '
                             f"'paths' (got none in {len(paths)} files, "
                             f'{names}; skipped: {dict(self.skipped)})')

    @property
    def label(self) -> Tensor:
        """The amino acids of all items."""
        return torch.cat([p.label for p in self.proteins])

    def counts(self) -> Tensor:
        """The number of items of each class."""
        return self.label.bincount(minlength=len(self.classes))

    def __len__(self) -> int:
        return len(self.protein)

    def __getitem__(self, i: int) -> Data:
        i = _items.index(i, len(self))
        number = self.protein[i]
        p, k = self.proteins[number], i - int(self._start[number])
        pos = p.pos - p.centre[k]
        near = (pos.norm(dim=-1) <= self.radius) & (p.residue != p.own[k])
        data = Data(x=p.x[near], pos=pos[near] @ p.frame[k].T,
                    y=p.label[k:k + 1].clone())
        return data if self.transform is None else self.transform(data)

    def split(self, seed: int = 0, num_valid: int = 10) -> Split:
        r"""Items for training, validation and testing, by protein: a quarter
        of the proteins for testing and ten for validation in the paper's
        baseline.

        Args:
            seed (int, optional): (default: :obj:`0`)
            num_valid (int, optional): (default: :obj:`10`)

        Raises:
            ValueError: If no protein is left for training.
        """
        n = len(self.proteins)
        test = -(-n // 4)
        seed = checks.integer('seed', seed, 0, 2**32 - 1)
        num_valid = checks.integer('num_valid', num_valid, 0)
        if n - test - num_valid < 1:
            raise ValueError(f"Expected 'num_valid' to leave proteins for "
                             f"training (got {num_valid}, with {test} of "
                             f"{n} for testing)")
        order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
        parts = order.split([n - test - num_valid, num_valid, test])
        return Split(*(torch.isin(self.protein, part).nonzero().flatten()
                       for part in parts))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({len(self)} residues of '
                f'{len(self.proteins)} proteins)')


# Files #######################################################################


def _gemmi() -> Any:
    try:
        import gemmi
    except ImportError as error:
        raise ImportError("Expected the package 'gemmi', which reads PDB and "
                          "mmCIF files (got none). Install it with 'pip "
                          "install gemmi'") from error
    return gemmi


def _read(path: str, skipped: Counter[str]) -> _Protein:
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


def _protein(residues, count: Counter[str]) -> _Protein:
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
            place = {atom.name: atom for atom in reversed(atoms)}
            atoms = [atom for atom in atoms if place[atom.name] is atom]
            found, unknown = _residues.features(
                _KNOWN[ord(residue.flag) - 1], atoms)
            if place.keys() >= {'N', 'CA', 'C'}:
                own.append(number)
                backbone.append([place[n].pos for n in ('N', 'CA', 'C')])
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
    return _Protein(torch.from_numpy(place).float().view(-1, 3),
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
