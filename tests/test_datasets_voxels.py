import gzip

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pyg_steerable import Group
from pyg_steerable.datasets import (
    TETRIS,
    AminoAcidEnvironments,
    GaussianDensities,
    MeshToVoxels,
    Shrec17Meshes,
    VoxelGrids,
    gaussian_densities,
    load_cath,
    load_voxels,
    mean_average_precision,
    retrieve,
    rotate_voxels,
    tetris_points,
    tetris_voxels,
    write_retrieval_lists,
)
from pyg_steerable.datasets.proteins.amber99sb import AMINO_ACIDS, TEMPLATES
from pyg_steerable.graph import RandomGroupElement, VoxelToGraph

CUBE = torch.cat([Group('O').elements, -Group('O').elements])


def turn(angle=0.5):
    c, s = np.cos(angle), np.sin(angle)
    return torch.tensor([[c, -s, 0.], [s, c, 0.], [0., 0., 1.]])


# Rotating ####################################################################


def test_rotation_of_one_voxel():
    """Axes of voxels are z, y, x; matrices act on x, y, z."""
    grid = torch.zeros(2, 5, 5, 5)
    grid[:, 2, 3, 4] = 1  # at x = 2, y = 1, z = 0 from the centre
    out = rotate_voxels(grid, turn(np.pi / 2))  # to x = -1, y = 2
    assert out[1].nonzero().tolist() == [[2, 4, 1]]
    assert out.sum() == 2


def test_interpolation_agrees_with_the_cube():
    grid = torch.rand(1, 6, 6, 6, dtype=torch.float64)
    exact, near = (rotate_voxels(grid, turn(np.pi / 2 + e)) for e in (0, 1e-5))
    assert near.dtype == torch.float64 and not torch.equal(near, exact)
    inside = (slice(None), ) + 3 * (slice(1, -1), )
    assert torch.allclose(near[inside], exact[inside], atol=1e-3)


def test_rotations_compose():
    grid = torch.rand(1, 4, 4, 4)
    for a, b in zip(CUBE[::5], CUBE[1::3]):
        both = rotate_voxels(rotate_voxels(grid, b), a)
        assert torch.equal(both, rotate_voxels(grid, a @ b))


def test_bad_rotations():
    with pytest.raises(ValueError, match='S, S, S.*4, 5, 4'):
        rotate_voxels(torch.zeros(1, 4, 5, 4), turn())
    with pytest.raises(ValueError, match='orthogonal'):
        rotate_voxels(torch.zeros(4, 4, 4), 2 * turn())


# Grids #######################################################################


def packed(n=4, size=10):
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 2, (n, size, size, size)).astype(np.uint8)
    return grids, dict(train=np.packbits(grids, axis=-1),
                       train_label=np.arange(n, dtype=np.uint8),
                       test=np.packbits(grids[:2], axis=-1),
                       test_label=np.array([9, 0], dtype=np.uint8))


def write(path, **values):
    np.savez(path, **{k: v for k, v in values.items() if v is not None})
    return str(path)


def test_modelnet(tmp_path):
    grids, arrays = packed()
    path = write(tmp_path / 'v.npz', **arrays)
    train, test = load_voxels(path), load_voxels(path, 'test')
    assert str(train) == 'VoxelGrids(4 grids of [1, 10, 10, 10], 10 classes)'
    assert test.classes[test[0].y] == 'toilet'
    assert train.counts().tolist() == 4 * [1] + 6 * [0]
    item = train[3].voxels
    assert item.dtype == torch.float32
    # File: x, y, z. Voxels: z, y, x.
    assert item[0, 1, 2, 3] == grids[3, 3, 2, 1]
    assert torch.equal(item[0], torch.from_numpy(grids[3]).float().permute(
        2, 1, 0))
    item.zero_()
    assert train[3].voxels.sum() == grids[3].sum()
    batch = next(iter(DataLoader(train, 3)))
    assert batch.voxels.shape == (3, 1, 10, 10, 10)
    assert batch.y.tolist() == [0, 1, 2]
    graph = train.subset([2], VoxelToGraph(3, occupied=True))[0]
    assert len(graph.coord) == grids[2].sum() and graph.y == 2


