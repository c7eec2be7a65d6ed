r"""The surroundings of residues in proteins, to tell which amino acid is
missing there: the task of section 5.4 of the `"3D Steerable CNNs"
<https://arxiv.org/abs/1807.02547>`_ paper. Reads PDB and mmCIF files through
gemmi, which is only needed here.
"""
from __future__ import annotations

import gzip
import os
import os.path as osp
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from pyg_steerable.datasets._amber99sb import AMINO_ACIDS, ENDS, TEMPLATES
from pyg_steerable.datasets.qm9 import Split

_HYDROGEN = 1.00794  # its mass


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
    mass and charge to the atom that bears them. What cannot be used is
    counted in :obj:`skipped`:

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
        if on_error not in ('error', 'skip'):
            raise ValueError(f"Expected 'on_error' to be 'error' or 'skip' "
                             f"(got {on_error!r})")
        if not 0 < radius < float('inf'):
            raise ValueError(f"Expected 'radius' to be a positive number "
                             f"(got {radius})")
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
        self.radius, self.transform = radius, transform
        self.skipped: Counter[str] = Counter()
        self.errors: dict[str, str] = {}
        self.proteins: list[_Protein] = []
        for path in map(os.fspath, paths):
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
            raise ValueError(f'Expected at least one residue to classify '
                             f'(got none in {len(paths)} files, skipped: '
                             f'{dict(self.skipped)})')

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
        number = self.protein[i]
        p, k = self.proteins[number], range(len(self))[i] - int(
            self._start[number])
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
        if num_valid < 0 or n - test - num_valid < 1:
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
    if not osp.isfile(path):
        raise FileNotFoundError(f"Expected a PDB or mmCIF file (got "
                                f"'{path}', which does not exist)")
    try:
        _check_columns(path)
        structure = gemmi.read_structure(path)
        structure.setup_entities()
        structure.remove_alternative_conformations()
        structure.remove_ligands_and_waters()
        residues = [residue for model in list(structure)[:1]
                    for chain in model for residue in chain]
        if not any(len(residue) for residue in residues):
            raise ValueError('no residues of a protein')
        count: Counter[str] = Counter()  # of this file, if all goes well
        protein = _protein(residues, count)
    except (RuntimeError, ValueError, OSError, EOFError,
            zlib.error) as error:
        raise ValueError(f'{path}: expected a complete PDB or mmCIF file '
                         f'(got {type(error).__name__}: {error})') from error
    skipped.update(count)
    return protein


def _check_columns(path: str) -> None:
    """In PDB files gemmi takes what is no number for zero."""
    name = path.removesuffix('.gz')
    if not name.lower().endswith(('.pdb', '.ent')):
        return
    with (open if name == path else gzip.open)(path, 'rt') as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(('ATOM', 'HETATM')):
                try:
                    [float(line[i:i + 8]) for i in (30, 38, 46)]
                except ValueError as error:
                    raise ValueError(f'line {number}: {error}') from None


def _protein(residues, count: Counter[str]) -> _Protein:
    pos, x, numbers, own, backbone, label = [], [], [], [], [], []
    for number, residue in enumerate(residues):
        place = {}
        atoms = [a for a in residue if a.element.atomic_number]
        if len(atoms) < len(residue):
            count['atoms of unknown element'] += len(residue) - len(atoms)
        for atom, feature in zip(atoms, _features(residue.name, atoms,
                                                  count)):
            place[atom.name] = atom.pos.tolist()
            pos.append(place[atom.name])
            x.append(feature)
            numbers.append(number)
        if residue.name not in TEMPLATES:
            count['unknown residues'] += 1
        elif not place.keys() >= {'N', 'CA', 'C'}:
            count['residues without backbone'] += 1
        else:
            own.append(number)
            backbone.append([place[name] for name in ('N', 'CA', 'C')])
            label.append(AMINO_ACIDS.index(residue.name))
    if not np.isfinite(pos).all():
        raise ValueError('positions that are no numbers')
    N, CA, C = torch.tensor(backbone, dtype=torch.float64).view(
        len(own), 3, 3).unbind(1)
    frame, good = _frames(C - CA, N - CA)
    if not good.all():
        count['residues without backbone'] += int((~good).sum())
    return _Protein(torch.tensor(pos).view(-1, 3),
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


def _features(residue: str, atoms, count: Counter[str]
              ) -> list[tuple[float, float]]:
    """The mass and the charge of each atom of a residue."""
    template = TEMPLATES.get(residue, {})
    there = {atom.name for atom in atoms}
    charges = dict(ENDS)
    for heavy in template.values():
        charges.update(heavy.hydrogens)
    features = []
    for atom in atoms:
        mass, charge = atom.element.weight, charges.get(atom.name, 0.)
        if atom.name in template:
            heavy = template[atom.name]
            missing = heavy.hydrogens.keys() - there
            mass += len(missing) * _HYDROGEN
            charge = heavy.charge + sum(heavy.hydrogens[h] for h in missing)
        elif atom.name not in charges:
            count['atoms without charge'] += 1
        features.append((mass, charge))
    return features
