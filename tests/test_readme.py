"""The README's code runs as written, and its links lead somewhere."""
import configparser
import re
from pathlib import Path

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
