"""The example on images of digits."""
import json

import pytest
import torch
from resume import assert_same_files, ctrl_c, killed

for name in ('sklearn', 'matplotlib', 'tqdm'):
    pytest.importorskip(name)
from examples import digits  # noqa: E402

OPTIONS = ['--networks', 'SO(2)', 'CNN', '--seeds', '0', '--epochs', '3']
TINY = ['--networks', 'C4', 'CNN', '--seeds', '0', '1', '--epochs', '1']


def run(out, *options):
    return digits.main([*options, '--out', str(out)])


@pytest.fixture
def quick(monkeypatch):
    """Few images, angles and learning rates."""
    def load(seed):
        return [torch.utils.data.TensorDataset(*part[:most])
                for part, most in zip(loaded(seed), (128, 20, 20))]

    loaded = digits.load
    monkeypatch.setattr(digits, 'load', load)
    monkeypatch.setattr(digits, 'ANGLES', (0, 45, 90))
    monkeypatch.setattr(digits, 'RATES', (1e-2, 3e-2))


def test_turned_digits(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(digits, 'RATES', (3e-2, ))
    monkeypatch.setattr(digits, 'ANGLES', (0, 45, 90, 180))
    found = run(tmp_path, *OPTIONS)
    upright, other, quarter, half = found['SO(2)']['0']['accuracy']
    assert upright > 0.4 and upright == quarter == half and other > 0.2
    upright, *turned = found['CNN']['0']['accuracy']
    assert upright > 0.9 and max(turned) < 0.6
    assert (tmp_path / 'digits.png').stat().st_size > 0
    assert json.loads((tmp_path / 'results.json').read_text())[1] == found
    assert f'{100 * upright:.1f} +- 0.0' in capsys.readouterr().out


def test_parameters_are_as_many():
    ours, theirs = (digits.count(digits.build(name))
                    for name in ('SO(2)', 'CNN'))
    assert abs(ours / theirs - 1) < 0.01


def test_scores_stay_under_quarters():
    images = digits.load(0)[1].tensors[0][:20]
    for name in ('SO(2)', 'C4'):
        torch.manual_seed(0)
        net = digits.build(name).eval()
        with torch.no_grad():
            for angle in (90, 180, 270):
                change = net(digits.turn(images, angle)) - net(images)
                assert change.abs().max() < 1e-4


def test_splits_share_no_image():
    tests = []
    for seed in (0, 1):
        parts = digits.load(seed)
        assert [len(part) for part in parts] == [1147, 200, 450]
        images = torch.cat([part.tensors[0] for part in parts]).flatten(1)
        assert len(images.unique(dim=0)) == len(images)
        tests.append(parts[2].tensors[0])
    assert torch.equal(*tests)


def test_turning():
    images = digits.load(0)[1].tensors[0][:3]
    assert torch.equal(digits.turn(images, 90), images.rot90(1, (3, 4)))
    for angle in (89.999, 90.001):  # not by the same way
        assert torch.allclose(digits.turn(images, angle),
                              digits.turn(images, 90), atol=1e-3)


def test_killed_and_resumed_equals_uninterrupted(tmp_path, quick,
                                                 monkeypatch):
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    run(whole, *TINY)
    command = [*TINY, '--out', str(part)]
    for count in (1, 2):
        assert killed(digits.main, command, 'results.json', count)
    with ctrl_c(3), pytest.raises(KeyboardInterrupt):
        digits.main(command)
    found = digits.main(command)
    assert_same_files(whole, part)
    monkeypatch.setattr(digits, 'train', None)  # nothing is done again
    assert digits.main(command) == found
    rates = [run['rate'] for run in found['C4'].values()]
    assert rates[0] == rates[1]  # that of the first seed


def test_other_options_and_a_fresh_start(tmp_path, quick):
    first = run(tmp_path, *TINY)
    with pytest.raises(ValueError, match="'--fresh', or choose another"):
        run(tmp_path, *TINY, '--networks', 'CNN')
    second = run(tmp_path, *TINY, '--networks', 'CNN', '--fresh')
    assert set(first) == {'C4', 'CNN'} and set(second) == {'CNN'}