@pytest.mark.parametrize('change, match', [
    (dict(train=None), "no .'train'"),
    (dict(train_label=None), "no .'train_label'"),
    (dict(train=np.zeros((4, 10, 10, 4), np.uint8)), 'bits of cubes'),
    (dict(train=np.zeros((4, 10, 10, 2))), 'float64'),
    (dict(train=np.zeros((4, 0, 0, 0), np.uint8)), 'bits of cubes'),
    (dict(train_label=np.zeros(3, int)), "'label' of shape .4"),
    (dict(train_label=np.array([0, 1, 2, 10])), 'got 10.*10 classes'),
])
def test_bad_modelnet(tmp_path, change, match):
    path = write(tmp_path / 'v.npz', **packed()[1] | change)
    with pytest.raises(ValueError, match=match) as error:
        load_voxels(path)
    assert path in str(error.value)


def test_bad_grids(tmp_path):
    voxels = torch.zeros(3, 1, 4, 4, 4)
    voxels[1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match='grid 1'):
        VoxelGrids(voxels, torch.zeros(3), ['a'])
    with pytest.raises(ValueError, match='C, D, H, W'):
        VoxelGrids(voxels[0], torch.zeros(1), ['a'])
    with pytest.raises(ValueError, match="'validation'"):
        load_voxels(str(tmp_path / 'v.npz'), 'validation')
    with pytest.raises(FileNotFoundError, match='v.npz'):
        load_voxels(str(tmp_path / 'v.npz'))


# Densities ###################################################################


def atoms(n=40, spread=3., channels=2):
    pos = spread * torch.randn(n, 3, dtype=torch.float64)
    return pos, torch.rand(n, channels, dtype=torch.float64)


@pytest.mark.parametrize('sigma', [None, 0., 0.01, 3.])
def test_mass_is_preserved(sigma):
    pos, x = atoms(2000, 2.)  # more than are spread at once
    voxels = gaussian_densities(pos, x, 11, 2., sigma)
    assert voxels.shape == (2, 11, 11, 11) and (voxels >= 0).all()
    assert torch.allclose(voxels.sum((1, 2, 3)), x.sum(0), rtol=1e-12)


def test_density_of_one_atom():
    pos = torch.tensor([[2., 0.5, -4.]], dtype=torch.float64)
    voxels = gaussian_densities(pos, torch.ones(1, 1).double(), 9, 2.)[0]
    line = torch.arange(-4., 5).double() * 2
    z, y, x = torch.meshgrid(line, line, line, indexing='ij')
    far = (x - 2)**2 + (y - 0.5)**2 + (z + 4)**2
    expected = torch.exp(-far / 2)  # sigma is half of the spacing
    assert torch.allclose(voxels, expected / expected.sum(), atol=1e-15)
    nearest = gaussian_densities(pos, torch.ones(1, 1).double(), 9, 2., 0.)
    assert nearest[0].nonzero().tolist() == [[2, 4, 5]]


@pytest.mark.parametrize('size', [10, 11])
def test_rotating_atoms_rotates_densities(size):
    pos, x = atoms(spread=1.5)
    voxels = gaussian_densities(pos, x, size)
    for R in CUBE:
        turned = gaussian_densities(pos @ R.T, x, size)
        assert torch.allclose(turned, rotate_voxels(voxels, R), atol=1e-13)


def test_any_rotation_of_smooth_densities():
    pos, x = atoms(spread=1.5)
    R = Group('SO(3)').sample()[0]
    a = gaussian_densities(pos @ R.T, x, 25, 1., 2.)
    b = rotate_voxels(gaussian_densities(pos, x, 25, 1., 2.), R)
    assert (a - b).norm() < 1e-2 * a.norm()


