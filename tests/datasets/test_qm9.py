import os.path as osp
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_steerable.datasets import (
    TARGETS,
    OGBFeatures,
    load_qm9,
    split_qm9,
)
from pyg_steerable.datasets import archive as _npz
from pyg_steerable.datasets.ogb import ring_edges
from pyg_steerable.datasets.qm9 import npz as _qm9_npz
from pyg_steerable.datasets.qm9 import pack as _qm9pack
from pyg_steerable.datasets.qm9.molecules import SAMPLE

# Methane and water as in QM9's tables (ids 1 and 3), written out by hand.
METHANE_WATER = {
    'id': np.array([1, 3], np.int32),
    'num_atoms': np.array([5, 3], np.int32),
    'num_bonds': np.array([4, 2], np.int32),
    'z': np.array([6, 1, 1, 1, 1, 8, 1, 1], np.uint8),
    'pos': np.array([
        [-0.0126981359, 1.0858041578, 0.0080009958],
        [0.0021504160, -0.0060313176, 0.0019761204],
        [1.0117308433, 1.4637511618, 0.0002765748],
        [-0.5408150690, 1.4475266138, -0.8766437152],
        [-0.5238136345, 1.4379326443, 0.9063972942],
        [-0.0343604951, 0.9775395708, 0.0076015923],
        [0.0647664923, 0.0205721989, 0.0015346341],
        [0.8717903737, 1.3007924048, 0.0006931336],
    ], np.float32),
    'bond': np.array([[0, 1], [2, 0], [0, 3], [0, 4], [0, 2], [1, 0]],
                     np.uint8),
    'bond_type': np.zeros(6, np.uint8),
    'mu': np.array([0., 1.8511], np.float32),
    'alpha': np.array([13.21, 6.31], np.float32),
    'homo': np.array([-0.3877, -0.2928], np.float32),
    'lumo': np.array([0.1171, 0.0687], np.float32),
    'gap': np.array([0.5048, 0.3615], np.float32),
    'r2': np.array([35.3641, 19.0002], np.float32),
    'zpve': np.array([0.044749, 0.021375], np.float32),
    'U0': np.array([-40.47893, -76.404702]),
    'U': np.array([-40.476062, -76.401867]),
    'H': np.array([-40.475117, -76.400922]),
    'G': np.array([-40.498597, -76.422349]),
    'Cv': np.array([6.469, 6.002], np.float32),
    'U0_atom': np.array([-0.631066, -0.339577], np.float32),
    'U_atom': np.array([-0.635279, -0.340990], np.float32),
    'H_atom': np.array([-0.639058, -0.342879], np.float32),
    'G_atom': np.array([-0.593572, -0.320963], np.float32),
}
needs_rdkit = pytest.mark.skipif(find_spec('rdkit') is None,
                                 reason='needs RDKit')


def arrays(**changes):
    out = {key: value.copy() for key, value in METHANE_WATER.items()}
    out.update(changes)
    return {key: value for key, value in out.items() if value is not None}


def put(key, where, value):
    """A copy of one array with one entry changed."""
    out = METHANE_WATER[key].copy()
    out[where] = value
    return {key: out}


@pytest.fixture(scope='module')
def sample():
    return load_qm9('sample')


@pytest.fixture
def two(tmp_path):
    path = str(tmp_path / 'two.npz')
    _npz.save_npz(path, arrays())
    return path


# The sample ------------------------------------------------------------------
def test_sample_form(sample):
    assert len(sample) == 2000
    assert str(sample) == 'QM9Molecules(2000)'
    assert osp.getsize(SAMPLE) < 1_000_000
    for data in (sample[0], sample[17], sample[-1]):
        n, e = data.num_nodes, data.num_edges
        assert data.x.shape == (n, 5) and data.x.dtype == torch.float32
        assert data.z.shape == (n, ) and data.z.dtype == torch.int64
        assert data.pos.shape == (n, 3) and data.pos.dtype == torch.float32
        assert data.edge_index.shape == (2, e)
        assert data.edge_attr.shape == (e, 4)
        assert data.y.shape == (1, 19) and data.y.dtype == torch.float32
        assert data.idx.shape == (1, )
        elements = torch.tensor([1, 6, 7, 8, 9])
        assert torch.equal(elements[data.x.argmax(1)], data.z)
        assert torch.equal(data.x.sum(1), torch.ones(n))
        assert data.is_undirected() and data.is_coalesced()
        assert not data.has_self_loops()
        assert data.validate(raise_on_error=True)


