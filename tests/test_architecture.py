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
    'fields': ['groups', 'representations'],
    'intertwiners': ['fields', 'groups', 'representations'],
    'ops': [],
    'layers': ['fields', 'generators', 'groups', 'intertwiners', 'ops',
               'representations'],
    'kernels': ['fields', 'groups', 'intertwiners', 'layers', 'ops',
                'representations'],
    'graph': ['fields', 'groups', 'ops'],
    'nn': ['fields', 'graph', 'groups', 'intertwiners', 'kernels', 'layers',
           'ops'],
    'models': ['fields', 'groups', 'kernels', 'layers', 'nn', 'ops'],
    'datasets': ['fields', 'graph', 'groups'],
}
#: May see everything; nothing sees them, but where named.
OUTSIDE = {'testing', 'viz', 'interop', '__main__'}


def imports(path: Path):
    """The modules that a file imports at its top, by their full names."""
    package = ['pyg_steerable', *path.relative_to(ROOT).parent.parts]
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) + 1 - node.level]
            module = '.'.join((base if node.level else []) +
                              ([node.module] if node.module else []))
            yield module
            if not node.module:
                yield from (f'{module}.{a.name}' for a in node.names)


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


def test_only_interop_imports_escnn():
    for path in ROOT.rglob('*.py'):
        text = path.read_text()
        found = [n for node in ast.walk(ast.parse(text))
                 if isinstance(node, (ast.Import, ast.ImportFrom))
                 for n in ([a.name for a in node.names] if isinstance(
                     node, ast.Import) else [node.module or ''])
                 if n.split('.')[0] == 'escnn']
        assert not found or path.name == 'interop.py', path


def test_operators_hold_no_parameters():
    for path in files('ops'):
        assert 'Parameter(' not in path.read_text(), path
