"""Aromatic bonds where a source has single and double ones instead."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def find_aromatic(z: NDArray[Any], bond: NDArray[Any], kind: NDArray[Any]
                  ) -> NDArray[np.bool_]:
    """Which bonds of a molecule are aromatic, by RDKit's rules.

    Formal charges of nitrogen and oxygen, which count for that, follow from
    the orders of their bonds.

    Args:
        z (numpy.ndarray): Atomic numbers ``[n]``.
        bond (numpy.ndarray): Atoms of each bond, each bond once, ``[b, 2]``.
        kind (numpy.ndarray): 0 single, 1 double, 2 triple, ``[b]``.
    """
    if len(bond) < len(z) or not (kind == 1).any():
        return np.zeros(len(bond), bool)  # no ring, or none that could be
    from rdkit import Chem
    types = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
    valence = np.bincount(bond.ravel(), np.repeat(kind + 1, 2), len(z))
    usual = {7: 3, 8: 2}
    mol = Chem.RWMol()
    for number, order in zip(z.tolist(), valence.astype(int).tolist()):
        atom = Chem.Atom(number)
        atom.SetNoImplicit(True)
        atom.SetFormalCharge(order - usual.get(number, order))
        mol.AddAtom(atom)
    for (i, j), k in zip(bond.tolist(), kind.tolist()):
        mol.AddBond(i, j, types[k])
    mol.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(mol)
    Chem.SetAromaticity(mol)
    return np.array([b.GetIsAromatic() for b in mol.GetBonds()], bool)
