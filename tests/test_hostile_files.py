"""Files that somebody else made: nothing runs, nothing leaves its folder,
memory and time are bounded, and every error names the file.
"""
import gzip
import io
import os
import pickle
import random
import resource
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import fuzz_files
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pyg_steerable import files
from pyg_steerable.datasets import (
    AminoAcidEnvironments,
    MeshToVoxels,
    Shrec17Meshes,
    load_cath,
    load_mesh,
    load_nbody,
    load_points,
    load_qm9,
    load_rmd17,
    load_voxels,
    write_retrieval_lists,
)
from pyg_steerable.datasets import archive as _npz


def peak():
    """The largest memory of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture
def little():
    """Fails a test that takes long or much."""
    start, before = time.process_time(), peak()
    yield
    assert time.process_time() - start < 8
    assert peak() - before < 2**30


class Payload:
    """Makes a folder when it is unpickled."""
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path, )


# Random damage ###############################################################


@pytest.mark.parametrize('kind', fuzz_files.FORMATS)
def test_damaged_files(kind, tmp_path):
    if kind in ('pdb', 'cif'):
        pytest.importorskip('gemmi')
    if kind == 'csv':
        pytest.importorskip('rdkit')
    found = fuzz_files.fuzz(kind, 300, 3, tmp_path)
    assert found.pop('refused') > 100 and found.pop('loaded') > 5
    assert not found


def test_mutations_are_reproducible_and_bounded():
    data = bytes(range(256)) * 8
    a, b = ([fuzz_files.mutate(data, random.Random(i)) for i in range(99)]
            for _ in range(2))
    assert a == b and len(set(a)) > 90
    assert fuzz_files.mutate(b'', random.Random(0)) is not None
    assert max(map(len, a)) < 2**21


# Archives ####################################################################

LOADERS = [load_points, load_voxels, load_cath, load_nbody, load_qm9,
           load_rmd17]


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, 'w', method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return str(path)


def points(**changes):
    arrays = dict(points=npy(np.zeros((2, 4, 3))), label=npy(np.arange(2)))
    return {f'{key}.npy': value for key, value in (arrays | changes).items()}


def header(shape, dtype='<f8'):
    """An array that is declared only."""
    text = (f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape},"
            f" }}\n").encode()
    return b'\x93NUMPY\1\0' + len(text).to_bytes(2, 'little') + text


def refused(path, load=load_points, match=None):
    with pytest.raises(ValueError, match=match) as error:
        load(path)
    assert str(path) in str(error.value)


def test_good_archives(tmp_path):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = archive(tmp_path / 'a.npz', points(), method)
        assert len(load_points(path)) == 2
    arrays = {'a': np.asfortranarray(np.random.rand(3, 4)), 'b': np.array(5),
              'c': np.array(['x', 'yz']), 'd': np.zeros((0, 3)),
              'e': np.arange(5, dtype='>i4'), 'f': np.array([b'x', b'']),
              'g': np.random.rand(2, 3, 4).astype(np.float16)}
    _npz.save_npz(path, arrays)
    found = _npz.load_npz(path, [*arrays, 'other'])
    assert found.keys() == arrays.keys()
    for key, array in arrays.items():
        assert np.array_equal(found[key], array)
        assert found[key].shape == array.shape and found[key].flags.writeable
        assert found[key].dtype == array.dtype.newbyteorder('=')


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path, method):
    refused(archive(tmp_path / 'a.npz', points(), method),
            match='NumPy does not use')


def test_encrypted_archives(tmp_path):
    path = tmp_path / 'a.npz'
    data = bytearray(Path(archive(path, points())).read_bytes())
    for at in range(len(data)):  # the flag in the headers of all members
        if data[at:at + 4] == b'PK\1\2':
            data[at + 8] |= 1
        if data[at:at + 4] == b'PK\3\4':
            data[at + 6] |= 1
    path.write_bytes(bytes(data))
    refused(path, match='encrypted')


@pytest.mark.parametrize('content', [
    header((10**9, 3)), header((10**30, )), header((2**62, 4)),
    header((-1, 3)), header((0, 10**30)), header((2, 4, 3)),
    header('(' * 4000), header((2, ), '<U1000000000'), header((2, ), '|V8'),
    header((2, ), '|O'), header((1, ) * 60),
    header('((2, 3), )'), header('__import__("os").mkdir("x")'),
    header((2, ), "<f8'}#"), b'\x93NUMPY\3\0' + header((2, ))[8:],
    b'\x93NUMPY\2\0\xff\xff\xff\xff', b'\x93NUMPY', b''])
@pytest.mark.usefixtures('little')
def test_declared_sizes(tmp_path, content):
    refused(archive(tmp_path / 'a.npz', points(points=content)))
    refused(archive(tmp_path / 'a.npz', points(label=content)))


@pytest.mark.usefixtures('little')
def test_zip_bomb(tmp_path):
    path = tmp_path / 'a.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1
                         ) as file, file.open('points.npy', 'w') as f:
        f.write(header((400 * 2**20 // 24, 1, 3)))
        for _ in range(400):
            f.write(bytes(2**20))
    assert path.stat().st_size < 2**22
    refused(path, match="'numpy.savez'")


def test_a_size_that_is_not_true(tmp_path):
    """The directory of the archive says more than there is."""
    path = tmp_path / 'a.npz'
    data = bytearray(Path(archive(path, points(
        points=header((10**6, 2, 3)) + bytes(100)))).read_bytes())
    at = data.index(b'PK\1\2')
    size = 48 * 10**6 + len(header((10**6, 2, 3)))
    data[at + 24:at + 28] = size.to_bytes(4, 'little')
    path.write_bytes(bytes(data))
    refused(path)


def test_objects_do_not_run(tmp_path):
    victim = tmp_path / 'ran'
    objects = npy(np.array([Payload(victim)], dtype=object))
    for load in LOADERS:
        for key in ('points', 'train', 'train_pos', 'positions', 'z',
                    'coords'):
            refused(archive(tmp_path / 'a.npz', {f'{key}.npy': objects}),
                    load)
    assert not victim.exists()


@pytest.mark.usefixtures('little')
def test_a_label_is_no_number_of_classes(tmp_path):
    for label in (400_000_000, 2**62, 2**16):
        refused(archive(tmp_path / 'a.npz', points(
            label=npy(np.array([0, label])))), match='at most 65536 classes')
    arrays = points(label=npy(np.array([0, 2**16 - 1])))
    assert len(load_points(archive(tmp_path / 'a.npz', arrays)).classes
               ) == 2**16


@pytest.mark.parametrize('load', LOADERS)
def test_no_file(tmp_path, load):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load(str(tmp_path / 'a.npz'))
    (tmp_path / 'b.npz').mkdir()
    with pytest.raises(FileNotFoundError, match='is a folder'):
        load(str(tmp_path / 'b.npz'))
    os.mkfifo(tmp_path / 'c.npz')  # nobody will write to it
    with pytest.raises(FileNotFoundError, match='no regular file'):
        load(tmp_path / 'c.npz')
    for bad in (None, 3, ['a.npz'], {}, 1.5, object(), b'a.npz', 'a\0.npz'):
        with pytest.raises((TypeError, ValueError), match="'(path|source)'"):
            load(bad)


# Text ########################################################################


@pytest.mark.usefixtures('little')
def test_gzip_bomb(tmp_path):
    pytest.importorskip('gemmi')
    path = tmp_path / 'p.pdb.gz'
    with gzip.open(path, 'wb', compresslevel=1) as file:
        for _ in range(400):
            file.write(b'ATOM' + b' ' * (2**20 - 4))
    refused(path, AminoAcidEnvironments, 'unpack')


@pytest.mark.usefixtures('little')
@pytest.mark.parametrize('name, text', [
    ('p.pdb', 'ATOM' * 10**6), ('p.cif', 'data_' * 10**6),
    ('p.cif', 'data_x\nloop_\n' + '_a\n' * 10**5), ('p.cif', ';\n' * 10**6),
    ('m.obj', 'f ' + '1 ' * 10**6), ('m.obj', 'f 1 2 3\n' * 10**5),
    ('m.obj', '\\\n' * 10**5), ('m.off', 'OFF 99999999999 1 1\n0 0 0\n'),
    ('m.off', 'OFF\n1 1 0\n0 0 0\n999999999 0 0 0\n'),
    ('m.off', 'OFF -1 -1 0\n'), ('m.off', 'OFF\n'), ('m.off', ''),
    ('m.obj', f"v 0 0 {'1' * 10**6}\nf 1 1 1"), ('m.obj', 'v 0 0 0\nf 1 1'),
    ('m.obj', 'v 0 0 1e39\nf 1 1 1'), ('m.obj', 'v 0 0 0\nf -2 -1 -1'),
    ('m.obj', 'v 0 0 0\nf 0 1 1'), ('m.ply', 'ply')])
def test_text(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    if name[0] == 'p':
        pytest.importorskip('gemmi')
    refused(path, AminoAcidEnvironments if name[0] == 'p' else load_mesh)


@pytest.mark.usefixtures('little')
def test_lists(tmp_path):
    for text in ('id,synsetId\n' + 'a' * 2**20 + ',1\n', 'id,synsetId\na\0,1',
                 '"id', '\n' * 10**6, 'id,synsetId\n' + 'a,1\n' * 2):
        (tmp_path / 'train.csv').write_text(text)
        with pytest.raises(ValueError, match='train.csv'):
            Shrec17Meshes(tmp_path)


@pytest.mark.usefixtures('little')
def test_a_residue_with_too_many_atoms(tmp_path):
    pytest.importorskip('gemmi')
    rows = (f'ATOM  {0:5d} H{np.base_repr(i, 36):0>3} ALA A   1    '
            f'{i % 90:8.3f}{i % 70:8.3f}{0:8.3f}  1.00  0.00\n'
            for i in range(20000))
    (tmp_path / 'p.pdb').write_text(''.join(rows))
    refused(tmp_path / 'p.pdb', AminoAcidEnvironments, 'in one residue')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'latin-1'])
def test_lists_of_other_programs(tmp_path, encoding):
    fuzz_files._shrec(tmp_path / 'train.csv')
    text = '\r\n'.join(['id;x,id,synsetId', 'Grüße,000001,ä',
                        '"a, b",000002,b', ''])
    (tmp_path / 'train.csv').write_bytes(text.encode(encoding))
    data = Shrec17Meshes(tmp_path)
    assert data.classes == ['b', 'ä'] and data.label.tolist() == [1, 0]


# Meshes ######################################################################

CORNERS = [[x, y, z] for x in (0., 4.) for y in (0., 2.) for z in (0., 1.)]
SIDES = fuzz_files._SIDES


def test_forms_of_off(tmp_path):
    lists = ''.join(f'{x} {y} {z}\n' for x, y, z in CORNERS) + ''.join(
        f"4 {' '.join(map(str, face))}\n" for face in SIDES)
    expected = None
    for head in ('OFF\n8 6 12\n', 'OFF 8 6 12\n', 'OFF8 6 12\n', 'off\n8 6\n',
                 '# c\nOFF # c\n\n8 6 0 # c\n', '\ufeffOFF\n8 6 12\n'):
        for newline in ('\n', '\r\n', '\r'):
            for encoding in ('utf-8', 'utf-16'):
                text = (head + lists).replace('\n', newline)
                (tmp_path / 'm.OFF').write_bytes(text.encode(encoding))
                mesh = load_mesh(tmp_path / 'm.OFF')
                expected = expected or mesh
                assert torch.equal(mesh.pos, torch.tensor(CORNERS))
                assert torch.equal(mesh.face, expected.face)
    assert expected.face.shape == (3, 12)
    assert expected.face[:, :2].T.tolist() == [[0, 1, 3], [0, 3, 2]]


@pytest.mark.parametrize('corner', ['{i}', '{i}/7', '{i}//7', '{i}/7/7'])
@pytest.mark.parametrize('backwards', [False, True])
def test_parts_of_obj(tmp_path, corner, backwards):
    """Two boxes, one after the other; negative numbers count from the last
    corner before the face."""
    text = 'mtllib ../../secret.mtl\nusemtl x\ns off\n'
    for part in range(2):
        text += f'o part{part}\n' + ''.join(
            f'v {x + 9 * part} {y} {z} 1.0\n' for x, y, z in CORNERS)
        for face in SIDES:
            number = [i - 8 if backwards else i + 1 + 8 * part for i in face]
            text += 'f ' + ' '.join(corner.format(i=i) for i in number) + '\n'
    (tmp_path / 'm.obj').write_text(text)
    mesh = load_mesh(tmp_path / 'm.obj')
    assert mesh.face.shape == (3, 24) and mesh.pos.shape == (16, 3)
    for part in range(2):
        x = mesh.pos[mesh.face[:, 12 * part:12 * (part + 1)], 0]
        assert x.min() == 9 * part and x.max() == 4 + 9 * part


@pytest.mark.usefixtures('little')
def test_many_large_faces(tmp_path):
    """2.4 MB that once took 20 GB."""
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(99, 3))
    faces = rng.integers(1, 100, (300_000, 3))
    text = ''.join('v {} {} {}\n'.format(*c) for c in corners) + ''.join(
        'f {} {} {}\n'.format(*f) for f in faces)
    (tmp_path / 'm.obj').write_text(text)
    mesh = load_mesh(tmp_path / 'm.obj')
    with pytest.raises(ValueError, match='smaller .size., or fewer faces'):
        MeshToVoxels(64)(mesh)
    mesh.face = mesh.face[:, :500]
    assert MeshToVoxels(64)(mesh).voxels.sum() > 5000


def test_faces_have_no_holes():
    """Against many random points on an oblique box."""
    R = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    pos = torch.tensor(CORNERS, dtype=torch.float64) @ R
    face = torch.tensor([f for a, b, c, d in SIDES
                         for f in ((a, b, c), (a, c, d))]).T
    voxels = MeshToVoxels(16)(Data(pos=pos, face=face)).voxels
    a, b, c = pos[face]
    centre = torch.tensor([2., 1., .5], dtype=torch.float64) @ R
    u, v = torch.rand(2, 4000, 1, 1, dtype=torch.float64)
    u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)
    points = (a + u * (b - a) + v * (c - a) - centre).reshape(-1, 3)
    cell = ((points / 21**.5 * 2 + 1) * 16).floor().long().clamp(0, 31)
    fine = torch.zeros(32, 32, 32)
    fine[tuple(cell.T.flip(0))] = 1
    exact = torch.nn.functional.avg_pool3d(fine[None], 2)
    assert (voxels - exact).abs().sum() < 0.15 * exact.sum()
    assert (voxels[exact == 1] > 0).all()


def test_packed_meshes(tmp_path):
    fuzz_files._obj(tmp_path / 'm.obj')
    data = (tmp_path / 'm.obj').read_bytes()
    (tmp_path / 'm.OBJ.gz').write_bytes(gzip.compress(data))
    one, two = (load_mesh(tmp_path / n) for n in ('m.obj', 'm.OBJ.gz'))
    assert torch.equal(one.pos, two.pos) and torch.equal(one.face, two.face)


# Names #######################################################################

NAMES = ['../x', '/tmp/x', '..', '.', '', 'a/b', 'a\\b', 'a\0', 'C:x', 'a\n',
         'a' * 300, '\ud800' * 99]


@pytest.mark.parametrize('name', NAMES)
def test_names_stay_in_their_folder(tmp_path, name):
    out = tmp_path / 'a' / 'out'
    with pytest.raises(ValueError, match="'names' to be a file name"):
        write_retrieval_lists(str(out), 2 * [torch.tensor([0])], ['b', name])
    assert not out.exists()
    (tmp_path / 'a').mkdir()
    if name.isprintable() and name:
        (tmp_path / 'a' / 'train.csv').write_text(f'id,synsetId\n{name},1\n')
        with pytest.raises(ValueError, match="train.csv.*'id' to be a file"):
            Shrec17Meshes(str(tmp_path / 'a'))


def test_links_do_not_lead_out(tmp_path):
    secret = tmp_path / 'secret.obj'
    fuzz_files._obj(secret)
    root = tmp_path / 'root'
    (root / 'train_perturbed').mkdir(parents=True)
    mesh = root / 'train_perturbed' / 'a.obj'
    (root / 'train.csv').write_text('id,synsetId\na,1\n')
    mesh.symlink_to(secret)
    with pytest.raises(ValueError, match='a.obj.*a link'):
        Shrec17Meshes(root)
    mesh.unlink()
    fuzz_files._obj(mesh)
    data = Shrec17Meshes(root)
    mesh.unlink()
    mesh.symlink_to(secret)
    with pytest.raises(ValueError, match='a.obj.*a link'):
        data[0]
    # The folder itself may be somewhere else.
    mesh.unlink()
    fuzz_files._obj(mesh)
    (tmp_path / 'other').symlink_to(root)
    assert len(Shrec17Meshes(tmp_path / 'other')[0].pos) == 8
    # What is written takes the place of a link.
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'a').symlink_to(secret)
    before = secret.read_bytes()
    write_retrieval_lists(tmp_path / 'out', [torch.tensor([0])], ['a'])
    assert secret.read_bytes() == before
    assert (tmp_path / 'out' / 'a').read_text() == 'a 0\n'


def test_lists_that_do_not_fit(tmp_path):
    one = torch.tensor([0])
    for lists, names in (([one], ['a', 'b']), ([one, one], ['a', 'a']),
                         ([one + 1], ['a']), ([one - 1], ['a'])):
        with pytest.raises(ValueError, match="'(lists|names)'"):
            write_retrieval_lists(tmp_path, lists, names)
    assert not list(tmp_path.iterdir())


# Caches ######################################################################


def processed(root):
    (root / 'raw').mkdir(parents=True)
    for name in ('gdb9.sdf', 'gdb9.sdf.csv', 'uncharacterized.txt',
                 'qm9_v3.pt'):
        (root / 'raw' / name).touch()
    (root / 'processed').mkdir()
    path = root / 'processed' / 'data_v3.pt'
    fuzz_files._processed(path)
    return path


def test_a_processed_data_set_runs_nothing(tmp_path):
    root, victim = tmp_path / 'qm9', tmp_path / 'ran'
    path = processed(root)
    for name in ('pre_transform.pt', 'pre_filter.pt'):  # PyG reads these
        torch.save(Payload(victim), path.parent / name)
    assert len(load_qm9('pyg', root=root)) == 3
    good = torch.load(path, weights_only=True)
    for bad in (Payload(victim), (*good[:2], Payload(victim)),
                (good[0] | {'x': Payload(victim)}, *good[1:])):
        torch.save(bad, path)
        refused(path, lambda _: load_qm9('pyg', root=root), 'delete it')
    path.write_bytes(pickle.dumps(Payload(victim), protocol=2))
    refused(path, lambda _: load_qm9('pyg', root=root), 'delete it')
    assert not victim.exists()


@pytest.mark.usefixtures('little')
def test_damaged_caches_are_named(tmp_path):
    path = processed(tmp_path / 'qm9')
    whole = path.read_bytes()
    data, slices, kind = torch.load(path, weights_only=True)
    far = data | {'edge_index': data['edge_index'] + 99}
    bomb = data | {'x': torch.zeros(1, 1).expand(10**12, 5)}
    cut = slices | {'z': slices['z'] + 1}
    for content in (whole[:99], b'', (far, slices, kind), (bomb, slices, kind),
                    (data, cut, kind), ({}, slices, kind), [1], 'text'):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        refused(path, lambda _: load_qm9('pyg', root=tmp_path / 'qm9'),
                'delete it.*force_reload')


BOTH = """
import sys, time
from pyg_steerable.datasets import load_qm9
from pyg_steerable.datasets.qm9 import pack as _qm9pack
_qm9pack.find_tables = lambda: sys.argv[1]
build = _qm9pack.build_arrays

