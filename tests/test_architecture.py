"""The rooms of docs/design.md, and imports between them one way only."""
import ast
from pathlib import Path

import pytest

import pyg_steerable

ROOT = Path(pyg_steerable.__file__).parent
#: What each room may import, beside itself and what every room may use. A
#: folder in another one is a room of its own, the files there a room, too.
BELOW = {
    'symmetry': [],
    'ops': ['ops/contract'],
    'ops/contract': ['ops'],
    'graph/points': ['ops'],
    'graph/lattice': ['ops'],
    'graph/transforms': ['graph/points', 'graph/lattice', 'symmetry'],
    'graph': ['graph/points', 'graph/lattice', 'graph/transforms'],
    'nn': ['nn/pointwise', 'nn/kernel', 'nn/conv', 'nn/pool', 'graph',
           'graph/points', 'graph/lattice', 'ops', 'symmetry'],
    'nn/pointwise': ['nn', 'graph/lattice', 'ops', 'ops/contract',
                     'symmetry'],
    'nn/kernel': ['nn', 'nn/pointwise', 'ops', 'ops/contract', 'symmetry'],
    'nn/conv': ['nn', 'nn/kernel', 'nn/pointwise', 'graph/lattice', 'ops',
                'ops/contract', 'symmetry'],
    'nn/pool': ['nn', 'nn/conv', 'graph/points', 'graph/lattice', 'ops',
                'symmetry'],
    'models': ['nn', 'nn/kernel', 'nn/conv', 'nn/pool', 'nn/pointwise',
               'graph', 'graph/points', 'ops', 'symmetry'],
    'metrics': [],
    'datasets': ['datasets/qm9', 'datasets/proteins', 'datasets/shapes',
                 'metrics'],
    'datasets/qm9': ['datasets'],
    'datasets/proteins': ['datasets'],
    'datasets/shapes': ['datasets', 'metrics', 'symmetry'],
}
#: Every room may use these; they know nothing of each other but checks.
TOOLS = {'cache', 'checks', 'files'}
#: May see everything; nothing sees them.
OUTSIDE = {'testing', 'viz', 'interop', '__main__', '__init__'}
#: Names of old places, for users.
NAMES = {'kernels', 'intertwiners'}


def imports(path: Path):
    """The modules that a file imports anywhere, inside of functions too, by
    their full names.
    """
    package = ['pyg_steerable', *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) + 1 - node.level]
            module = '.'.join((base if node.level else []) +
                              ([node.module] if node.module else []))
            # What is imported may be a module, too.
            yield from (f'{module}.{a.name}' for a in node.names)


def file_of(name: str) -> Path | None:
    """The file of ours that a name leads to."""
    parts = name.split('.')
    if parts[0] != 'pyg_steerable':
        return None
    for n in (len(parts), len(parts) - 1):
        path = ROOT.joinpath(*parts[1:n])
        if path.with_suffix('.py').is_file():
            return path.with_suffix('.py')
        if (path / '__init__.py').is_file():
            return path / '__init__.py'
    return None


def circle(arrows: dict) -> list | None:
    """A way that leads back to its start, if there is one."""
    done = set()

    def walk(at, way):
        if at in way:
            return [*way[way.index(at):], at]
        if at in done:
            return None
        for other in sorted(arrows.get(at, ())):
            found = walk(other, [*way, at])
            if found:
                return found
        done.add(at)
        return None

    for start in sorted(arrows):
        found = walk(start, [])
        if found:
            return found
    return None


def room_of(path: Path) -> str:
    """The folder of a file, or the file itself at the top."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '/'.join(parts[:-1]) or parts[0]


def files(room: str):
    return sorted((ROOT / room).glob('*.py'))


def test_every_file_has_a_room():
    rooms = {room_of(path) for path in ROOT.rglob('*.py')}
    assert rooms == {*BELOW, *TOOLS, *OUTSIDE, *NAMES}


@pytest.mark.parametrize('room', BELOW)
def test_arrows_run_one_way(room):
    assert files(room)
    for path in files(room):
        for name in imports(path):
            other = file_of(name)
            if other is None:
                continue
            allowed = {room, *TOOLS, *BELOW[room]}
            assert room_of(other) in allowed, f'{path}: {name}'


def test_tools_know_no_room():
    for tool in TOOLS:
        for name in imports(ROOT / f'{tool}.py'):
            other = file_of(name)
            assert other is None or room_of(other) == 'checks', (tool, name)


def test_no_circles():
    """Neither between files, nor between folders at the top."""
    between_files, between_rooms = {}, {}
    for path in ROOT.rglob('*.py'):
        room = path.relative_to(ROOT).parts[0]
        for name in imports(path):
            other = file_of(name)
            if other is None or other == path:
                continue
            between_files.setdefault(path, set()).add(other)
            there = other.relative_to(ROOT).parts[0]
            if there != room:
                between_rooms.setdefault(room, set()).add(there)
    assert circle(between_files) is None
    assert circle(between_rooms) is None
    assert sum(map(len, between_files.values())) > 200  # else: not seen


def test_circles_are_found():
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': set()}) is None
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c', 'b']


def test_only_one_file_imports_escnn():
    for path in ROOT.rglob('*.py'):
        found = [n for n in imports(path) if n.split('.')[0] == 'escnn']
        assert not found or path.name == 'escnn_reader.py', path


def test_operators_hold_no_parameters():
    for path in (ROOT / 'ops').rglob('*.py'):
        assert 'Parameter(' not in path.read_text(), path
