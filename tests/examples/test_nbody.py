"""The example on particles."""
import runpy

import pytest
from resume import ROOT, assert_same_files, ctrl_c, killed

for name in ('matplotlib', 'tqdm'):
    pytest.importorskip(name)
from examples import nbody  # noqa: E402
from pyg_steerable.datasets import (  # noqa: E402
    NBodySystem,
    generate_nbody,
    save_nbody,
)

OPTIONS = ['--epochs', '3', '--lr', '1e-2', '--channels', '3', '--hidden',
           '2', '--steps', '2', '--batch-size', '10', '--average', '0.8',
           '--train', '60', '--valid', '20', '--device', 'cpu']


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    """With a small file of springs."""
    path = tmp_path_factory.mktemp('data') / 'small.npz'
    save_nbody(str(path), **{part: generate_nbody(
        60, NBodySystem('springs', strength=0.3), start=10, seed=seed)
        for seed, part in enumerate(nbody.PARTS)})
    return [*OPTIONS, '--npz', str(path)]


def run(options, out, *more):
    return nbody.main([*options, '--out', str(out), *more])


@pytest.fixture(scope='module')
def whole(options, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('nbody')
    run(options, folder)
    return folder


def test_done_is_done(options, whole, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert {path.name for path in before} == {'last.pt', 'nbody.png',
                                              'results.json'}
    monkeypatch.setattr(nbody, 'load', None)  # nothing is done again
    found = run(options, whole)
    assert before == {path: path.stat().st_mtime_ns
                      for path in whole.iterdir()}
    assert found['largest_change'] < 1e-4 and len(found['log']) == 3
    assert f"MSE: {found['test_mse']:.4g}" in capsys.readouterr().out


def test_learns(options, tmp_path):
    """Better than straight lines, which are the best without forces."""
    found = run(options, tmp_path, '--epochs', '20')
    assert found['test_mse'] < 0.5 * found['straight_line_mse']
    assert found['log'][-1][1] < 0.2 * found['log'][0][1]


def test_killed_and_resumed_equals_uninterrupted(options, tmp_path, whole):
    out = ['--out', str(tmp_path)]
    for name, count in ('last.pt', 2), ('nbody.png', 1), ('results.json', 1):
        assert killed(nbody.main, [*options, *out], name, count), name
        assert not (tmp_path / 'results.json').exists()
    run(options, tmp_path)
    assert_same_files(whole, tmp_path)


def test_ctrl_c_inside_an_epoch(options, tmp_path, whole, monkeypatch):
    with ctrl_c(9), pytest.raises(KeyboardInterrupt):
        run(options, tmp_path)
    monkeypatch.setattr('sys.argv', ['nbody.py', *options, '--out',
                                     str(tmp_path)])
    with ctrl_c(3), pytest.raises(SystemExit, match='without --fresh'):
        runpy.run_path(str(ROOT / 'examples' / 'nbody.py'),
                       run_name='__main__')
    run(options, tmp_path)
    assert_same_files(whole, tmp_path)


def test_other_options_and_a_fresh_start(options, tmp_path):
    tiny = ['--epochs', '1', '--train', '20']
    first = run(options, tmp_path, *tiny)
    with pytest.raises(ValueError, match="'--fresh', or choose another"):
        run(options, tmp_path, *tiny, '--seed', '1')
    second = run(options, tmp_path, *tiny, '--seed', '1', '--fresh')
    assert second['test_mse'] != first['test_mse']


@pytest.mark.parametrize('more', [
    ('--law', 'springs', '--stiffness', '2', '--open', '--group', 'SO(2)xM'),
    ('--law', 'gravity', '--attributes', 'scalars'),
    ('--demo', '--attributes', 'none')])
def test_systems_made_here(tmp_path, more, monkeypatch):
    made = []

    def generate(num, system, seed):
        made.append((num, system, seed))
        return generate_nbody(num, system, start=5, steps=10, seed=seed)

    monkeypatch.setattr(nbody, 'generate_nbody', generate)
    found = run([*OPTIONS, '--epochs', '1'], tmp_path, *more)
    assert [m[0] for m in made] == [60, 20, 20]
    assert len({m[2] for m in made}) == 3
    assert found['largest_change'] < 1e-4
    assert all(m[1].law == found['options']['law'] for m in made)


def test_errors(options, tmp_path):
    with pytest.raises(ValueError, match="70 systems to train.*'--train'"):
        run(options, tmp_path, '--train', '70')
    for option in (('--epochs', '0'), ('--lr', '1e30')):
        with pytest.raises(ValueError, match="'--epochs' or a smaller"):
            run(options, tmp_path, *option, '--fresh')
