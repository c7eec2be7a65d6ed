"""The README's code runs as written."""
import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / 'README.md'


def run(number):
    """The names that a block of code leaves."""
    block = re.findall(r'```python\n(.*?)```', README.read_text(),
                       re.S)[number]
    lines = [line for line in block.splitlines() if line.strip()]
    assert len(lines) <= 17
    names = {}
    exec(compile(block, str(README), 'exec'), names)
    return names


def test_quick_tour():
    assert run(0)['out'].shape == (50, 40)


def test_voxels():
    names = run(1)
    dense, graph, sparse = (names[key] for key in ('dense', 'graph',
                                                   'sparse'))
    assert dense.shape == (1, 16, 24, 24, 24)
    assert 0 < len(sparse) < 24**3 / 10
    assert torch.allclose(graph.gather(dense), sparse, atol=1e-5)
    assert torch.allclose(names['plain'](names['voxels'][None]), dense,
                          atol=1e-5)


def test_links_lead_somewhere():
    targets = re.findall(r'\]\(([^)h][^)]*)\)', README.read_text())
    assert targets
    for target in targets:
        assert (README.parent / target).exists(), target
