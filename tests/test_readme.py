"""The README's code runs as written, its links lead somewhere, and commands
name what there is.
"""
import configparser
import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

README = Path(__file__).parent.parent / 'README.md'
TEXT = README.read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', TEXT, re.S)
HOME = 'https://github.com/pyg-steerable/pyg_steerable'
RAW = 'https://raw.githubusercontent.com/pyg-steerable/pyg_steerable/main/'


def run(*blocks):
    """The names that blocks of code leave, one after the other."""
    names = {}
    for block in blocks:
        exec(compile(block, str(README), 'exec'), names)
    return names


def test_quick_tour():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 17
    assert run(BLOCKS[0])['out'].shape == (50, 40)


def test_voxels():
    names = run(BLOCKS[1])
    dense, graph, sparse = (names[key] for key in ('dense', 'graph',
                                                   'sparse'))
    assert dense.shape == (1, 16, 24, 24, 24)
    assert 0 < len(sparse) < 24**3 / 10
    assert torch.allclose(graph.gather(dense), sparse, atol=1e-5)
    assert torch.allclose(names['plain'](names['voxels'][None]), dense,
                          atol=1e-5)


def test_questions(tmp_path, monkeypatch):
    """Later blocks use the names of the first."""
    monkeypatch.chdir(tmp_path)
    data, forces, crystals, saving = BLOCKS[2:]
    names = run(data, forces, saving)
    assert names['energy'].shape == (1, 1)
    assert names['forces'].shape == (30, 3)
    assert names['forces'].sum(0).abs().max() < 1e-5  # no shift, no work
    assert names['net'].training
    names = run(data, crystals)
    assert names['crystal'].edge_shift.abs().max() > 2
    assert names['out'].shape == (4, 32)


def test_links_are_absolute_and_lead_somewhere():
    links = re.findall(r'\]\(([^)\s]+)\)', TEXT)
    assert len(links) > 10
    for link in links:
        assert link.startswith('https://'), link
        for base in (f'{HOME}/blob/main/', f'{HOME}/tree/main/', RAW):
            if link.startswith(base):
                path = link.removeprefix(base).split('#')[0]
                assert (README.parent / path).exists(), link
                break
        else:
            assert HOME not in link, link
    images = re.findall(r'!\[[^]]*\]\(([^)]+)\)', TEXT)
    assert images and all(image.startswith(RAW) for image in images)
    assert '<img' not in TEXT


def test_urls_of_the_project():
    config = configparser.ConfigParser()
    config.read(README.with_name('setup.cfg'))
    urls = dict(line.split(' = ') for line in config['metadata'][
        'project_urls'].strip().splitlines())
    assert set(urls) == {'Homepage', 'Documentation', 'Source', 'Changelog',
                         'Issues'}
    for url in urls.values():
        assert url.startswith(HOME)
        for base in ('/blob/main/', '/tree/main/'):
            if base in url:
                assert (README.parent / url.split(base)[1]).exists(), url
    assert f'repository-code: {HOME}\n' in README.with_name(
        'CITATION.cff').read_text()


# Commands ####################################################################

ROOT = README.parent
#: Commands that pass options on, and to which.
PASSED_ON = {'benchmarks.papers.groups': 'benchmarks.papers.modelnet40',
             'benchmarks.papers.nbody_plane': 'examples/nbody.py',
             'benchmarks.papers.qm9_ablation': 'benchmarks.papers.qm9'}
OURS = r'(?:examples|benchmarks|docs|tests|pyg_steerable)\b'


def commands(text):
    """What python is given in a text: a file or a module, and the rest."""
    text = re.sub(r'(?<!`)`([^`]+)`(?!`)',  # inline code over several lines
                  lambda found: found[0].replace('\n', ' '), text)
    text = text.replace('\\\n', ' ')
    for name, rest in re.findall(
            rf'(?:python|torchrun[^\n`]*?) ((?:-m )?{OURS}[\w./]*)([^\n`|]*)',
            text):
        try:
            words = shlex.split(rest, comments=True)
        except ValueError:  # a quotation mark behind the command
            words = rest.split()
        yield name.removeprefix('-m ').rstrip('.'), words


def source(name):
    """The file of a script or module, if there is one."""
    for path in ([name] if name.endswith('.py') else
                 [f"{name.replace('.', '/')}{end}"
                  for end in ('.py', '/__main__.py')]):
        if (ROOT / path).is_file():
            return ROOT / path
    return None


def known(name, word):
    """If a command has an option."""
    path = source(name)
    if 'def build_parser' not in path.read_text():
        files = (path.parent.glob('*.py') if path.stem == '__main__'
                 else [path])
        return any(f"'{word}'" in file.read_text() for file in files)
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    return word in importlib.import_module(
        module).build_parser()._option_string_actions


def faults(text):
    """Commands in a text that nothing takes."""
    for name, words in commands(text):
        if source(name) is None:
            yield name
            continue
        takers = {name, PASSED_ON.get(name, name)}
        if '--all' in words:
            takers.add('benchmarks.papers.classification')
        for word in words:
            if word.startswith('-') and not any(
                    known(taker, word) or taker.endswith('classification')
                    and word == '--seeds' for taker in takers):
                yield f'{name} {word}'


def texts():
    """Pages, and modules with docstrings, that name commands."""
    return [README, *sorted((ROOT / 'docs').glob('*.md')), *(
        path for folder in ('examples', 'benchmarks', 'docs', 'tests/helpers',
                            'pyg_steerable')
        for path in sorted((ROOT / folder).rglob('*'))
        if path.suffix == '.py' or path.name == 'README.md')]


def test_commands_exist():
    pytest.importorskip('lightning')
    found = {str(path.relative_to(ROOT)): path.read_text()
             for path in texts()}
    names = {name for text in found.values() for name, _ in commands(text)}
    assert {'examples/qm9.py', 'benchmarks.conv', 'benchmarks.papers.cath',
            'docs.make_picture', 'tests/helpers/kills.py'} < names
    assert {path: list(faults(text)) for path, text in found.items()
            if list(faults(text))} == {}


def test_wrong_commands_are_seen():
    assert list(commands('`python -m benchmarks.conv --group O\n--json a`')
                ) == [('benchmarks.conv', ['--group', 'O', '--json', 'a'])]
    for text, fault in [
            ('run `python examples/groups.py`.', 'examples/groups.py'),
            ('    python -m benchmarks.none --all', 'benchmarks.none'),
            ('`python examples/qm9.py\n--demo --npz a`',
             'examples/qm9.py --npz'),
            ('    python -m benchmarks.papers.groups --all \\\n        --blue',
             'benchmarks.papers.groups --blue'),
            ('torchrun --nproc-per-node 2 -m benchmarks.papers.qm9 --x',
             'benchmarks.papers.qm9 --x')]:
        assert list(faults(text)) == [fault]
    assert not list(faults('python -m benchmarks.papers.groups --points 9'))


@pytest.mark.parametrize('page', ['README.md', 'examples/README.md',
                                  'docs/results.md'])
def test_files_that_are_named_exist(page):
    named = re.findall(r'`((?:examples|benchmarks|docs)/[\w./]+)`',
                       (ROOT / page).read_text())
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