def test_atoms_outside():
    pos = torch.tensor([[5., 0, 0], [5.1, 0, 0], [0, 0, -9]])
    x = torch.ones(3, 1)
    with pytest.raises(ValueError, match='-5 to 5 .got 2 of 3'):
        gaussian_densities(pos, x, 5, 2.)
    data = Data(pos=pos, x=x, y=torch.tensor([3]))
    out = GaussianDensities(5, 2., outside='skip')(data)
    assert out.num_outside == 2 and out.y == 3
    assert torch.allclose(out.voxels.sum(), torch.ones(()))
    assert set(out.keys()) == {'voxels', 'y', 'num_outside'}
    with pytest.raises(ValueError, match='2 of 3'):
        GaussianDensities(5, 2.)(data)
    alone = GaussianDensities(5)(Data(pos=pos[:1], x=x[:1], y=data.y))
    assert alone.y == 3 and alone.voxels.shape == (1, 5, 5, 5)


@pytest.mark.parametrize('change, match', [
    (dict(pos=torch.zeros(3, 2)), r'\[N, 3\]'),
    (dict(pos=torch.full((3, 3), torch.nan)), 'atom 0'),
    (dict(x=torch.zeros(2, 1)), r'\[3, C\]'),
    (dict(x=torch.zeros(3, 1, dtype=torch.long)), 'int64'),
    (dict(x=torch.full((3, 1), torch.inf)), "'x' to be finite"),
    (dict(size=0), "'size'"),
    (dict(size=2.5), "'size'"),
    (dict(spacing=0.), "'spacing'"),
    (dict(sigma=-1.), "'sigma'"),
])
def test_bad_densities(change, match):
    with pytest.raises((ValueError, TypeError), match=match):
        gaussian_densities(**dict(pos=torch.zeros(3, 3), x=torch.ones(3, 1))
                           | change)
    with pytest.raises(ValueError, match="'drop'"):
        GaussianDensities(outside='drop')


# Tetris ######################################################################


def test_tetris_shapes():
    grids = tetris_voxels(group='1')
    assert grids.voxels.shape == (8, 1, 36, 36, 36)
    assert grids.classes == list(TETRIS) and grids.label.tolist() == [*range(
        8)]
    assert (grids.voxels.sum((1, 2, 3, 4)) == 4 * 5**3).all()
    assert set(grids.voxels.unique().tolist()) == {0., 1.}
    line = grids[3].voxels[0].nonzero()
    assert line.amin(0).tolist() == [8, 8, 8]
    assert line.amax(0).tolist() == [27, 12, 12]  # along z


def test_mirror_images():
    """The two chiral shapes are mirror images and not rotations of each
    other; no two others are the same up to any symmetry of the cube."""
    def canonical(cells, group):
        cells = torch.tensor(cells, dtype=torch.float64)
        turned = [((c := cells @ R.T) - c.amin(0)).round().int().tolist()
                  for R in group]
        return min(sorted(map(tuple, cells)) for cells in turned)

    rotations = Group('O').elements
    for group, number in ((rotations, 8), (CUBE, 7)):
        kinds = {str(canonical(cells, group)) for cells in TETRIS.values()}
        assert len(kinds) == number
    assert canonical(TETRIS['chiral_1'], CUBE) == canonical(
        TETRIS['chiral_2'], CUBE)


@pytest.mark.parametrize('group', ['1', 'O'])
def test_tetris_points_are_the_voxels(group):
    """The same seed turns both alike."""
    points = tetris_points(3, group, seed=5)
    grids = tetris_voxels(3, group, seed=5, cell=1, pad=2)
    assert torch.equal(points.label, grids.label) and len(points) == 24
    for cloud, grid in zip(points, grids):
        coord = (cloud.pos.flip(-1) + 3.5).round().long()
        there = grid.voxels[0].nonzero()
        assert sorted(coord.tolist()) == there.tolist()


