"""The choice of the settings of examples/digits.py."""
import json

import pytest

for name in ('sklearn', 'matplotlib', 'tqdm'):
    pytest.importorskip(name)
import torch  # noqa: E402

from benchmarks import digits as choice  # noqa: E402
from examples import digits  # noqa: E402


def test_settings_are_those_of_the_example(tmp_path, monkeypatch, capsys):
    assert choice.DIGIT[digits.SIDE] == digits.DIGIT
    assert digits.HIDDEN in choice.WIDTHS
    assert digits.LOW_PASS in choice.build_parser().parse_args([]).low_pass
    for name in ('SIDE', 'DIGIT', 'LOW_PASS', 'HIDDEN'):  # put back later
        monkeypatch.setattr(digits, name, getattr(digits, name))
    loaded = digits.load
    seen = []

    def load(seed):
        train, valid, _ = loaded(seed)
        seen.append((digits.SIDE, digits.LOW_PASS, digits.HIDDEN))
        few = [torch.utils.data.TensorDataset(*part[:most])
               for part, most in ((train, 128), (valid, 20))]
        return *few, None  # no test

    monkeypatch.setattr(digits, 'load', load)
    found = choice.main(['--sides', '17', '21', '--low-pass', '2', '3',
                         '--widths', '2x0e + 2x1o', '1x0e + 1x1o', '--epochs',
                         '1', '--json', str(tmp_path / 'a.json')])
    assert len(set(seen[:8])) == 8  # all settings of SO(2)
    assert seen[8:] == [(17, 2, '2x0e + 2x1o'), (21, 2, '2x0e + 2x1o')]
    assert all(0 <= one[key] <= 1 for one in found
               for key in ('upright', 'turned'))
    assert json.loads((tmp_path / 'a.json').read_text())['results'] == found
    assert capsys.readouterr().out.count('\n') == 12
