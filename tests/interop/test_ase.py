"""A potential drives ASE."""
import builtins
import importlib
import pickle
import sys

import numpy as np
import pytest
import torch

from pyg_steerable.models import Potential

NAME = 'pyg_steerable.interop.ase'


def test_without_ase(monkeypatch):
    """An error that names the package; the rest of the room works."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split('.')[0] == 'ase':
            raise ImportError("No module named 'ase'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ImportError, match=r"'ase'.*pyg_steerable\[ase\]"):
        importlib.import_module(NAME)
    importlib.import_module('pyg_steerable.interop')


class TestCalculator:
    @pytest.fixture(autouse=True)
    def ase(self):
        self.ase = pytest.importorskip('ase')
        self.make = importlib.import_module(NAME).PotentialCalculator

    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        model = Potential([1, 6, 8], cutoff=2.5, channels=4, blocks=2)
        return model.double()

    def molecule(self):
        rng = np.random.default_rng(0)
        return self.ase.Atoms('COHHH', rng.normal(size=(5, 3)))

    def crystal(self):
        atoms = self.molecule()
        atoms.cell = [[2.2, 0.1, 0.], [0.3, 2., 0.2], [0., -0.4, 2.6]]
        atoms.pbc = True
        return atoms

    def test_molecules(self, model):
        atoms = self.molecule()
        atoms.calc = self.make(model)
        energy, forces, _ = model(torch.tensor(atoms.numbers),
                                  torch.tensor(atoms.positions))
        assert atoms.get_potential_energy() == energy.item()
        assert np.allclose(atoms.get_forces(), forces.detach().numpy(),
                           rtol=1e-12)
        before = atoms.get_forces()
        atoms.positions[0] += 0.1  # is seen
        assert abs(atoms.get_forces() - before).max() > 1e-3
        with pytest.raises(NotImplementedError, match='all three axes'):
            atoms.get_stress()
        again = pickle.loads(pickle.dumps(atoms.calc))
        assert np.array_equal(again.get_forces(atoms), atoms.get_forces())

    def test_crystals(self, model):
        """Against finite differences by ASE."""
        from ase.calculators.fd import (
            calculate_numerical_forces,
            calculate_numerical_stress,
        )
        atoms = self.crystal()
        atoms.calc = self.make(model)
        stress, forces = atoms.get_stress(), atoms.get_forces()
        expected = calculate_numerical_stress(atoms, eps=1e-5)
        assert abs(stress - expected).max() < 1e-6 * abs(stress).max()
        expected = calculate_numerical_forces(atoms, eps=1e-4)
        assert abs(forces - expected).max() < 1e-6 * abs(forces).max()
        assert abs(stress).max() > 1e-3 and abs(forces).max() > 1e-3

    def test_slabs(self, model):
        atoms = self.crystal()
        atoms.calc = self.make(model)
        whole = atoms.get_potential_energy()
        atoms.pbc = [True, True, False]
        assert abs(atoms.get_potential_energy() - whole) > 1e-6
        layer = atoms.get_potential_energy()
        atoms.cell[2] = 0.  # ASE's way to have no third axis
        assert np.isclose(atoms.get_potential_energy(), layer, rtol=1e-10)

    def test_units(self, model):
        """The same crystal in units of kcal/mol and nanometres."""
        unit, length = 0.0433641, 10.
        atoms = self.crystal()
        atoms.calc = self.make(model, unit)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        stress = atoms.get_stress()
        atoms.set_cell(length * atoms.cell.array, scale_atoms=True)
        atoms.calc = self.make(model, unit, length)
        assert np.isclose(atoms.get_potential_energy(), energy)
        assert np.allclose(length * atoms.get_forces(), forces)
        assert np.allclose(length**3 * atoms.get_stress(), stress)
        atoms.calc = self.make(model)
        atoms.set_cell(atoms.cell.array / length, scale_atoms=True)
        assert np.isclose(unit * atoms.get_potential_energy(), energy)

    def test_single_precision(self, model):
        atoms, exact = self.molecule(), self.make(model)
        expected = exact.get_forces(atoms)
        forces = self.make(model.float()).get_forces(atoms)
        assert forces.dtype == np.float64
        assert np.allclose(forces, expected, atol=1e-4)

    def test_dynamics_conserve_energy(self, model):
        """Half the step, a quarter of the error: of a smooth potential."""
        from ase import units
        from ase.md.verlet import VelocityVerlet

        def change(step):
            atoms, total = self.molecule(), []
            atoms.calc = self.make(model)
            run = VelocityVerlet(atoms, step * units.fs)
            run.attach(lambda: total.append(atoms.get_total_energy()))
            run.run(round(20 / step))
            return np.ptp(total)

        assert 3 < change(0.5) / change(0.25) < 5

    def test_wrong_input(self, model):
        with pytest.raises(TypeError, match="'model' to be a Potential"):
            self.make(torch.nn.Linear(1, 1))
        for name in ('energy_unit', 'length_unit'):
            with pytest.raises(ValueError, match=f"'{name}' to be a pos"):
                self.make(model, **{name: 0.})
        atoms = self.ase.Atoms('N', [[0., 0., 0.]])
        atoms.calc = self.make(model)
        with pytest.raises(ValueError, match='got 7'):
            atoms.get_potential_energy()