def test_sample_covers_all_sizes(sample):
    idx = sample._data.idx
    assert idx.unique().numel() == 2000 and 0 <= idx.min()
    assert idx.max() < 133_885
    # Uniform over the set: thirds of the index range hold thirds of it.
    assert torch.histc(idx.float(), 3, 0, 133_885).div(2000).sub(
        1 / 3).abs().max() < 0.05


def test_sample_chemistry(sample):
    # Bond orders minus formal charge give the usual valences. Aromatic
    # bonds have no integer order, their atoms are left out.
    data = sample._data
    order = torch.tensor([1., 2., 3., 0.])
    start = sample.slices['z'][:-1]
    edges = sample.slices['edge_index'].diff()
    row = data.edge_index[0] + start.repeat_interleave(edges)
    total = torch.zeros(data.z.numel()).index_add(0, row,
                                                  data.edge_attr @ order)
    aromatic = torch.zeros(data.z.numel()).index_add(0, row,
                                                     data.edge_attr[:, 3])
    usual = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}
    valence = torch.tensor([usual.get(i, 0) for i in range(10)])[data.z]
    # Carbon loses a bond whatever its charge, nitrogen and oxygen gain one.
    shift = torch.where(data.z == 6, -data.charge.abs(), data.charge)
    plain = aromatic == 0
    assert plain.float().mean() > 0.9 and not plain.all()
    assert torch.equal(total[plain], (valence + shift)[plain].float())


def test_sample_bond_lengths(sample):
    data = sample._data
    start = sample.slices['z'][:-1].repeat_interleave(
        sample.slices['edge_index'].diff())
    row, col = data.edge_index + start
    length = (data.pos[row] - data.pos[col]).norm(dim=-1)
    assert 0.9 < length.min() and length.max() < 1.8
    carbon = (data.z[row] == 6) & (data.z[col] == 6)
    mean = [length[carbon & (data.edge_attr[:, k] == 1)].mean()
            for k in range(3)]
    torch.testing.assert_close(torch.stack(mean),
                               torch.tensor([1.53, 1.34, 1.20]), atol=0.03,
                               rtol=0)


def test_sample_targets(sample):
    y = {name: sample.target(name) for name in TARGETS}
    assert all(v.shape == (2000, ) and v.isfinite().all() for v in y.values())
    # Means over all of QM9, in the units of TARGETS.
    expected = {'mu': (2.7, .2), 'alpha': (75., 1.), 'homo': (-6.5, .1),
                'lumo': (.3, .15), 'gap': (6.9, .2), 'r2': (1190., 40.),
                'zpve': (4.05, .1), 'U0': (-76.1, 1.), 'U': (-76.6, 1.),
                'H': (-77., 1.), 'G': (-70.8, 1.), 'Cv': (31.6, .5)}
    assert expected.keys() == TARGETS.keys()
    for name, (mean, tolerance) in expected.items():
        assert abs(y[name].mean() - mean) < tolerance, name
    assert torch.allclose(y['lumo'] - y['homo'], y['gap'], atol=0.01)
    assert (y['H'] < y['U']).all() and (y['U'] < y['U0']).all()
    assert not sample._data.y.isnan().any()  # A, B, C included


def test_sample_in_a_loader(sample):
    batch = next(iter(DataLoader(sample, batch_size=16)))
    assert batch.num_graphs == 16 and batch.y.shape == (16, 19)
    assert int(batch.edge_index.max()) < batch.num_nodes


def test_transform_and_limit(sample):
    small = load_qm9(limit=50, transform=lambda d: Data(pos=d.pos + 1))
    assert len(small) == 50 and small[0].keys() == ['pos']
    small = load_qm9(limit=50)
    ids = torch.cat([d.idx for d in small])
    assert torch.equal(ids, ids.sort().values)
    assert torch.equal(ids, torch.cat([d.idx for d in load_qm9(limit=50)]))
    other = torch.cat([d.idx for d in load_qm9(limit=50, seed=1)])
    assert not torch.equal(ids, other)
    assert torch.equal(small.target('homo'),
                       torch.cat([d.y[:, 2] for d in small]))
    assert len(load_qm9(limit=2000)) == 2000


