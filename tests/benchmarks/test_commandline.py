"""Help for every option of everything that runs."""
import argparse
import importlib
from pathlib import Path

import pytest

pytest.importorskip('lightning')
ROOT = Path(__file__).parents[2]
#: Modules, beside those with build_parser(), and what makes their parsers.
OTHERS = {
    'benchmarks.papers.classification': lambda module:
        module.comparison_parser('a', [0, 1], 'runs/a'),
}


def parsers():
    """Every parser of examples and benchmarks, by name."""
    for folder in ('examples', 'benchmarks', 'benchmarks/papers'):
        for path in sorted((ROOT / folder).glob('*.py')):
            name = f'{folder.replace("/", ".")}.{path.stem}'
            if 'def build_parser' in path.read_text() or name in OTHERS:
                yield name


def test_they_are_found():
    found = list(parsers())
    assert {'benchmarks.conv', 'benchmarks.papers.qm9', *OTHERS} < set(found)
    assert {'examples.qm9', 'examples.modelnet40'} < set(found)


@pytest.mark.parametrize('name', list(parsers()))
def test_every_option_has_help_and_default(name):
    module = importlib.import_module(name)
    build = OTHERS.get(name, lambda module: module.build_parser())
    parser = build(module)
    formatter = parser._get_formatter()
    shown = 0
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or \
                action.help is argparse.SUPPRESS:
            continue
        text = formatter._expand_help(action)
        assert len(text.split('(default')[0]) > 3 or 'default: ' in text
        assert 'default' in text, action.option_strings
        assert 'default: None' not in text, action.option_strings
        shown += 1
    assert shown and parser.format_help()
