"""A potential as a calculator of ASE, the Atomic Simulation Environment.

Not imported with the package: ASE is an extra.
"""
from __future__ import annotations

import torch

from .. import checks
from ..models import Potential

try:
    from ase.calculators.calculator import (
        Calculator,
        PropertyNotImplementedError,
        all_changes,
    )
    from ase.stress import full_3x3_to_voigt_6_stress
except ImportError as error:
    raise ImportError(f"Expected the package 'ase', whose calculators these "
                      f"are (got: {error}). Install it with 'pip install "
                      f"\"pyg_steerable[ase]\"' or 'pip install ase'"
                      ) from error

__all__ = ['PotentialCalculator']


class PotentialCalculator(Calculator):
    r"""Energies, forces and stresses of a :class:`Potential` for ASE, in its
    units: eV, eV/Angstrom and eV/Angstrom\ :sup:`3`, where

    .. math::
        E_\mathrm{ASE} = u \, E, \qquad
        \mathbf{F}_\mathrm{ASE} = \frac{u}{\ell} \, \mathbf{F}, \qquad
        \boldsymbol{\sigma}_\mathrm{ASE} = \frac{u}{\ell^3} \,
        \boldsymbol{\sigma} .

    .. code-block:: python

        from ase import units
        from pyg_steerable.interop.ase import PotentialCalculator

        atoms.calc = PotentialCalculator(          # learned in kcal/mol
            model, energy_unit=units.kcal / units.mol)
        atoms.get_forces()

    Stress needs a cell that repeats along all three axes. Positions are
    float64, whatever the dtype of the weights.

    Args:
        model (Potential): The potential, on any device.
        energy_unit (float, optional): :math:`u`, the model's unit of energy
            in eV. (default: :obj:`1.0`)
        length_unit (float, optional): :math:`\ell`, the model's unit of
            length in Angstrom. (default: :obj:`1.0`)
        **kwargs: Of :class:`ase.calculators.calculator.Calculator`.

    Raises:
        TypeError: If the model is no potential.
        ValueError: If a unit is not positive; when it is used, if the atoms
            hold an element that the potential does not know.
        PropertyNotImplementedError: ASE's, when the stress is asked for of
            atoms that do not repeat along all axes.
    """
    implemented_properties = ['energy', 'free_energy', 'forces', 'stress']

    def __init__(self, model: Potential, energy_unit: float = 1.,
                 length_unit: float = 1., **kwargs):
        super().__init__(**kwargs)
        if not isinstance(model, Potential):
            raise TypeError(f"Expected 'model' to be a Potential (got "
                            f"{checks.show(model)})")
        self.model = model
        self.energy_unit = checks.scale('energy_unit', energy_unit)
        self.length_unit = checks.scale('length_unit', length_unit)

    def calculate(self, atoms=None, properties=('energy', ),
                  system_changes=all_changes):
        """All properties at once, as ASE asks for them."""
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if 'stress' in properties and not atoms.pbc.all():
            raise PropertyNotImplementedError(
                f'Expected atoms that repeat along all three axes for the '
                f'stress (got pbc={atoms.pbc.tolist()})')

        def tensor(x):
            return torch.tensor(x, device=self.model.shift.device)

        options = {}
        if atoms.pbc.any():
            options = {'cell': tensor(atoms.cell.array) / self.length_unit,
                       'pbc': atoms.pbc.tolist()}
        with torch.no_grad():
            energy, forces, stress = self.model(
                tensor(atoms.numbers), tensor(atoms.positions) /
                self.length_unit, **options)
        energy = float(energy) * self.energy_unit
        self.results = {
            'energy': energy, 'free_energy': energy,
            'forces': self._numpy(forces, 1)}
        if stress is not None:
            self.results['stress'] = full_3x3_to_voigt_6_stress(
                self._numpy(stress[0], 3))

    def _numpy(self, x, power: int):
        """In eV and Angstrom to the power of -1 or -3."""
        unit = self.energy_unit / self.length_unit**power
        return x.double().cpu().numpy() * unit