# Units and layout ------------------------------------------------------------
def test_literal_molecules(two):
    methane, water = load_qm9(two)
    # PyG's values for its first molecule.
    expected = torch.tensor([
        0., 13.21, -10.5498, 3.1865, 13.7363, 35.3641, 1.2177, -1101.4878,
        -1101.4098, -1101.3840, -1102.0229, 6.4690, -17.1722, -17.2868,
        -17.3897, -16.1519
    ])
    torch.testing.assert_close(methane.y[0, :16], expected, atol=2e-4,
                               rtol=2e-7)
    assert methane.y[0, 16:].isnan().all()
    assert methane.idx.item() == 0 and water.idx.item() == 2
    assert methane.edge_index.tolist() == [[0, 0, 0, 0, 1, 2, 3, 4],
                                           [1, 2, 3, 4, 0, 0, 0, 0]]
    assert water.edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert water.x.argmax(1).tolist() == [3, 0, 0]
    assert water.edge_attr.tolist() == [[1, 0, 0, 0]] * 4
    assert 'charge' not in water


def test_units_are_those_of_pyg():
    from torch_geometric.datasets import qm9
    ours = torch.tensor(list(_qm9_npz.COLUMNS.values()))
    # PyG reads atomisation energies in kcal/mol, we read Hartree.
    assert torch.equal(ours[:12], qm9.conversion[:12])
    assert torch.equal(ours[16:], qm9.conversion[16:])
    kcal = ours[12:16] / 627.5095
    torch.testing.assert_close(kcal, qm9.conversion[12:16], rtol=1e-5, atol=0)
    names = list(_qm9_npz.COLUMNS)
    for name, target in TARGETS.items():
        suffix = '_atom' if name in ('U0', 'U', 'H', 'G') else ''
        assert names[target.column] == name + suffix


def test_atomisation_energies():
    out = arrays()
    _qm9pack.add_atomisation(out)
    for key in ('U0_atom', 'U_atom', 'H_atom', 'G_atom'):
        np.testing.assert_allclose(out[key], METHANE_WATER[key], atol=2e-6)


def test_round_trip(tmp_path, sample):
    path = str(tmp_path / 'new' / 'copy.npz')
    _npz.save_npz(path, _qm9_npz.read_npz(SAMPLE))
    copy = load_qm9(path)
    assert copy.source == path and sample.source == 'sample'
    for key in sample._data.keys():
        assert torch.equal(copy._data[key], sample._data[key])
        assert torch.equal(copy.slices[key], sample.slices[key])
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['copy.npz']


def test_no_bonds_and_one_atom(tmp_path):
    path = str(tmp_path / 'atom.npz')
    one = {key: METHANE_WATER[key][:1] for key in _qm9_npz._TARGETS}
    _npz.save_npz(path, arrays(
        **one, id=np.array([7]), num_atoms=np.array([1]),
        num_bonds=np.array([0]), z=np.array([6]), pos=np.zeros((1, 3)),
        bond=np.zeros((0, 2), int), bond_type=np.zeros(0, int)))
    data, = load_qm9(path)
    assert data.edge_index.shape == (2, 0) and data.edge_attr.shape == (0, 4)


def test_larger_file_beside_the_repository():
    path = osp.join(osp.dirname(__file__), '..', '..', 'shared', 'data',
                    'qm9.npz')
    if not osp.isfile(path):
        pytest.skip('no QM9 file beside the repository')
    large, small = load_qm9(path), load_qm9('sample')
    where = {i: k for k, i in enumerate(large._data.idx.tolist())}
    compared = 0
    for data in small:
        k = where.get(int(data.idx))
        if k is None:
            continue
        compared += 1
        for key in ('z', 'pos', 'edge_index', 'edge_attr'):
            assert torch.equal(data[key], large[k][key]), (key, data.idx)
        torch.testing.assert_close(data.y[:, :16], large[k].y[:, :16])
    assert compared > 1500