def test_tetris_rotations():
    grids = tetris_voxels(1, seed=1, cell=3, pad=5)
    mass = grids.voxels.sum((1, 2, 3, 4))
    assert torch.allclose(mass, torch.tensor(4. * 3**3), rtol=0.02)
    points = tetris_points(1, seed=1)
    line = torch.arange(22.) - 10.5
    for cloud, grid in zip(points, grids):
        # The centre of mass is that of the points.
        v = grid.voxels[0]
        mean = torch.stack([(v.sum((0, 1)) * line).sum(),
                            (v.sum((0, 2)) * line).sum(),
                            (v.sum((1, 2)) * line).sum()]) / v.sum()
        assert torch.allclose(mean, 3 * cloud.pos.mean(0), atol=0.1)
    same, other = (tetris_points(1, seed=s).points for s in (1, 2))
    assert torch.equal(same, points.points) and not torch.equal(same, other)


@pytest.mark.parametrize('kwargs, match', [
    (dict(group='O(3)'), 'reflection'),
    (dict(copies=0), "'copies'"),
    (dict(cell=0), "'cell'"),
    (dict(pad=-1), "'pad'"),
])
def test_bad_tetris(kwargs, match):
    with pytest.raises(ValueError, match=match):
        tetris_voxels(**kwargs)


# CATH ########################################################################


def cath(n=30):
    """Arrays in the published layout."""
    rng = np.random.default_rng(1)
    n_atoms = rng.integers(3, 9, n)
    used = np.arange(12) < n_atoms[:, None]
    positions = np.where(used[..., None], rng.normal(0, 9, (n, 12, 3)), 0.)
    return dict(
        n_atoms=n_atoms, positions=positions,
        atom_types=np.where(used, 'CA', '').astype('S10'),
        res_indices=np.where(used, np.arange(12.), -1),
        labels=np.array([[1, 10], [3, 40], [1, 20]])[rng.integers(0, 3, n)],
        split_start_indices=np.arange(10) * 3)


def test_cath(tmp_path):
    arrays = cath()
    path = write(tmp_path / 'c.npz', **arrays)
    parts = {s: load_cath(path, s) for s in ('train', 'valid', 'test')}
    assert [len(p) for p in parts.values()] == [21, 3, 6]
    joined = [data for part in parts.values() for data in part]
    for i, data in enumerate(joined):  # each domain in one split
        n = arrays['n_atoms'][i]
        assert np.array_equal(data.pos, arrays['positions'][i, :n].astype(
            np.float32))
        name = '.'.join(map(str, arrays['labels'][i]))
        assert parts['test'].classes[data.y] == name
        assert torch.equal(data.x, torch.ones(n, 1))
    assert parts['train'].classes == ['1.10', '1.20', '3.40']
    assert sum(p.counts() for p in parts.values()).sum() == 30
    assert str(parts['valid']) == 'CathDomains(3 domains, 3 classes)'


def test_cath_voxels(tmp_path):
    path = write(tmp_path / 'c.npz', **cath())
    grid = GaussianDensities()
    train = load_cath(path, 'train', Compose([RandomGroupElement('SO(3)'),
                                              grid]))
    a, b = train[0].voxels, train[0].voxels
    assert a.shape == (1, 50, 50, 50) and not torch.equal(a, b)
    plain = load_cath(path)[0]
    assert torch.allclose(a.sum(), torch.tensor(1. * len(plain.pos)))
    batch = next(iter(DataLoader(load_cath(path, 'valid', grid), 2)))
    assert batch.voxels.shape == (2, 1, 50, 50, 50)
    assert batch.y.shape == (2, )


def test_cath_with_all_atoms(tmp_path):
    arrays = cath()
    arrays['atom_types'][:, 1] = b'N'
    data = load_cath(write(tmp_path / 'c.npz', **arrays), 'test')
    assert data.atom_types == ['CA', 'N']
    assert torch.equal(data[0].x[:3], torch.eye(2)[[0, 1, 0]])


