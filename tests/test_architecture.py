"""The rooms of docs/design.md, and imports between them one way only."""
import ast
from pathlib import Path

import pytest

import pyg_steerable

ROOT = Path(pyg_steerable.__file__).parent
#: What each room may import, beside itself, checks and cache.
BELOW = {
    'cache': [],
    'checks': [],
    'generators': [],
    'groups': ['generators'],
    'representations': ['groups'],
    'escnn_reader': ['generators', 'groups', 'representations'],
    'fields': ['escnn_reader', 'groups', 'representations'],
    'intertwiners': ['fields', 'groups', 'representations'],
    'queries': ['fields', 'intertwiners'],
    'ops': [],
    'layers': ['fields', 'generators', 'groups', 'intertwiners', 'ops',
               'queries', 'representations'],
    'kernels': ['fields', 'groups', 'intertwiners', 'layers', 'ops',
                'representations'],
    'graph': ['fields', 'groups', 'ops'],
    'nn': ['fields', 'graph', 'groups', 'intertwiners', 'kernels', 'layers',
           'ops', 'queries'],
    'models': ['fields', 'groups', 'kernels', 'layers', 'nn', 'ops'],
    'datasets': ['fields', 'graph', 'groups'],
}
#: May see everything; nothing sees them, but where named.
OUTSIDE = {'testing', 'viz', 'interop', '__main__'}


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


def files(room: str):
    single = ROOT / f'{room}.py'
    return [single] if single.exists() else sorted((ROOT / room).glob('*.py'))


@pytest.mark.parametrize('room', BELOW)
def test_arrows_run_one_way(room):
    assert files(room)
    for path in files(room):
        for name in imports(path):
            if not name.startswith('pyg_steerable.'):
                continue
            other = name.split('.')[1]
            allowed = [room, 'cache', 'checks', *BELOW[room]]
            assert other in allowed, f'{path.name}: {name}'


def test_every_file_has_a_room():
    rooms = {p.stem for p in ROOT.iterdir()
             if p.suffix == '.py' or (p / '__init__.py').exists()}
    assert rooms == {'__init__', *BELOW, *OUTSIDE}


def test_no_circles():
    """Neither between files nor between rooms."""
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
    for path in files('ops'):
        assert 'Parameter(' not in path.read_text(), path