# Other sources ---------------------------------------------------------------
def test_pyg_source(tmp_path):
    # What PyG leaves on disk after its own processing, with PyG's columns.
    from torch_geometric.datasets import QM9
    molecules = []
    for k, d in enumerate(load_qm9(limit=5)):
        n = d.num_nodes
        molecules.append(Data(
            x=torch.cat([d.x, torch.rand(n, 6)], 1), z=d.z, pos=d.pos,
            edge_index=d.edge_index, edge_attr=d.edge_attr, y=d.y,
            smiles='C', name=f'gdb {k}', idx=int(d.idx)))
    for name in ('gdb9.sdf', 'gdb9.sdf.csv', 'uncharacterized.txt',
                 'qm9_v3.pt'):
        (tmp_path / 'raw').mkdir(exist_ok=True)
        (tmp_path / 'raw' / name).touch()
    (tmp_path / 'processed').mkdir()
    QM9.save(molecules, str(tmp_path / 'processed' / 'data_v3.pt'))
    dataset = load_qm9('pyg', root=str(tmp_path))
    assert len(dataset) == 5
    for got, want in zip(dataset, load_qm9(limit=5), strict=True):
        assert set(got.keys()) == set(want.keys()) - {'charge'}
        for key in got.keys():
            assert torch.equal(got[key], want[key]), key


def kekulised(data):
    """An RDKit molecule with single and double bonds only."""
    from rdkit import Chem
    kinds = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE,
             Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)
    mol, conformer = Chem.RWMol(), Chem.Conformer(data.num_nodes)
    for i, (z, charge) in enumerate(zip(data.z.tolist(),
                                        data.charge.tolist())):
        atom = Chem.Atom(z)
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
        conformer.SetAtomPosition(i, data.pos[i].tolist())
    for (i, j), k in zip(data.edge_index.T.tolist(),
                         data.edge_attr.argmax(1).tolist()):
        if i < j:
            mol.AddBond(i, j, kinds[k])
            if k == 3:
                mol.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
                for a in (i, j):
                    mol.GetAtomWithIdx(a).SetIsAromatic(True)
    mol.AddConformer(conformer)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    mol.SetProp('_Name', f'gdb {int(data.idx) + 1}')
    return mol


@needs_rdkit
def test_pyg_source_has_aromatic_bonds(tmp_path, monkeypatch):
    """PyG reads the SDF file as it is, with single and double bonds."""
    from rdkit import Chem
    small = load_qm9(limit=300, seed=7)
    (tmp_path / 'raw').mkdir()
    with Chem.SDWriter(str(tmp_path / 'raw' / 'gdb9.sdf')) as writer:
        writer.SetKekulize(False)
        for data in small:
            writer.write(kekulised(data))
    rows = [','.join(['x', *map(str, range(19))])] * (len(small) + 1)
    (tmp_path / 'raw' / 'gdb9.sdf.csv').write_text('\n'.join([*rows, '']))
    (tmp_path / 'raw' / 'uncharacterized.txt').write_text(10 * '\n')
    dataset = load_qm9('pyg', root=tmp_path)
    aromatic = 0
    for got, want in zip(dataset, small, strict=True):
        assert torch.equal(got.edge_index, want.edge_index)
        assert torch.equal(got.edge_attr, want.edge_attr)
        a, b = OGBFeatures()(got), OGBFeatures()(want)
        assert torch.equal(a.x_ogb[:, [0, 2, 4, 7, 8]],
                           b.x_ogb[:, [0, 2, 4, 7, 8]])
        aromatic += int(a.x_ogb[:, 7].sum())
    assert aromatic > 50
    # They are found once, and again if the molecules are others.
    from pyg_steerable.datasets.qm9 import pyg as _qm9_pyg
    monkeypatch.setattr(_qm9_pyg, 'find_spec', lambda name: None)
    assert torch.equal(load_qm9('pyg', root=tmp_path)._data.edge_attr,
                       torch.cat([data.edge_attr for data in small]))
    _npz.save_npz(str(tmp_path / 'aromatic.npz'), {
        'aromatic': np.ones(3), 'stamp': np.zeros(2)})
    with pytest.raises(ImportError, match='pip install rdkit'):
        load_qm9('pyg', root=tmp_path)


