"""The example on molecules."""
import runpy

import pytest
import torch
from resume import ROOT, assert_same_files, ctrl_c, killed

for name in ('matplotlib', 'tqdm'):
    pytest.importorskip(name)
from examples import qm9  # noqa: E402

OPTIONS = ['--target', 'U0', '--limit', '400', '--epochs', '3', '--lr', '1e-2',
           '--channels', '6', '--blocks', '1', '--batch-size', '16',
           '--average', '0.8', '--device', 'cpu']


def run(out, *options):
    return qm9.main([*OPTIONS, '--out', str(out), *options])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('qm9')
    run(folder)
    return folder


def test_learns(whole, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert {path.name for path in before} == {'last.pt', 'qm9.png',
                                              'results.json'}
    monkeypatch.setattr(qm9, 'load', None)  # nothing is done again
    found = run(whole)
    assert before == {path: path.stat().st_mtime_ns
                      for path in whole.iterdir()}
    assert found['test_mae'] < 0.5 * found['mean_predictor_mae']
    assert found['largest_change'] < 1e-4 and len(found['log']) == 3
    assert f"{found['test_mae']:.4g} meV" in capsys.readouterr().out


def test_killed_and_resumed_equals_uninterrupted(tmp_path, whole):
    out = ['--out', str(tmp_path)]
    for name, count in ('last.pt', 2), ('qm9.png', 1), ('results.json', 1):
        assert killed(qm9.main, [*OPTIONS, *out], name, count), name
        assert not (tmp_path / 'results.json').exists()
    run(tmp_path)
    assert_same_files(whole, tmp_path)


def test_ctrl_c_inside_an_epoch(tmp_path, whole, monkeypatch):
    steps = 306 // 16
    with ctrl_c(steps + 5), pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr('sys.argv', ['qm9.py', *OPTIONS, '--out',
                                     str(tmp_path)])
    with ctrl_c(5), pytest.raises(SystemExit, match='without --fresh'):
        runpy.run_path(str(ROOT / 'examples' / 'qm9.py'),
                       run_name='__main__')
    run(tmp_path)
    assert_same_files(whole, tmp_path)


def test_other_options_and_a_fresh_start(tmp_path):
    tiny = ['--limit', '40', '--epochs', '1']
    assert killed(qm9.main, [*OPTIONS, *tiny, '--out', str(tmp_path)],
                  'qm9.png')
    for done in (False, True):
        assert (tmp_path / 'results.json').exists() == done
        with pytest.raises(ValueError, match="'--fresh', or choose another"):
            run(tmp_path, *tiny, '--seed', '1')
        first = run(tmp_path, *tiny)
    second = run(tmp_path, *tiny, '--seed', '1', '--fresh')
    assert second['test_mae'] != first['test_mae']
    assert second['options']['seed'] == 1


def test_few_molecules(tmp_path):
    found = run(tmp_path, '--limit', '12', '--epochs', '1')  # no full batch
    assert found['test_mae'] > 0 and found['log'][0][0] > 0
    with pytest.raises(ValueError, match=r"at least 10.*got 9.*'--limit'"):
        run(tmp_path, '--limit', '9', '--fresh')
    assert not (tmp_path / 'results.json').exists()


def test_demo_is_smaller():
    args = qm9.build_parser().parse_args(['--demo'])
    assert args.demo and qm9.build(args)(
        torch.rand(2, 5), torch.rand(2, 3), torch.tensor([[0, 1], [1, 0]]),
        torch.rand(2, 4)).shape == (1, 1)


@pytest.mark.parametrize('option', [('--epochs', '0'), ('--lr', '1e30')])
def test_nothing_learned(tmp_path, option):
    with pytest.raises(ValueError, match="'--epochs' or a smaller '--lr'"):
        run(tmp_path, '--limit', '40', *option)
