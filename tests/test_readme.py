"""The README's code runs as written."""
import re
from pathlib import Path

README = Path(__file__).parent.parent / 'README.md'


def test_quick_tour():
    blocks = re.findall(r'```python\n(.*?)```', README.read_text(), re.S)
    assert len(blocks) == 1
    lines = [line for line in blocks[0].splitlines() if line.strip()]
    assert len(lines) <= 17
    names = {}
    exec(compile(blocks[0], str(README), 'exec'), names)
    assert names['out'].shape == (50, 40)


def test_links_lead_somewhere():
    targets = re.findall(r'\]\(([^)h][^)]*)\)', README.read_text())
    assert targets
    for target in targets:
        assert (README.parent / target).exists(), target
