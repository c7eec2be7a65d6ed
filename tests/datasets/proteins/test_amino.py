import gzip

import numpy as np
import pytest
import torch
from helpers.datasets_voxels import line, save

from pyg_steerable import Group
from pyg_steerable.datasets import (
    AminoAcidEnvironments,
    GaussianDensities,
)
from pyg_steerable.datasets.proteins.amber99sb import AMINO_ACIDS, TEMPLATES


def test_charges_are_whole():
    charged = {'ARG': 1, 'LYS': 1, 'ASP': -1, 'GLU': -1}
    for name, atoms in TEMPLATES.items():
        total = sum(a.charge + sum(a.hydrogens.values())
                    for a in atoms.values())
        assert abs(total - charged.get(name, 0)) < 1e-6
        assert {'N', 'CA', 'C', 'O'} <= atoms.keys()
    assert len(AMINO_ACIDS) == 20 and list(AMINO_ACIDS) == sorted(AMINO_ACIDS)


def chain(residues, hydrogens=True, seed=0):
    """A PDB file of whole residues, ten Angstrom apart."""
    rng, text = np.random.default_rng(seed), ''
    for i, residue in enumerate(residues):
        for heavy, (_, bears) in TEMPLATES[residue].items():
            for name in (heavy, *(bears if hydrogens else ())):
                pos = rng.uniform(-3, 3, 3) + (10 * i, 0, 0)
                text += line(name, residue, i + 1, pos)
    return text + 'END\n'


@pytest.fixture
def read():
    pytest.importorskip('gemmi')
    return AminoAcidEnvironments


@pytest.mark.parametrize('hydrogens', [True, False])
def test_environments(tmp_path, read, hydrogens):
    path = save(tmp_path / 'p.pdb', chain(['LYS', 'ASP', 'HIS'], hydrogens))
    data = read([path], radius=100.)
    assert [data.classes[d.y] for d in data] == ['LYS', 'ASP', 'HIS']
    assert not data.skipped and data.counts().sum() == 3
    assert str(data) == ('AminoAcidEnvironments(3 residues of 1 proteins)')
    # Around LYS: ASP and HIS, whether or not hydrogens are in the file.
    number = sum(1 + hydrogens * len(a.hydrogens) for r in ('ASP', 'HIS')
                 for a in TEMPLATES[r].values())
    assert data[0].x.shape == (number, 2)
    mass, charge = data[0].x.sum(0)
    assert abs(charge + 1) < 1e-5
    assert abs(mass - (115.09 + 137.14 - 1.01)) < 0.1  # ASP loses a proton
    assert abs(data[-1].x[:, 1].sum() - 0) < 1e-5


def test_frame(tmp_path, read):
    """Moving the protein changes nothing; C is on x, N at y > 0."""
    text = (line('N', 'GLY', 1, (1, 2.3, 3)) + line('CA', 'GLY', 1, (1, 1, 3))
            + line('C', 'GLY', 1, (1, 1, 4.5))
            + line('C', 'ALA', 2, (1, 1, 8)) + line('O', 'ALA', 2, (3, 1, 3)))
    data = read(save(tmp_path / 'p.pdb', text))
    assert len(data) == 1
    assert data.skipped == {'residues without backbone': 1}
    # x is z of the file, y is y, so z is -x.
    assert torch.allclose(data[0].pos, torch.tensor([[5., 0, 0],
                                                     [0, 0, -2]]))
    rotated = ''
    R = Group('SO(3)').sample()[0].numpy()
    for row in text.splitlines():
        pos = R @ [float(row[i:i + 8]) for i in (30, 38, 46)] + 20
        rotated += row[:30] + ''.join(f'{v:8.3f}' for v in pos) + row[
            54:] + '\n'
    moved = read(save(tmp_path / 'q.pdb', rotated))
    assert torch.allclose(moved[0].pos, data[0].pos, atol=5e-3)


def test_environments_as_voxels(tmp_path, read):
    path = save(tmp_path / 'p.pdb', chain(['ALA', 'GLY', 'SER', 'VAL']))
    data = read(path)
    voxels = read(path, transform=GaussianDensities(48, 0.5, 0.))[1].voxels
    assert voxels.shape == (2, 48, 48, 48)
    assert data[1].pos.norm(dim=1).max() <= 12
    assert torch.allclose(voxels.sum((1, 2, 3)), data[1].x.sum(0), atol=1e-3)
    assert len(voxels[0].nonzero()) <= len(data[1].pos)


