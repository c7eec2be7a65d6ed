r"""The surroundings of residues in proteins, to tell which amino acid is
missing there: the task of section 5.4 of the `"3D Steerable CNNs"
<https://arxiv.org/abs/1807.02547>`_ paper. Reads PDB and mmCIF files through
gemmi, which is only needed here.
"""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from ... import checks
from ..base import LabelledDataset, Split, read_transform
from .amber99sb import AMINO_ACIDS
from .pdb import Protein, read_protein

__all__ = ['AminoAcidEnvironments']


class AminoAcidEnvironments(LabelledDataset):
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
      lie on one line; the same
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
        transform = read_transform(transform)
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else \
            checks.sequence('paths', paths)
        paths = [checks.path('paths', path) for path in paths]
        self.skipped: Counter[str] = Counter()
        self.errors: dict[str, str] = {}
        self.proteins: list[Protein] = []
        for path in paths:
            try:
                self.proteins.append(read_protein(path, self.skipped))
            except ValueError as error:
                if on_error == 'error':
                    raise
                self.skipped['files'] += 1
                self.errors[path] = str(error)
        sizes = torch.tensor([len(p.label) for p in self.proteins]).long()
        protein = torch.arange(len(sizes)).repeat_interleave(sizes)
        if not len(protein):
            names = ', '.join(paths[:3]) + ', ...' * (len(paths) > 3)
            raise ValueError(f'Expected at least one residue to classify in '
                             f"'paths' (got none in {len(paths)} files, "
                             f'{names}; skipped: {dict(self.skipped)})')
        start = sizes.cumsum(0) - sizes
        super().__init__(torch.cat([p.label for p in self.proteins]),
                         AMINO_ACIDS, transform, protein=protein,
                         residue=torch.arange(len(protein)) - start[protein])

    @property
    def protein(self) -> Tensor:
        """The protein that each item belongs to, of those read."""
        return self._column('protein')

    def get(self, idx: int) -> Data:
        p = self.proteins[self._entry('protein', idx)]
        k = self._entry('residue', idx)
        pos = p.pos - p.centre[k]
        near = (pos.norm(dim=-1) <= self.radius) & (p.residue != p.own[k])
        return Data(x=p.x[near], pos=pos[near] @ p.frame[k].T,
                    y=self._entry('label', idx).view(1))

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
