"""Damaged and hostile files: each one loads, or ends in a ValueError that
names it, within bounded memory and time::

    python tests/helpers/fuzz_files.py --count 5000 --format npz

Without --format all of them. A mutation is determined by its format, its
number and the seed.
"""
from __future__ import annotations

import argparse
import gzip
import io
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch_geometric.datasets import QM9

from pyg_steerable.datasets import (
    AminoAcidEnvironments,
    MeshToVoxels,
    OGBFeatures,
    Shrec17Meshes,
    load_cath,
    load_mesh,
    load_nbody,
    load_points,
    load_qm9,
    load_rmd17,
    load_voxels,
)
from pyg_steerable.datasets.qm9 import (
    npz as _qm9_npz,
)
from pyg_steerable.datasets.qm9 import (
    pack as _qm9pack,
)
from pyg_steerable.datasets.qm9 import (
    pyg as _qm9_pyg,
)

MEMORY, SECONDS = 2 * 2**30, 10

# Mutations ###################################################################

_NUMBER = re.compile(rb'-?\d+(\.\d+)?([eE][-+]?\d+)?')
_VALUES = (b'nan', b'inf', b'-1', b'0', b'-0.0', b'1e300', b'-1e-300',
           b'4294967296', b'99999999999999999999', b'2147483648', b'400000000',
           b'1' * 5000, b'x', b'', b'1_0', b'0x10', b'1.5', b'256', b'-129')
_PIECES = (b'\0', b'\xff', b'\n', b'\r', b'"', b"'", b',', b'/', b'\\', b' ',
           b'../', b'\xef\xbb\xbf', b'\xff\xfe', b'\x80', b'#', b'{', b'(')


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The same file with one to four random faults."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_MUTATIONS)(data, rng)
    return data


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(2**rng.uniform(0, 11)))


def flip(data, rng):
    """Some bits."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 4, 32]) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(data, rng):
    """Only the beginning, or only the end."""
    cut = rng.randrange(len(data) + 1)
    return data[:cut] if rng.random() < 0.8 else data[cut:]


def duplicate(data, rng):
    """A piece again, once or many times."""
    start, end = _span(data, rng)
    times = rng.choice([1, 1, 2, 50])
    return data[:end] + times * data[start:end] + data[end:]


def delete(data, rng):
    """Without a piece."""
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def move(data, rng):
    """A piece somewhere else."""
    start, end = _span(data, rng)
    piece, data = data[start:end], data[:start] + data[end:]
    at = rng.randrange(len(data) + 1)
    return data[:at] + piece + data[at:]


def number(data, rng):
    """A number for another one."""
    found = list(_NUMBER.finditer(data))
    for match in rng.sample(found, min(len(found), rng.choice([1, 1, 5]))):
        return (data[:match.start()] + rng.choice(_VALUES) +
                data[match.end():])
    return data


def integers(data, rng):
    """A binary number for another one."""
    if len(data) < 8:
        return data
    at, size = rng.randrange(len(data) - 7), rng.choice([1, 2, 4, 8])
    value = rng.choice([0, 1, 2**(8 * size) - 1, 2**(8 * size - 1),
                        2**(8 * size - 1) - 1])
    return data[:at] + value.to_bytes(size, 'little') + data[at + size:]


def header(data, rng):
    """A fault in the first bytes."""
    size = min(len(data), rng.choice([8, 64, 200]))
    change = rng.choice([flip, number, delete, insert, integers])
    return change(data[:size], rng) + data[size:]


def insert(data, rng):
    """A few bytes more."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_PIECES) * rng.choice([1, 1, 300]
                                                        ) + data[at:]


def lines(data, rng):
    """Two lines exchanged, or one left out."""
    rows = data.split(b'\n')
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    rows[i], rows[j] = rows[j], rows[i]
    return b'\n'.join(rows[:i] + rows[i + rng.randrange(2):])


_MUTATIONS = (flip, truncate, duplicate, delete, move, number, number,
              integers, header, insert, lines)


def mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """A fault in a file of an archive, with a checksum that fits, in most
    cases; else one in the archive.
    """
    if rng.random() < 0.3:
        return mutate(data, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(
            out, 'w', rng.choice([0, 8, 8, 8, 12, 14])) as new:
        names = old.namelist()
        victims = rng.sample(names, min(len(names), rng.choice([1, 1, 2])))
        for name in names:
            content = old.read(name)
            if name in victims:
                content = rng.choice([mutate, header, number, values, swap])(
                    content, rng)
            if not (name in victims and rng.random() < 0.05):
                new.writestr(name, content)
    return out.getvalue()


def mutate_gzip(data: bytes, rng: random.Random) -> bytes:
    """A fault in what is packed, in most cases; else in the packed file."""
    if rng.random() < 0.3:
        return mutate(data, rng)
    return gzip.compress(mutate(gzip.decompress(data), rng), mtime=0)


def values(data, rng):
    """Other values of an array of the same shape, or another type."""
    try:
        array = np.load(io.BytesIO(data)).copy()
    except Exception:  # not an array, or no longer
        return data
    kinds = ['?', 'i1', 'u1', '<i4', '<u8', '>i8', '<f2', '<f4', '>f8', 'S3',
             'U2', 'c16', 'O', 'M8[s]']
    with warnings.catch_warnings(), np.errstate(all='ignore'):
        warnings.simplefilter('ignore')
        try:
            if rng.random() < 0.5:
                array = array.astype(rng.choice(kinds))
            elif array.size and array.dtype.kind in 'iuf':
                kind = array.dtype
                extreme = ([np.nan, np.inf, -np.inf, np.finfo(kind).max]
                           if kind.kind == 'f' else
                           [np.iinfo(kind).min, np.iinfo(kind).max, 0, 1])
                array.flat[rng.randrange(array.size)] = rng.choice(extreme)
        except Exception:  # cannot be converted
            return data
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def swap(data, rng):
    """An array of another shape."""
    shape = rng.choice([(), (0, ), (1, ), (3, 3), (10, ), (2, 0, 3),
                        (4, 8, 8, 1), (10000, ), (1, 1, 1, 1, 1, 1)])
    kind = rng.choice(['u1', '<i8', '<f4', 'S1'])
    out = io.BytesIO()
    np.save(out, np.ones(shape).astype(kind))
    return out.getvalue()


# Formats #####################################################################


class Layout(NamedTuple):
    """A kind of file: how to make one, how to read it, and what of it to
    damage (all of it is in one folder).
    """
    name: str
    make: Callable[[Path], None]
    load: Callable[[Path], object]
    mutate: Callable[[bytes, random.Random], bytes] = mutate


def _npz(arrays: dict) -> Callable[[Path], None]:
    return lambda path: np.savez_compressed(path, **arrays)


def _few(load, *args):
    """Loads, and looks at some items."""
    def run(path):
        data = load(str(path), *args)
        return [data[i] for i in range(min(len(data), 3))]
    return run


def _points() -> dict:
    return dict(points=np.arange(240, dtype=np.int16).reshape(8, 10, 3),
                label=np.arange(8) % 3, scale=np.float32(0.1),
                classes=np.array(['a', 'b', 'c']))


def _voxels() -> dict:
    bits = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    return dict(train=bits, train_label=np.arange(4, dtype=np.uint8))


def _cath() -> dict:
    n_atoms = np.arange(12) % 3 + 3
    used = np.arange(6) < n_atoms[:, None]
    return dict(n_atoms=n_atoms, split_start_indices=np.arange(10),
                positions=np.random.default_rng(0).normal(0, 9, (12, 6, 3)),
                atom_types=np.where(used, 'CA', '').astype('S4'),
                labels=np.array([[1, 10], [2, 40]])[np.arange(12) % 2])


def _nbody() -> dict:
    rng = np.random.default_rng(0)
    return dict(train_charge=np.array([[1, -1], [1, 1], [-1, -1]], np.int8),
                **{f'train_{key}': rng.normal(size=(3, 2, 3))
                   for key in ('pos', 'vel', 'target')})


def _qm9() -> dict:
    from pyg_steerable.datasets.qm9.molecules import SAMPLE
    arrays = _qm9_npz.read_npz(SAMPLE)
    atoms, bonds = (arrays[k][:3].sum() for k in ('num_atoms', 'num_bonds'))
    length = {'z': atoms, 'pos': atoms, 'charge': atoms, 'bond': bonds,
              'bond_type': bonds}
    return {key: a[:length.get(key, 3)] for key, a in arrays.items()}


def _rmd17() -> dict:
    rng = np.random.default_rng(0)
    return dict(nuclear_charges=np.array([8, 1, 1], np.uint8),
                coords=rng.normal(size=(4, 3, 3)), energies=rng.normal(size=4),
                forces=rng.normal(size=(4, 3, 3)))


def _pdb(path: Path) -> None:
    rng, rows = np.random.default_rng(0), ['HEADER    A PROTEIN']
    for number, residue in enumerate(('ALA', 'LYS', 'HID', 'GLY')):
        for name in ('N', 'CA', 'C', 'O', 'CB', 'H', '1HB'):
            x, y, z = rng.uniform(-3, 3, 3)
            name = name if len(name) == 4 else f' {name:<3}'
            rows.append(f'ATOM  {len(rows):5d} {name} {residue} A'
                        f'{number + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00'
                        f'  0.00          {name.strip("1 ")[0]:>2}')
    path.write_text('\n'.join([*rows, 'TER', 'END', '']))


def _pdb_gz(path: Path) -> None:
    other = path.with_suffix('')
    _pdb(other)
    path.write_bytes(gzip.compress(other.read_bytes(), mtime=0))


def _cif(path: Path) -> None:
    import gemmi
    other = path.with_suffix('.pdb')
    _pdb(other)
    structure = gemmi.read_structure(str(other))
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))