@pytest.mark.parametrize('change, match', [
    (dict(labels=None), "no .'labels'"),
    (dict(labels=np.zeros((29, 2))), "'labels' of shape .30"),
    (dict(positions=np.zeros((30, 12, 2))), "'positions' of shape"),
    (dict(positions=np.full((30, 12, 3), np.nan)), 'domain 0'),
    (dict(atom_types=np.full((30, 12), '', 'S10')), 'none in domain 0'),
    (dict(n_atoms=np.full(30, 13)), 'from 1 to 12 .got 13'),
    (dict(n_atoms=np.zeros(30, int)), 'from 1 to 12 .got 0'),
    (dict(split_start_indices=np.arange(9)), 'rising'),
    (dict(split_start_indices=np.arange(10)[::-1]), 'rising'),
    (dict(split_start_indices=np.arange(10) * 4), 'less than 30'),
])
def test_bad_cath(tmp_path, change, match):
    path = write(tmp_path / 'c.npz', **cath() | change)
    with pytest.raises(ValueError, match=match) as error:
        load_cath(path)
    assert path in str(error.value)
    with pytest.raises(ValueError, match="'all'"):
        load_cath(path, 'all')


# Amino acids #################################################################


def test_charges_are_whole():
    charged = {'ARG': 1, 'LYS': 1, 'ASP': -1, 'GLU': -1}
    for name, atoms in TEMPLATES.items():
        total = sum(a.charge + sum(a.hydrogens.values())
                    for a in atoms.values())
        assert abs(total - charged.get(name, 0)) < 1e-6
        assert {'N', 'CA', 'C', 'O'} <= atoms.keys()
    assert len(AMINO_ACIDS) == 20 and list(AMINO_ACIDS) == sorted(AMINO_ACIDS)


def line(name, residue, number, pos, element=None, alt=' '):
    x, y, z = pos
    name = name if len(name) == 4 else f' {name:<3}'
    element = name.strip()[0] if element is None else element
    return (f'ATOM  {1:5d} {name}{alt}{residue:>3} A{number:4d}    '
            f'{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2}\n')


def chain(residues, hydrogens=True, seed=0):
    """A PDB file of whole residues, ten Angstrom apart."""
    rng, text = np.random.default_rng(seed), ''
    for i, residue in enumerate(residues):
        for heavy, (_, bears) in TEMPLATES[residue].items():
            for name in (heavy, *(bears if hydrogens else ())):
                pos = rng.uniform(-3, 3, 3) + (10 * i, 0, 0)
                text += line(name, residue, i + 1, pos)
    return text + 'END\n'


def save(path, text):
    path.write_text(text)
    return str(path)


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


# SHREC17 #####################################################################

BOX = torch.tensor([[x, y, z] for x in (0., 4.) for y in (0., 2.)
                    for z in (0., 1.)])
FACES = [f for a, b, c, d in ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4),
                              (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
         for f in ((a, b, c), (a, c, d))]


def obj(pos=BOX, faces=FACES):
    return (''.join(f'v {x} {y} {z}\n' for x, y, z in pos.tolist()) +
            ''.join(f'f {a + 1} {b + 1} {c + 1}\n' for a, b, c in faces))


def shrec(root, split='train', ids=('000001', '000002', '000003'),
          kinds=('02', '01', '02')):
    folder = root / f'{split}_perturbed'
    folder.mkdir()
    for name in ids:
        save(folder / f'{name}.obj', obj())
    rows = [f'{name},{kind},x,y,{split}' for name, kind in zip(ids, kinds)]
    save(root / f'{split}.csv', '\n'.join(
        ['id,synsetId,subSynsetId,modelId,split', *rows]))
    return folder


def test_meshes(tmp_path):
    shrec(tmp_path)
    data = Shrec17Meshes(str(tmp_path), transform=MeshToVoxels(16))
    assert str(data) == 'Shrec17Meshes(3 meshes, 2 classes)'
    assert data.classes == ['01', '02'] and data.label.tolist() == [1, 0, 1]
    item = data[1]
    assert set(item.keys()) == {'voxels', 'y'} and item.y == 0
    voxels = item.voxels[0]
    assert voxels.shape == (16, 16, 16) and 0 < voxels.max() <= 1
    # A box of 4 x 2 x 1 in a ball of diameter 21 ** 0.5, on 16 voxels.
    size = [len(voxels.sum(axes).nonzero()) for axes in ((0, 1), (0, 2),
                                                         (1, 2))]
    expected = 16 / 21**0.5 * torch.tensor([4., 2., 1.])
    assert (torch.tensor(size) - expected).abs().max() < 2
    assert voxels[8, 8, 8] == 0  # hollow
    batch = next(iter(DataLoader(data, 3)))
    assert batch.voxels.shape == (3, 1, 16, 16, 16)


