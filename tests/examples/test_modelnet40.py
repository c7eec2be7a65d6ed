"""The example on point clouds."""
import runpy

import numpy as np
import pytest
import torch
from resume import ROOT, assert_same_files, ctrl_c, killed
from torch_geometric.datasets import ModelNet

for name in ('matplotlib', 'tqdm'):
    pytest.importorskip(name)
from examples import modelnet40  # noqa: E402
from pyg_steerable import Group  # noqa: E402
from pyg_steerable.datasets import generate_shapes  # noqa: E402

OPTIONS = ['--clouds', '200', '--points', '64', '--levels', '2', '--channels',
           '4', '--degree', '1', '--hidden', '2', '--epochs', '3', '--lr',
           '1e-2', '--batch-size', '16', '--device', 'cpu']


def run(out, *options):
    return modelnet40.main([*OPTIONS, '--out', str(out), *options])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('modelnet40')
    run(folder)
    return folder


def test_learns(whole, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert {path.name for path in before} == {'last.pt', 'modelnet40.png',
                                              'results.json'}
    monkeypatch.setattr(modelnet40, 'load', None)  # nothing is done again
    found = run(whole)
    assert before == {path: path.stat().st_mtime_ns
                      for path in whole.iterdir()}
    upright = found['test_accuracy']['SO(2)']
    assert upright > 20 and len(found['log']) == 3  # ten classes
    assert f'{upright:.1f} %' in capsys.readouterr().out


@pytest.mark.parametrize('group', ['SO(2)xM', 'O(3)', 'C4'])
def test_scores_stay_under_the_group(group):
    args = modelnet40.build_parser().parse_args([*OPTIONS, '--group', group])
    torch.manual_seed(0)
    net = modelnet40.build(args, 10).eval()
    clouds = generate_shapes(4, args.points, seed=0)
    pos = torch.cat([cloud.pos for cloud in clouds])
    batch = torch.arange(4).repeat_interleave(args.points)

    def scores(pos):
        torch.manual_seed(0)  # of the points that are kept
        with torch.no_grad():
            return net(pos, batch, batch_size=4)

    before = scores(pos)
    for R in Group(group).sample(5).to(pos):
        assert (scores(pos @ R.T) - before).abs().max() < 1e-4


def test_killed_and_resumed_equals_uninterrupted(tmp_path, whole):
    command = [*OPTIONS, '--out', str(tmp_path)]
    for name, count in (('last.pt', 2), ('modelnet40.png', 1),
                        ('results.json', 1)):
        assert killed(modelnet40.main, command, name, count), name
        assert not (tmp_path / 'results.json').exists()
    run(tmp_path)
    assert_same_files(whole, tmp_path)


def test_ctrl_c_inside_an_epoch(tmp_path, whole, monkeypatch):
    with ctrl_c(15), pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.setattr('sys.argv', ['modelnet40.py', *OPTIONS, '--out',
                                     str(tmp_path)])
    with ctrl_c(5), pytest.raises(SystemExit, match='without --fresh'):
        runpy.run_path(str(ROOT / 'examples' / 'modelnet40.py'),
                       run_name='__main__')
    run(tmp_path)
    assert_same_files(whole, tmp_path)


def test_other_options_and_a_fresh_start(tmp_path):
    tiny = ['--clouds', '20', '--epochs', '1']
    assert killed(modelnet40.main, [*OPTIONS, *tiny, '--out', str(tmp_path)],
                  'modelnet40.png')
    for done in (False, True):
        assert (tmp_path / 'results.json').exists() == done
        with pytest.raises(ValueError, match="'--fresh', or choose another"):
            run(tmp_path, *tiny, '--seed', '1')
        first = run(tmp_path, *tiny)
    second = run(tmp_path, *tiny, '--seed', '1', '--fresh')
    assert second['log'] != first['log']


def test_few_clouds(tmp_path):
    found = run(tmp_path, '--clouds', '12', '--epochs', '1')  # no full batch
    assert found['log'][0][0] > 0
    with pytest.raises(ValueError, match=r"at least 10.*got 9.*'--clouds'"):
        run(tmp_path, '--clouds', '9', '--fresh')


def test_files(tmp_path):
    rng, files = np.random.default_rng(0), []
    for name in ('train', 'test'):
        files.append(str(tmp_path / f'{name}.npz'))
        np.savez(files[-1], points=rng.integers(-99, 99, (20, 80, 3)).astype(
            np.int16), label=np.arange(20) % 3, scale=np.float32(0.01),
            classes=np.array(['a', 'b', 'c']))
    found = run(tmp_path / 'run', '--npz', *files, '--epochs', '1')
    assert 0 <= found['test_accuracy']['SO(3)'] <= 100


OFF = 'OFF\n4 4 6\n0 0 0\n1 0 0\n0 2 0\n0 0 3\n3 0 1 2\n3 0 1 3\n3 0 2 3\n' \
    '3 1 2 3\n'


def test_meshes_of_pyg(tmp_path, monkeypatch):
    """As they lie in ModelNet's archive."""
    for name in ModelNet.raw_file_names.fget(None):
        for part in ('train', 'test'):
            folder = tmp_path / 'data/modelnet/40/raw' / name / part
            folder.mkdir(parents=True)
            (folder / f'{name}_0001.off').write_text(OFF)
    monkeypatch.chdir(tmp_path)
    found = run(tmp_path / 'run', '--source', 'pyg', '--epochs', '1')
    assert 0 <= found['test_accuracy']['SO(2)'] <= 100


@pytest.mark.parametrize('option', [('--epochs', '0'), ('--lr', '1e30')])
def test_nothing_learned(tmp_path, option):
    with pytest.raises(ValueError, match="'--epochs' or a smaller '--lr'"):
        run(tmp_path, '--clouds', '20', *option)
