"""Whatever a file calls its atoms and residues, masses are those of the
formula, and charges are those of the force field.
"""
import re
from pathlib import Path

import numpy as np
import pytest

from pyg_steerable.datasets import AminoAcidEnvironments
from pyg_steerable.datasets.proteins.amber99sb import (
    AMINO_ACIDS,
    PARENT,
    PROTONATION,
    TEMPLATES,
)

gemmi = pytest.importorskip('gemmi')
# Of residues in a chain, at the protonation of the force field.
MASS = {'ALA': 71.08, 'ARG': 157.20, 'ASN': 114.10, 'ASP': 114.08,
        'CYS': 103.14, 'GLN': 128.13, 'GLU': 128.11, 'GLY': 57.05,
        'HIS': 137.14, 'ILE': 113.16, 'LEU': 113.16, 'LYS': 129.18,
        'MET': 131.20, 'PHE': 147.18, 'PRO': 97.12, 'SER': 87.08,
        'THR': 101.10, 'TRP': 186.21, 'TYR': 163.18, 'VAL': 99.13,
        'HID': 137.14, 'HIP': 138.15, 'CYX': 102.13, 'CYM': 102.13,
        'ASH': 115.09, 'GLH': 129.12, 'LYN': 128.17}
CHARGE = {'ARG': 1, 'LYS': 1, 'HIP': 1, 'ASP': -1, 'GLU': -1, 'CYM': -1}
ALL = TEMPLATES | PROTONATION
H, D = 1.008, 2.014


def from_one(names):
    """HB2, HB3 as HB1, HB2."""
    return [n[:-1] + str(i + 1) if re.search(r'\d$', n) and len(names) > 1
            else n for i, n in enumerate(names)]


def v3(residue, heavy, names):
    return heavy, names


def v2(residue, heavy, names):
    """The number first: 1HB, 2HG2."""
    if heavy == 'CD2' and residue == 'HIS' or len(names) < 2:
        return heavy, names
    return heavy, [n[-1] + n[:-1] for n in from_one(names)]


def charmm(residue, heavy, names):
    if heavy == 'N':
        return heavy, [n.replace('H', 'HN') for n in names]
    if residue == 'ILE' and heavy == 'CD1':
        return 'CD', ['HD1', 'HD2', 'HD3']
    if heavy in ('OG', 'SG'):
        return heavy, [f'{n}1' for n in names]
    return heavy, from_one(names)


def deuterium(residue, heavy, names):
    return heavy, ['D' + n[1:] for n in names]


SCHEMES = {f.__name__: f for f in (v3, v2, charmm, deuterium)}


def line(name, residue, number, pos, element, alt=' ', left=False):
    name = f'{name:<4}' if len(name) == 4 or left else f' {name:<3}'
    x, y, z = pos
    return (f'ATOM  {1:5d} {name}{alt}{residue:>3} A{number:4d}    '
            f'{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2}\n')


def atoms_of(residue, scheme=v3):
    """Names and elements."""
    for heavy, (_, hydrogens) in ALL[residue].items():
        name, names = scheme(residue, heavy, list(hydrogens))
        yield name, heavy[0]
        yield from ((n, n.lstrip('123')[0]) for n in names)


def write(path, residue, atoms, elements=True, left=False):
    """One residue between two others, in the middle of a PDB file."""
    rng, text = np.random.default_rng(0), ''
    for number, (name, found) in enumerate((
            ('GLY', atoms_of('GLY')), (residue, atoms),
            ('GLY', atoms_of('GLY')))):
        for atom, element in found:
            text += line(atom, name, number + 1, rng.uniform(
                -3, 3, 3) + (10 * number, 0, 0), element * elements,
                left=left)
    path.write_text(text)
    return str(path)


def total(path, **kwargs):
    """The amino acid in the middle, its mass and its charge."""
    data = AminoAcidEnvironments(path, radius=100., **kwargs)
    protein, = data.proteins
    assert not data.skipped
    mass, charge = protein.x[protein.residue == 1].double().sum(0).tolist()
    return data.classes[protein.label[1]], mass, charge


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('residue', ALL)
def test_formula(tmp_path, residue, scheme):
    path = write(tmp_path / 'p.pdb', residue, atoms_of(
        residue, SCHEMES[scheme]))
    kind, mass, charge = total(path)
    assert kind == PARENT.get(residue, residue)
    number = sum(len(a.hydrogens) for a in ALL[residue].values())
    more = number * (D - H) if scheme == 'deuterium' else 0
    assert mass == pytest.approx(MASS[residue] + more, abs=0.02)
    assert charge == pytest.approx(CHARGE.get(residue, 0), abs=1e-5)


