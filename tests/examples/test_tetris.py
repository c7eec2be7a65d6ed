"""The example on eight shapes."""
import json

import pytest
import torch
from resume import assert_same_files, ctrl_c, killed

for name in ('matplotlib', 'tqdm'):
    pytest.importorskip(name)
from examples import tetris  # noqa: E402
from pyg_steerable import Group  # noqa: E402

OPTIONS = ['--seeds', '0', '--copies', '5']
TINY = ['--seeds', '0', '1', '--copies', '1', '--steps', '2']


def run(out, *options):
    return tetris.main([*options, '--out', str(out)])


def test_mirror_images(tmp_path, capsys):
    """SO(3) tells them apart, invariants of O(3) cannot."""
    found = run(tmp_path, *OPTIONS)
    said = capsys.readouterr().out
    for kind in ('points', 'voxels'):
        for group, accuracy in ('SO(3)', 1.), ('O(3)', 7 / 8):
            matrix = torch.tensor(found[f'{kind}, {group}']['0'])
            assert (matrix.sum(1) == 5).all()
            assert tetris.accuracy(matrix.tolist()) == accuracy
            # A shape and its mirror image only are mistaken.
            assert matrix[:2, :2].sum() == 10
        assert f'{kind}, O(3)  accuracy on turned shapes: 87.5%' in said
    assert json.loads((tmp_path / 'results.json').read_text())['found'] == \
        found
    assert (tmp_path / 'tetris.png').stat().st_size > 0


@pytest.mark.parametrize('kind, group, rotations', [
    ('points', 'SO(3)', 'SO(3)'), ('voxels', 'SO(3)', 'O')])
def test_scores_stay_under_rotations(kind, group, rotations):
    net = tetris.train(kind, group, 2, 0)
    with torch.no_grad():
        before = net(tetris.load(kind, '1', 3, 0))
        after = net(tetris.load(kind, rotations, 3, 7))
    assert (after - before).abs().max() < 1e-4


def test_scores_stay_under_reflections():
    net, data = tetris.train('points', 'O(3)', 2, 0), tetris.load(
        'points', '1', 1, 0)
    with torch.no_grad():
        before, pos = net(data), data.pos
        for R in Group('O(3)').sample(5).to(pos):
            data.pos = pos @ R.T
            assert (net(data) - before).abs().max() < 1e-4


def test_killed_and_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    run(whole, *TINY)
    command = [*TINY, '--out', str(part)]
    for count in (1, 3):
        assert killed(tetris.main, command, 'results.json', count)
    with ctrl_c(2), pytest.raises(KeyboardInterrupt):
        tetris.main(command)
    found = tetris.main(command)
    assert_same_files(whole, part)
    monkeypatch.setattr(tetris, 'train', None)  # nothing is done again
    assert tetris.main(command) == found


def test_other_options_and_a_fresh_start(tmp_path):
    first = run(tmp_path, *TINY, '--seeds', '0')
    with pytest.raises(ValueError, match="'--fresh', or choose another"):
        run(tmp_path, *TINY)
    assert run(tmp_path, *TINY, '--seeds', '1', '--fresh') != first
