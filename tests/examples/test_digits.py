"""The example on images of digits."""
import sys
from pathlib import Path

import pytest
import torch

for name in ('sklearn', 'matplotlib', 'tqdm'):
    pytest.importorskip(name)
sys.path.insert(0, str(Path(__file__).parents[2] / 'examples'))
import digits  # noqa: E402


def test_turned_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, 'RATES', (3e-2, ))
    monkeypatch.setattr(digits, 'ANGLES', (0, 45, 90, 180))
    curves = digits.main(['--networks', 'SO(2)', 'CNN', '--seeds', '0',
                          '--epochs', '4', '--plot', str(tmp_path / 'a.png')])
    upright, _, quarter, half = curves['SO(2)'][0].tolist()
    assert upright > 40 and upright == quarter == half
    upright, *turned = curves['CNN'][0].tolist()
    assert upright > 90 and max(turned) < 60
    assert (tmp_path / 'a.png').stat().st_size > 0
    assert 'upright' in capsys.readouterr().out


def test_parameters_are_as_many():
    ours, theirs = (digits.count(digits.build(name))
                    for name in ('SO(2)', 'CNN'))
    assert abs(ours / theirs - 1) < 0.01


def test_splits_share_no_image():
    parts = digits.load(0)
    assert [len(part) for part in parts] == [1147, 200, 450]
    images = torch.cat([part.tensors[0] for part in parts]).flatten(1)
    assert len(images.unique(dim=0)) == len(images)


def test_turning():
    images = digits.load(0)[1].tensors[0][:3]
    assert torch.equal(digits.turn(images, 90), images.rot90(1, (3, 4)))
    for angle in (89.999, 90.001):  # not by the same way
        assert torch.allclose(digits.turn(images, angle),
                              digits.turn(images, 90), atol=1e-3)