@pytest.mark.parametrize('residue', ALL)
def test_without_hydrogens(tmp_path, residue):
    heavy = [(name, name[0]) for name in ALL[residue]]
    kind, mass, charge = total(write(tmp_path / 'p.pdb', residue, heavy))
    assert mass == pytest.approx(MASS[residue], abs=0.02)
    assert charge == pytest.approx(CHARGE.get(residue, 0), abs=1e-5)


@pytest.mark.parametrize('scheme', ['v3', 'v2', 'charmm'])
@pytest.mark.parametrize('residue', AMINO_ACIDS)
def test_without_elements(tmp_path, residue, scheme):
    """Old files have no column for elements; CA is no calcium then, and HG
    no mercury, wherever the name begins."""
    path = write(tmp_path / 'p.pdb', residue, atoms_of(
        residue, SCHEMES[scheme]), elements=False, left=True)
    assert total(path)[1] == pytest.approx(MASS[residue], abs=0.02)


def test_the_smallest_case(tmp_path):
    names = ['H', 'HA', '1HB', '2HB', '3HB']
    path = write(tmp_path / 'p.pdb', 'ALA', [
        *((n, n[0]) for n in ('N', 'CA', 'C', 'O', 'CB')),
        *((n, 'H') for n in names)])
    assert total(path)[1] == pytest.approx(71.08, abs=0.01)


@pytest.mark.parametrize('first', [
    'H1 H2 H3', '1H 2H 3H', 'HT1 HT2 HT3', 'HN1 HN2 HN3', 'D1 D2 D3'])
@pytest.mark.parametrize('residue', ['ALA', 'PRO'])
def test_first_residue(tmp_path, residue, first):
    names = first.split()[residue == 'PRO':]
    atoms = [a for a in atoms_of(residue) if a[0] != 'H']
    path = write(tmp_path / 'p.pdb', residue, atoms + [
        (n, n.lstrip('123')[0]) for n in names])
    kind, mass, charge = total(path)
    more = H * 2 + len(names) * (D - H) * ('D' in first)
    assert mass == pytest.approx(MASS[residue] + more, abs=0.02)
    assert charge == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('last', [
    'O OXT', 'OT1 OT2', 'O1 O2', 'OC1 OC2', 'O OT', "O' O''"])
def test_last_residue(tmp_path, last):
    atoms = [a for a in atoms_of('ALA') if a[0] != 'O']
    path = write(tmp_path / 'p.pdb', 'ALA', atoms + [
        (name, 'O') for name in last.split()])
    kind, mass, charge = total(path)
    assert mass == pytest.approx(MASS['ALA'] + 15.999, abs=0.02)
    assert charge == pytest.approx(-1, abs=1e-5)
    path = write(tmp_path / 'p.pdb', 'ALA', [
        *atoms, ('O', 'O'), ('OXT', 'O'), ('HXT', 'H')])
    kind, mass, charge = total(path)
    assert mass == pytest.approx(MASS['ALA'] + 17.007, abs=0.02)
    assert charge == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize('name, same', [
    ('HIE', 'HIS'), ('HSE', 'HIS'), ('HSD', 'HID'), ('HSP', 'HIP'),
    ('LSN', 'LYN'), ('LYP', 'LYS'), ('TRY', 'TRP'), ('his', 'HIS')])
def test_names_of_residues(tmp_path, name, same):
    path = write(tmp_path / 'p.pdb', name, atoms_of(same))
    kind, mass, charge = total(path)
    assert kind == PARENT.get(same, same)
    assert mass == pytest.approx(MASS[same], abs=0.02)
    assert charge == pytest.approx(CHARGE.get(same, 0), abs=1e-5)


@pytest.mark.parametrize('name, same', [('NALA', 'ALA'), ('CHID', 'HID'),
                                        ('LYSH', 'LYS'), ('HISA', 'HID')])