def test_rotated_meshes():
    face = torch.tensor(FACES).T
    # Off the planes between voxels, where rounding would decide.
    pos = BOX + 0.1 * torch.rand(8, 3)
    voxels = MeshToVoxels(12)(Data(pos=pos, face=face)).voxels
    for R in CUBE[::7]:
        turned = MeshToVoxels(12)(Data(pos=pos @ R.float().T, face=face))
        gap = (turned.voxels - rotate_voxels(voxels, R)).abs()
        # The corners that stand for the surface are not the same.
        assert gap.mean() < 0.1 * voxels.mean()
    line = torch.arange(12.) - 5.5
    for R in Group('SO(3)').sample(3).float():  # same size, same place
        turned = MeshToVoxels(12)(Data(pos=pos @ R.T, face=face)).voxels[0]
        # More voxels, as the faces are oblique: up to 3 ** 0.5 times.
        assert 0.9 < turned.sum() / voxels.sum() < 1.8
        far = (turned.nonzero() - 5.5).norm(dim=1).max()
        # The farthest corner, and up to half of a voxel's diagonal.
        assert abs(far - 6) < 0.87
        x = (turned.sum((0, 1)) * line).sum() / turned.sum()
        assert abs(x) < 0.5


def test_bad_meshes(tmp_path):
    folder = shrec(tmp_path)
    root = str(tmp_path)
    for text in ('', 'some words', obj(faces=[]), obj(faces=[(0, 1, 99)]),
                 obj(BOX * torch.nan)):
        save(folder / '000002.obj', text)
        with pytest.raises(ValueError, match='000002.obj: expected'):
            Shrec17Meshes(root)[1]
    with pytest.raises(ValueError, match='area 0.0'):
        MeshToVoxels()(Data(pos=torch.ones(3, 3),
                            face=torch.tensor([[0], [1], [2]])))
    (folder / '000003.obj').unlink()
    with pytest.raises(FileNotFoundError, match="'000003.obj', 1 of 3"):
        Shrec17Meshes(root)


def test_bad_lists(tmp_path):
    shrec(tmp_path)
    root = str(tmp_path)
    with pytest.raises(FileNotFoundError, match='val.csv'):
        Shrec17Meshes(root, 'val')
    with pytest.raises(ValueError, match="'02'"):
        Shrec17Meshes(root, classes=['01'])
    with pytest.raises(ValueError, match="'all'"):
        Shrec17Meshes(root, 'all')
    with pytest.raises(ValueError, match="'size'"):
        MeshToVoxels(0)
    for text in ('', 'id,synsetId\n', 'name,kind\na,b\n',
                 'id,synsetId\n000001,\n'):
        save(tmp_path / 'train.csv', text)
        with pytest.raises(ValueError, match='train.csv'):
            Shrec17Meshes(root)


def test_retrieval(tmp_path):
    scores = torch.tensor([[3., 0], [5, 0], [4, 0], [0, 1]])
    lists = retrieve(scores)
    assert [x.tolist() for x in lists] == 3 * [[1, 2, 0]] + [[3]]
    # Items 0, 2, 3 of class 0: the first two find two of three.
    score = mean_average_precision(lists, torch.tensor([0, 1, 0, 0]))
    part = (1 / 2 + 2 / 3) / 3
    assert score.micro == pytest.approx((2 * part + 1 + 1 / 3) / 4)
    assert score.macro == pytest.approx(((2 * part + 1 / 3) / 3 + 1) / 2)
    perfect = mean_average_precision(lists, torch.tensor([0, 0, 0, 1]))
    assert perfect == (1, 1)
    write_retrieval_lists(str(tmp_path / 'out'), lists, list('abcd'))
    assert (tmp_path / 'out' / 'a').read_text() == 'b 0\nc 1\na 2\n'
    assert len(list((tmp_path / 'out').iterdir())) == 4