_BOX = [[x, y, z] for x in (0, 4) for y in (0, 2) for z in (0, 1)]
_SIDES = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6),
          (0, 2, 6, 4), (1, 3, 7, 5)]


def _obj(path: Path) -> None:
    path.write_text(
        'mtllib box.mtl\no box\n' +
        ''.join(f'v {x} {y:.3f} {z}\n' for x, y, z in _BOX) +
        ''.join('f ' + ' '.join(f'{i + 1}/1/{i + 1}' for i in face) + '\n'
                for face in _SIDES[:4]) + 'f -1 -2 -4 -3\nf 1 2 \\\n 6 5\n')


def _off(path: Path) -> None:
    path.write_text(
        'OFF8 6 12\n' + ''.join(f'{x} {y:.3f} {z}\n' for x, y, z in _BOX) +
        ''.join('4 ' + ' '.join(map(str, face)) + '\n' for face in _SIDES))


def _mesh(path: Path) -> None:
    mesh = load_mesh(str(path))
    try:
        MeshToVoxels(8)(mesh)
    except ValueError as error:  # of the transform, which knows no file
        if 'a surface' not in str(error):
            raise


def _shrec(path: Path) -> None:
    folder = path.parent / 'train_perturbed'
    folder.mkdir(exist_ok=True)
    for name in ('000001', '000002'):
        _obj(folder / f'{name}.obj')
    path.write_text('id,synsetId,subSynsetId,modelId,split\n'
                    '000001,02,x,y,train\n000002,"01",x,y,train\n')


def _tables(path: Path) -> None:
    columns = [column for column, _ in _qm9pack._COLUMNS.values()]
    head = ['Index', 'Elements', 'XYZ_Ang', *columns]
    water = ['3', "['O','H','H']", '[[0.0,0.0,0.12],[0.0,0.76,-0.48],'
             '[0.0,-0.76,-0.48]]', *(f'{k + .5}' for k in range(15))]
    for k, name in enumerate(_qm9pack._FILES):
        rows = [head] + [[str(3 * k + i), *water[1:]] for i in (1, 2)]
        (path.parent / name).write_text('\n'.join(
            ','.join(f'"{v}"' if ',' in v else v for v in row)
            for row in rows) + '\n')