def test_split_by_protein(tmp_path, read):
    paths = [save(tmp_path / f'{i}.pdb', chain(['ALA', 'GLY'] + i * ['SER']))
             for i in range(8)]
    data = read(paths)
    split = data.split(seed=1, num_valid=2)
    assert sorted(torch.cat(split).tolist()) == [*range(len(data))]
    proteins = [set(data.protein[part].tolist()) for part in split]
    assert [len(p) for p in proteins] == [4, 2, 2]
    assert len(set.union(*proteins)) == 8
    with pytest.raises(ValueError, match='num_valid'):
        data.split()
    y = [data[i].y for i in range(len(data))]
    assert torch.equal(torch.cat(y), data.label)


def test_skipped_is_counted(tmp_path, read):
    text = chain(['ALA', 'GLY']).replace('END\n', '')
    text += line('N', 'MSE', 3, (20, 0, 0)) + line('SE', 'MSE', 3, (21, 0, 0),
                                                   'SE')
    text += line('QQ', 'MSE', 3, (22, 0, 0), 'Q')
    text += line('XX', 'GLY', 4, (30, 0, 0), 'C')
    text += ('HETATM  900  O   HOH A 900       1.000   1.000   1.000'
             '  1.00  0.00           O\n')
    data = read(save(tmp_path / 'p.pdb', text), radius=50.)
    assert data.skipped == {'unknown residues': 1, 'atoms without charge': 3,
                            'atoms of unknown element': 1,
                            'residues without backbone': 1}
    assert len(data) == 2
    # The atoms of unknown residues are there, water is not.
    gly = sum(1 + len(a.hydrogens) for a in TEMPLATES['GLY'].values())
    assert len(data[0].pos) == gly + 3


def test_mmcif_and_compressed(tmp_path, read):
    import gemmi
    text = chain(['ALA', 'GLY', 'TRP'])
    path = save(tmp_path / 'p.pdb', text)
    structure = gemmi.read_structure(path)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(tmp_path / 'p.cif'))
    with gzip.open(tmp_path / 'p.ent.gz', 'wt') as f:
        f.write(text)
    first = read(path)
    for name in ('p.cif', 'p.ent.gz'):
        again = read(str(tmp_path / name))
        for a, b in zip(first, again, strict=True):
            assert torch.allclose(a.pos, b.pos) and torch.equal(a.x, b.x)


@pytest.mark.parametrize('name, change', [
    ('p.pdb', lambda t: t[:1000]),
    ('p.pdb', lambda t: t.replace('.', 'x', 5)),
    ('p.pdb', lambda t: 'some words\n'),
    ('p.pdb', lambda t: ''),
    ('p.cif', lambda t: t),
    ('p.pdb.gz', lambda t: t),
    ('p.xyz', lambda t: t),
])
def test_broken_files(tmp_path, read, name, change):
    good = save(tmp_path / 'good.pdb', chain(['ALA', 'GLY']))
    path = save(tmp_path / name, change(chain(['ALA', 'GLY'])))
    with pytest.raises(ValueError, match='complete PDB') as error:
        read([good, path])
    assert path in str(error.value)
    data = read([good, path], on_error='skip')
    assert len(data) == 2 and data.skipped == {'files': 1}
    assert list(data.errors) == [path]
    with pytest.raises(ValueError, match="at least one residue.*'files': 1"):
        read(path, on_error='skip')


def test_bad_arguments(tmp_path, read):
    with pytest.raises(FileNotFoundError, match='none.pdb'):
        read([str(tmp_path / 'none.pdb')], on_error='skip')
    with pytest.raises(ValueError, match="'radius'"):
        read([], radius=0.)
    with pytest.raises(ValueError, match="'ignore'"):
        read([], on_error='ignore')


def test_without_gemmi(monkeypatch, tmp_path):
    import sys
    monkeypatch.setitem(sys.modules, 'gemmi', None)
    with pytest.raises(ImportError, match='pip install gemmi'):
        AminoAcidEnvironments(save(tmp_path / 'p.pdb', chain(['ALA'])))