ROW = {
    'Index': '3', 'Elements': "['O','H','H']",
    'XYZ_Ang': '[[-0.0343604951,0.9775395708,0.0076015923],[0.0647664923,'
    '0.0205721989,0.0015346341],[0.8717903737,1.3007924048,0.0006931336]]',
    'RotA_GHz': '799.58812', 'RotB_GHz': '437.90386', 'RotC_GHz': '282.94545',
    'Dipole_debye': '1.8511', 'Polarizability_bohr3': '6.31',
    'HOMO_au': '-0.2928', 'LUMO_au': '0.0687', 'HOMO_LUMO_gap_au': '0.3615',
    'R2_bohr2': '19.0002', 'ZPVE_au': '0.021375',
    'InternalEnergy_0K_au': '-76.404702',
    'InternalEnergy_298K_au': '-76.401867',
    'Enthalphy_298K_au': '-76.400922',
    'GibbsFreeEnergy_298K_au': '-76.422349',
    'Heatcapacity_Cv_cal_mol_K': '6.002',
}


@pytest.fixture
def tables(tmp_path, monkeypatch):
    folder = tmp_path / 'tables'
    folder.mkdir()
    for k, name in enumerate(_qm9pack._FILES):
        text = ','.join(ROW) + '\n'
        if k == 1:
            text += ','.join(f'"{v}"' for v in ROW.values()) + '\n'
        (folder / name).write_text(text)
    monkeypatch.setattr(_qm9pack, 'find_tables', lambda: str(folder))
    return folder


@needs_rdkit
def test_qm9pack_source_is_cached(tables, tmp_path, two):
    root = str(tmp_path / 'cache')
    water, = load_qm9('qm9pack', root=root)
    want = load_qm9(two)[1]
    for key in want.keys():
        if key != 'y':
            assert torch.equal(water[key], want[key]), key
    torch.testing.assert_close(water.y[:, :16], want.y[:, :16])
    assert water.y[0, 16:].tolist() == pytest.approx([799.58812, 437.90386,
                                                      282.94545])
    assert water.charge.tolist() == [0, 0, 0]
    for name in _qm9pack._FILES:
        (tables / name).unlink()
    assert len(load_qm9('qm9pack', root=root)) == 1
    (tmp_path / 'cache' / 'qm9pack.npz').write_bytes(b'PK damaged')
    with pytest.raises(ValueError, match='qm9pack.npz: .*delete it'):
        load_qm9('qm9pack', root=root)


@needs_rdkit
def test_qm9pack_counts_what_it_leaves_out():
    apart = dict(ROW, Index='9', XYZ_Ang='[[0,0,0],[0,0,9],[0,9,0]]')
    with pytest.warns(UserWarning, match=r'1 of 2 molecules .* ids \[9\]'):
        out = _qm9pack.build_arrays([dict(ROW), apart])
    assert out['id'].tolist() == [3]


def test_qm9pack_missing_tables(tables):
    (tables / 'qm9_part2.csv').unlink()
    with pytest.raises(ValueError, match='qm9_part2.csv'):
        _qm9pack.read_tables(str(tables))