def test_long_names_of_residues(tmp_path, name, same):
    """They fit into mmCIF."""
    path = write(tmp_path / 'p.pdb', same, atoms_of(same))
    structure = gemmi.read_structure(path)
    structure[0][0][1].name = name
    structure.setup_entities()
    path = str(tmp_path / 'p.cif')
    structure.make_mmcif_document().write_file(path)
    kind, mass, charge = total(path)
    assert kind == PARENT.get(same, same)
    assert mass == pytest.approx(MASS[same], abs=0.02)


@pytest.mark.parametrize('name, hydrogens, same', [
    ('HIS', 'HD1', 'HID'), ('HIS', 'HE2', 'HIS'), ('HIS', 'HD1 HE2', 'HIP'),
    ('HID', 'HE2', 'HIS'), ('HIP', 'HD1', 'HIP'), ('ASP', 'HD2', 'ASH'),
    ('ASP', 'HD1', 'ASH'), ('GLU', 'HE1', 'GLH'), ('GLH', 'HE1', 'GLH'),
    ('ASN', 'HD1 HD2', 'ASN'), ('ASN', 'DD21 DD22', 'ASN')])
def test_protonation_by_hydrogens(tmp_path, name, hydrogens, same):
    atoms = [(atom, atom[0]) for atom in TEMPLATES[PARENT.get(name, name)]]
    path = write(tmp_path / 'p.pdb', name, atoms + [
        (n, 'H') for n in hydrogens.split()])
    kind, mass, charge = total(path)
    assert mass == pytest.approx(MASS[same], abs=0.02)
    assert charge == pytest.approx(CHARGE.get(same, 0), abs=1e-5)


def test_hydrogen_and_deuterium_at_one_place(tmp_path):
    """As in neutron structures: the first of the two counts."""
    atoms = [*atoms_of('ALA'), ('D', 'D')]
    path = write(tmp_path / 'p.pdb', 'ALA', atoms)
    assert total(path)[1] == pytest.approx(MASS['ALA'], abs=0.02)


def test_hydrogens_of_unknown_names(tmp_path):
    """The nearest atom bears them; names are no longer needed."""
    text = ''.join(line(*row) for row in (
        ('N', 'GLY', 1, (0, 0, 0), 'N'), ('CA', 'GLY', 1, (1.46, 0, 0), 'C'),
        ('C', 'GLY', 1, (2, 1.4, 0), 'C'), ('O', 'GLY', 1, (3, 2, 0), 'O'),
        ('HQ7', 'GLY', 1, (-.5, .8, 0), 'H'),
        ('HQ8', 'GLY', 1, (1.8, -.5, .9), 'H'),
        ('HQ9', 'GLY', 1, (1.8, -.5, -.9), 'H')))
    (tmp_path / 'p.pdb').write_text(text)
    data = AminoAcidEnvironments(str(tmp_path / 'p.pdb'))
    assert data.proteins[0].x[:, 0].sum() == pytest.approx(57.05, abs=0.02)
    assert not data.skipped


def test_mirror_images_and_modifications_are_others(tmp_path):
    """DAL is D-alanine, MSE has selenium: not of the twenty."""
    for name in ('DAL', 'MSE', 'SEP'):
        path = write(tmp_path / 'p.pdb', name, atoms_of('ALA'))
        data = AminoAcidEnvironments(path)
        assert len(data) == 2 and data.skipped['unknown residues'] == 1


@pytest.mark.parametrize('encoding', ['utf-8', 'latin-1', 'utf-16', 'utf-32',
                                      'utf-8-sig'])
@pytest.mark.parametrize('newline', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('name', ['p.pdb', 'p.cif'])
def test_encodings(tmp_path, name, newline, encoding):
    path = write(tmp_path / 'p.pdb', 'LYS', atoms_of('LYS'))
    first = AminoAcidEnvironments(path).proteins[0]
    if name == 'p.cif':
        structure = gemmi.read_structure(path)
        structure.setup_entities()
        text = '# Grüße\n' + structure.make_mmcif_document().as_string()
    else:
        text = 'REMARK 1 Grüße\n' + Path(path).read_text()
    (tmp_path / name).write_bytes(
        text.replace('\n', newline).encode(encoding))
    again = AminoAcidEnvironments(str(tmp_path / name)).proteins[0]
    for a, b in zip(first, again):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-5