def slow(*args, **kwargs):
    print('built', flush=True)
    time.sleep(1)
    return build(*args, **kwargs)

_qm9pack.build_arrays = slow
print(len(load_qm9('qm9pack', root=sys.argv[2])))
"""


def test_two_processes_in_one_cache(tmp_path):
    pytest.importorskip('rdkit')
    tables, root = tmp_path / 'tables', tmp_path / 'cache'
    tables.mkdir()
    fuzz_files._tables(tables / 'x')
    command = [sys.executable, '-c', BOTH, str(tables), str(root)]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    out = [process.communicate(timeout=120)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert sorted(out) == ['6\n', 'built\n6\n']  # made once
    assert {p.name for p in root.iterdir()} <= {'qm9pack.npz', '.lock'}
    assert len(load_qm9('qm9pack', root)) == 6


def test_writers_have_names_of_their_own(tmp_path):
    path = str(tmp_path / 'a.npz')
    with files.writing(path) as one, files.writing(path) as two:
        assert one != two
        for name, text in ((one, 'one'), (two, 'two')):
            Path(name).write_text(text)
    assert Path(path).read_text() == 'one'
    with pytest.raises(KeyboardInterrupt), files.writing(path) as part:
        Path(part).write_text('half')
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ['a.npz']
    assert Path(path).read_text() == 'one'


def test_reload(tmp_path, monkeypatch):
    pytest.importorskip('rdkit')
    from pyg_steerable.datasets.qm9 import pack as _qm9pack
    fuzz_files._tables(tmp_path / 'x')
    monkeypatch.setattr(_qm9pack, 'find_tables', lambda: str(tmp_path))
    root = tmp_path / 'cache'
    assert len(load_qm9('qm9pack', root)) == 6
    (root / 'qm9pack.npz').write_bytes(b'PK damaged')
    refused(root / 'qm9pack.npz', lambda _: load_qm9('qm9pack', root))
    assert len(load_qm9('qm9pack', root, force_reload=True)) == 6
    assert len(load_qm9('qm9pack', root)) == 6


def test_interrupts_pass():
    """Ctrl-C is no damage of a file."""
    with pytest.raises(KeyboardInterrupt), files.reading('a', 'a file'):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match='^a: expected a file .got zlib'
                       ) as error, files.reading('a', 'a file'):
        raise ValueError('zlib') from zlib.error()
    assert error.value.__cause__ is not None