def test_qm9pack_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(_qm9pack, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install qm9pack'):
        load_qm9('qm9pack', root=str(tmp_path))


def test_qm9pack_bad_row():
    with pytest.raises(ValueError, match='molecule 3: expected 6 coord'):
        _qm9pack.parse_molecule(dict(ROW, Elements="['O','H']"))


@needs_rdkit
def test_bonds_by_rdkit():
    # Nitrogen, HCN and formaldehyde: a triple and a double bond.
    z, pos = np.array([7, 7]), np.array([[0, 0, 0], [0, 0, 1.1]])
    bond, kind, charge = _qm9pack.find_bonds(z, pos)
    assert (bond.tolist(), kind.tolist()) == ([[0, 1]], [2])
    z = np.array([6, 8, 1, 1])
    pos = np.array([[0, 0, -.53], [0, 0, .67], [0, .94, -1.11],
                    [0, -.94, -1.11]])
    bond, kind, charge = _qm9pack.find_bonds(z, pos)
    assert sorted(kind.tolist()) == [0, 0, 1] and not charge.any()


# Bad input -------------------------------------------------------------------
BAD = {
    'missing': (dict(z=None, G=None), r"got no \['z', 'G'\]"),
    'id shape': (dict(id=np.ones((2, 1), int)), "key 'id'.*1-D"),
    'empty': (dict(id=np.zeros(0, int)), "key 'id'.*at least one"),
    'id twice': (dict(id=np.array([3, 3])), "key 'id'.*3 2 times"),
    'id zero': (dict(id=np.array([0, 3])), "key 'id'.*smallest 0"),
    'float z': (dict(z=np.zeros(8)), "key 'z': expected integers"),
    'short mu': (dict(mu=np.zeros(1)), r"key 'mu'.*\(2,\).*\(1,\)"),
    'short A': (dict(A=np.zeros(3)), r"key 'A'.*\(2,\).*\(3,\)"),
    'no atoms': (put('num_atoms', 0, 0), "key 'num_atoms'.*molecule 0"),
    'negative': (put('num_bonds', 1, -1), "key 'num_bonds'.*-1 for mol"),
    'atoms': (put('num_atoms', 0, 4), r"key 'z'.*\(7,\).*\(8,\)"),
    'bonds': (put('num_bonds', 0, 5), r"key 'bond'.*\(7, 2\).*\(6, 2\)"),
    'pos 2d': (dict(pos=np.zeros((8, 2))), r"key 'pos'.*\(8, 3\)"),
    'bond type': (dict(bond_type=np.zeros(5, int)), r"'bond_type'.*\(6,\)"),
    'charge': (dict(charge=np.zeros(7)), r"key 'charge'.*\(8,\).*\(7,\)"),
    'nan pos': (put('pos', (6, 1), np.nan), r"'pos'.*molecule 1 \(id 3\)"),
    'inf pos': (put('pos', (0, 0), np.inf), r"'pos'.*molecule 0 \(id 1\)"),
    'sulfur': (put('z', 5, 16), r"'z'.*H, C, N, O, F.*16 in molecule 1"),
    'range': (put('bond', (4, 1), 3), r"'bond'.*0 to 2 \(got \[0, 3\]"),
    'self': (put('bond', (0, 1), 0), r"'bond'.*different.*\[0, 0\]"),
    'twice': (put('bond', 1, [1, 0]), r"'bond'.*once.*\[1, 0\] again"),
    'type 4': (put('bond_type', 2, 4), r"'bond_type'.*\(got 4\)"),
    'nan homo': (put('homo', 1, np.nan), r"'homo'.*finite.*\(id 3\)"),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_content(case, tmp_path):
    changes, message = BAD[case]
    path = str(tmp_path / 'bad.npz')
    _npz.save_npz(path, arrays(**changes))
    with pytest.raises(ValueError, match=message) as e:
        load_qm9(path)
    assert str(e.value).startswith(f'{path}: ') and 'Fix: ' in str(e.value)


def test_bad_files(tmp_path):
    whole = Path(SAMPLE).read_bytes()
    middle = len(whole) // 2
    flipped = bytes(255 - b for b in whole[middle:middle + 64])
    files = {
        'cut.npz': whole[:middle],
        'flipped.npz': whole[:middle] + flipped + whole[middle + 64:],
        'empty.npz': b'',
        'text.npz': b'not an archive',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f'{name}: .*Fix: .*damaged'):
            load_qm9(str(path))


def test_objects_and_single_arrays_are_refused(tmp_path):
    path = str(tmp_path / 'objects.npz')
    np.savez(path, **arrays(mu=np.array([None, 'x'], object)))
    with pytest.raises(ValueError, match='objects.npz: expected'):
        load_qm9(path)
    with open(path, 'wb') as f:
        np.save(f, np.zeros(3))
    with pytest.raises(ValueError, match='single .npy'):
        load_qm9(path)
    with pytest.raises(FileNotFoundError, match='check the path'):
        load_qm9(str(tmp_path / 'nowhere.npz'))


@pytest.mark.parametrize('kwargs, message', [
    (dict(source='qm7'), "'source' to be 'sample'.*'qm7'"),
    (dict(limit=0), "'limit'.*got 0"),
    (dict(limit=-5), "'limit'.*got -5"),
    (dict(limit=2.5), "'limit'.*got 2.5"),
    (dict(limit=True), "'limit'.*got True"),
    (dict(limit=2001), "'limit' <= 2000.*got 2001.*Fix"),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        load_qm9(**kwargs)


def test_bad_target(sample):
    with pytest.raises(ValueError, match="'name' to be one of.*'energy'"):
        sample.target('energy')


# Splits ----------------------------------------------------------------------
def test_split_of_the_papers():
    split = split_qm9(130_831)
    assert [s.numel() for s in split] == [100_000, 17_748, 13_083]
    order = torch.cat(list(split))
    assert torch.equal(order.sort().values, torch.arange(130_831))
    np.random.seed(0)  # the way in which the papers' code draws it
    assert np.array_equal(order.numpy(), np.random.permutation(130_831))


@pytest.mark.parametrize('n', [10, 11, 200, 2000, 125_831])
def test_split_is_disjoint_and_reproducible(n):
    split, again, other = split_qm9(n), split_qm9(n), split_qm9(n, seed=1)
    assert torch.equal(torch.cat(list(split)).sort().values, torch.arange(n))
    assert min(s.numel() for s in split) >= 1
    assert all(torch.equal(a, b) for a, b in zip(split, again, strict=True))
    assert not torch.equal(split.train, other.train)
    assert abs(split.train.numel() / n - 0.7643) < 0.05


@pytest.mark.parametrize('n', [0, 9, 100., True])
def test_split_bad(n):
    with pytest.raises(ValueError, match="'n'"):
        split_qm9(n)


# OGB -------------------------------------------------------------------------
def test_ogb_features_of_methane(two):
    data = OGBFeatures()(load_qm9(two)[0])
    carbon, hydrogen = [5, 4, 4, 11, 4, 5, 5, 0, 0], [0, 4, 1, 11, 0, 5, 5, 0,
                                                      0]
    assert data.x_ogb.tolist() == [carbon] + [hydrogen] * 4
    assert data.edge_attr_ogb.tolist() == [[0, 5, 0]] * 8


def test_ogb_features_fit_the_encoders():
    dims = torch.tensor([119, 5, 12, 12, 10, 6, 6, 2, 2])
    if find_spec('ogb') is not None:
        from ogb.utils.features import get_atom_feature_dims
        assert dims.tolist() == get_atom_feature_dims()
    for data in load_qm9(limit=100, transform=OGBFeatures()):
        assert data.x_ogb.shape == (data.num_nodes, 9)
        assert (0 <= data.x_ogb).all() and (data.x_ogb < dims).all()
        assert (data.x_ogb[:, 3] == data.charge + 5).all()
        assert (data.edge_attr_ogb < torch.tensor([5, 6, 2])).all()
        # Aromatic atoms are in rings.
        assert (data.x_ogb[:, 7] <= data.x_ogb[:, 8]).all()


def test_ogb_features_need_bonds():
    with pytest.raises(ValueError, match=r"got no \['edge_index'"):
        OGBFeatures()(Data(z=torch.ones(2).long()))


def test_ring_edges():
    # Triangle 0-1-2 with a tail 2-3-4, and a lone pair 5-6; node 7 alone.
    pairs = torch.tensor([[0, 1], [1, 2], [0, 2], [2, 3], [3, 4], [5, 6]]).T
    both = torch.cat([pairs, pairs.flip(0)], dim=1)
    assert ring_edges(both, 8).tolist() == 2 * [1, 1, 1, 0, 0, 0]
    ring = torch.stack([torch.arange(29), (torch.arange(29) + 1) % 29])
    assert ring_edges(torch.cat([ring, ring.flip(0)], 1), 29).all()


@needs_rdkit
def test_ring_atoms_against_rdkit():
    from rdkit import Chem
    for data in load_qm9(limit=100):
        mol = Chem.RWMol()
        for z in data.z.tolist():
            mol.AddAtom(Chem.Atom(z))
        for i, j in data.edge_index.T.tolist():
            if i < j:
                mol.AddBond(i, j, Chem.BondType.SINGLE)
        Chem.FastFindRings(mol)
        ours = OGBFeatures()(data).x_ogb[:, 8].bool()
        assert ours.tolist() == [a.IsInRing() for a in mol.GetAtoms()]