def _read_tables(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of molecules that are left out
        arrays = _qm9pack.build_arrays(_qm9pack.read_tables(str(path.parent)))
        _qm9_npz.check_arrays(arrays, str(path.parent))


def _processed(path: Path) -> None:
    keys = ('x', 'z', 'pos', 'edge_index', 'edge_attr', 'y', 'idx')
    QM9.save([type(d)(**{k: d[k] for k in keys})
              for d in load_qm9(limit=3)], str(path))


def _load_processed(path: Path) -> None:
    data = object.__new__(_qm9_pyg._QM9)
    _qm9_pyg._QM9.load(data, str(path))


FORMATS: dict[str, list[Layout]] = {
    'npz': [
        Layout('points.npz', _npz(_points()), _few(load_points),
               mutate_archive),
        Layout('voxels.npz', _npz(_voxels()), _few(load_voxels),
               mutate_archive),
        Layout('cath.npz', _npz(_cath()), _few(load_cath), mutate_archive),
        Layout('nbody.npz', _npz(_nbody()), _few(load_nbody),
               mutate_archive),
        Layout('qm9.npz', _npz(_qm9()), lambda path: [
            OGBFeatures()(d) for d in load_qm9(str(path))], mutate_archive),
        Layout('rmd17.npz', _npz(_rmd17()), lambda path: list(
            load_rmd17(str(path))), mutate_archive),
    ],
    'pdb': [
        Layout('p.pdb', _pdb, _few(AminoAcidEnvironments)),
        Layout('p.pdb.gz', _pdb_gz, _few(AminoAcidEnvironments),
               mutate_gzip),
    ],
    'cif': [Layout('p.cif', _cif, _few(AminoAcidEnvironments))],
    'obj': [Layout('m.obj', _obj, _mesh)],
    'off': [Layout('m.off', _off, _mesh)],
    'csv': [
        Layout('train.csv', _shrec, lambda path: _few(Shrec17Meshes)(
            path.parent)),
        Layout('qm9_part2.csv', _tables, _read_tables),
    ],
    'pt': [Layout('data_v3.pt', _processed, _load_processed,
                  mutate_archive)],
}

# Runs ########################################################################


class TooLong(BaseException):
    """Not an Exception, which a loader might take for damage."""


@contextmanager
def limits() -> Iterator[None]:
    """Two gigabytes more than now; an alarm raises :class:`TooLong`."""
    def ring(signum, frame):
        raise TooLong

    pages = int(Path('/proc/self/statm').read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, ring)
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def verdict(load: Callable[[Path], object], path: Path) -> str:
    """What became of one file: 'loaded', 'refused', or what is wrong."""
    signal.alarm(SECONDS)
    try:
        load(path)
        return 'loaded'
    except (ValueError, FileNotFoundError) as error:
        named = str(path.parent) in str(error)
        return 'refused' if named else (
            f'{type(error).__name__} without the file: {error}')
    except (Exception, TooLong) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (f'{type(error).__name__}: {str(error)[:200]} '
                f'({where.filename}:{where.lineno})')
    finally:
        signal.alarm(0)


def fuzz(kind: str, count: int, seed: int, folder: Path) -> Counter[str]:
    """Verdicts on so many mutations of the files of a format."""
    found: Counter[str] = Counter()
    layouts = FORMATS[kind]
    originals = []
    for layout in layouts:
        path = folder / layout.name
        layout.make(path)
        layout.load(path)  # the original is good
        originals.append(path.read_bytes())
    with limits():
        for i in range(count):
            which = i % len(layouts)
            layout, path = layouts[which], folder / layouts[which].name
            rng = random.Random(f'{kind} {seed} {i}')
            path.write_bytes(layout.mutate(originals[which], rng))
            result = verdict(layout.load, path)
            if result not in ('loaded', 'refused'):
                kept = folder / f'fault_{i}_{layout.name}'
                path.rename(kept)
                result = f'{kept.name}: {result}'
            found[result] += 1
            path.write_bytes(originals[which])
    return found


def main() -> int:
    """Counts verdicts; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--count', type=int, default=1000,
                        help='mutations of each format (default: 1000)')
    parser.add_argument('--format', choices=list(FORMATS), default=None,
                        help='only this one (default: all)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--keep', default=None, metavar='FOLDER',
                        help='where to keep files with faults')
    args = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    for kind in [args.format] if args.format else FORMATS:
        folder = Path(args.keep or tempfile.mkdtemp()) / kind
        os.makedirs(folder, exist_ok=True)
        start = time.time()
        found = fuzz(kind, args.count, args.seed, folder)
        faults = {k: n for k, n in found.items()
                  if k not in ('loaded', 'refused')}
        bad += sum(faults.values())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f'{kind}: {args.count} files, {found["loaded"]} loaded, '
              f'{found["refused"]} refused, {sum(faults.values())} faults; '
              f'{time.time() - start:.0f} s, peak {peak:.2f} GiB',
              flush=True)
        for fault in faults:
            print(f'  {folder}/{fault}')
    return int(bad > 0)


if __name__ == '__main__':
    sys.exit(main())
