"""Point clouds: runs resume exactly and refuse bad input."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from resume import ROOT, assert_resumes

pytest.importorskip('lightning')
from benchmarks.papers import groups, modelnet40, pointnet2  # noqa: E402

QUIET = ['--smoke', '--quiet', '--device', 'cpu', '--threads', '1']

# lightning, with which we do not share a release cycle
pytestmark = pytest.mark.filterwarnings('ignore')


def run(out, *options):
    return modelnet40.main([*QUIET, '--out', str(out), *options])


@pytest.mark.parametrize('options', [
    ['--activation', 'gate', '--group', 'O(3)'],
    ['--kernel', 'harmonic', '--group', 'SO(2)', '--channels', '6'],
    ['--group', 'M', '--train-rotation', 'SO(3)', '--jitter', '0.01',
     '--scale', '--sampling', 'fps'],
    ['--match', '3000', '--group', 'C4'],
], ids=' '.join)
def test_options(tmp_path, options):
    found = run(tmp_path, *options)
    trained = 'SO(3)' if 'SO(3)' in options else 'z'
    assert set(found['test_accuracy']) == {f'{trained}/z', f'{trained}/SO(3)'}
    assert all(0 <= a <= 100 for a in found['test_accuracy'].values())
    exact = 'gate' in options or found['group'] in ('M', 'C4')
    assert found['invariance_error'] < (1e-3 if exact else 0.5)
    if found['group'] != 'O(3)':
        assert found['change_under_O(3)'] > 1e-3
    for name in ('learning_curve.png', 'confusion.png', 'metrics.csv',
                 'results.json', 'last.ckpt', 'best.ckpt'):
        assert (tmp_path / name).stat().st_size > 0
    if '--match' in options:
        assert abs(found['parameters'] / 3000 - 1) < 0.1


@pytest.mark.parametrize('group', ['SO(2)xM', 'SO(3)', 'M'])
def test_harmonic_kernels_take_as_many_parameters(group):
    sizes = {}
    for kernel in ('implicit', 'harmonic'):
        args = modelnet40.parse(['--group', group, '--kernel', kernel])
        net = modelnet40.build_network(args, 40)
        sizes[kernel] = modelnet40.count_parameters(net)
    assert abs(sizes['harmonic'] / sizes['implicit'] - 1) < 0.1


def test_learns(tmp_path):
    found = run(tmp_path, '--epochs', '4', '--train', '400', '--test', '100',
                '--channels', '6', '--invariants', '32', '--mlp', '32',
                '--lr', '1e-2', '--activation', 'gate')
    assert found['test_accuracy']['z/z'] > 30  # ten classes


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    assert_resumes(tmp_path, modelnet40.main, [*QUIET, '--epochs', '4'])


def write(path, n=30, classes=('a', 'b', 'c'), **changes):
    rng = np.random.default_rng(0)
    values = dict(points=rng.integers(-99, 99, (n, 80, 3)).astype(np.int16),
                  label=np.arange(n) % len(classes), scale=np.float32(0.01),
                  classes=np.array(classes)) | changes
    np.savez(path, **{k: v for k, v in values.items() if v is not None})
    return str(path)


def test_files(tmp_path, capsys):
    files = [write(tmp_path / f'{name}.npz') for name in ('train', 'test')]
    options = ['--train', '30', '--test', '10']
    found = run(tmp_path / 'run', '--npz', *files, *options)
    assert 0 <= found['test_accuracy']['z/z'] <= 100
    write(files[0], label=np.arange(30) % 2)
    run(tmp_path / 'empty', '--npz', *files, *options)
    assert "no training clouds of ['c']" in capsys.readouterr().out
    write(files[1], classes=('a', 'b', 'd'))
    with pytest.raises(ValueError, match='same classes'):
        run(tmp_path / 'other', '--npz', *files)
    write(files[1], label=None)
    with pytest.raises(ValueError, match="no .'label'"):
        run(tmp_path / 'missing', '--npz', *files)


OFF = """OFF
4 4 6
0 0 0
1 0 0
0 2 0
0 0 3
3 0 1 2
3 0 1 3
3 0 2 3
3 1 2 3
"""


def test_meshes_of_pyg(tmp_path, capsys):
    """As they lie in ModelNet's archive."""
    names = ['bathtub', 'bed', 'chair', 'desk', 'dresser', 'monitor',
             'night_stand', 'sofa', 'table', 'toilet']
    for name in names:
        for part, number in (('train', 2), ('test', 1)):
            folder = tmp_path / 'data' / '10' / 'raw' / name / part
            folder.mkdir(parents=True)
            for i in range(number):
                (folder / f'{name}_{i:04d}.off').write_text(OFF)
    options = ['--source', 'pyg', '--classes', '10', '--root',
               str(tmp_path / 'data'), '--train', '20', '--test', '10']
    found = run(tmp_path / 'run', *options)
    assert 0 <= found['test_accuracy']['z/SO(3)'] <= 100
    args = modelnet40.parse(options)
    train, test, classes = modelnet40.load(args)
    assert classes == names and (len(train), len(test)) == (20, 10)
    # Points are drawn anew, on the faces.
    a, b = train[0].pos, train[0].pos
    assert a.shape == (args.points, 3) and not torch.equal(a, b)
    capsys.readouterr()
    run(tmp_path / 'few', *options, '--train', '5', '--batch-size', '4')
    said = capsys.readouterr().out
    assert 'no training clouds of' in said and 'not learned' in said


def test_bad_options(tmp_path):
    files = [write(tmp_path / f'{name}.npz') for name in ('train', 'test')]
    with pytest.raises(ValueError, match="'--train' to be at most 30"):
        run(tmp_path, '--npz', *files)
    with pytest.raises(ValueError, match="'name'"):
        run(tmp_path, '--group', 'SE(3)')
    with pytest.raises(SystemExit):
        run(tmp_path, '--kernel', 'gaussian')


def compare(out, *options):
    command = [sys.executable, '-m', 'benchmarks.papers.groups', '--out',
               str(out), '--parameters', '2500', '--smoke', '--device', 'cpu',
               '--threads', '1', *options]
    done = subprocess.run(command, check=True, capture_output=True,
                          timeout=400, text=True, cwd=ROOT)
    return json.loads((out / 'groups.json').read_text()), done.stdout


def test_comparison_of_groups(tmp_path):
    table, said = compare(tmp_path, '--groups', 'M', 'SO(2)', '--seeds', '0')
    assert set(table) == {'M', 'SO(2)'} and '+-' not in said
    for entry in table.values():
        assert set(entry) == {'implicit', 'harmonic'}
        for found in entry.values():
            assert found['seeds'] == [0] and found['z/z']['std'] is None
    assert (tmp_path / 'groups.png').stat().st_size > 0
    kept = tmp_path / 'M_implicit_0' / 'results.json'
    before = kept.stat().st_mtime_ns
    table, said = compare(tmp_path, '--groups', 'M', '--kernels', 'implicit',
                          '--seeds', '0', '1')
    assert kept.stat().st_mtime_ns == before and '+-' in said
    found = table['M']['implicit']['z/z']
    assert len(found['values']) == 2 and found['std'] is not None


def test_the_protocol_that_is_compared():
    for trained, main in (('z', 'z/z'), ('SO(3)', 'SO(3)/SO(3)'),
                          ('none', 'none/z')):
        tests = [f'{trained}/z', f'{trained}/SO(3)']
        assert groups.main_protocol(['parameters', *tests]) == main


def test_from_pointnet_to_steerable():
    net = pointnet2.SteerablePointNet2(4).double().eval()
    pos, batch = torch.rand(99, 3).double(), torch.arange(99) // 50
    logits = []
    for place in (pos, pos + 1):
        torch.manual_seed(0)  # of the points that sampling starts from
        with torch.no_grad():
            logits.append(net(place, batch))
    change = logits[1] - logits[0]
    assert change.abs().max() < 1e-10
    found = pointnet2.main(['--epochs', '3', '--train', '200', '--test',
                            '100', '--points', '96'])
    assert set(found) == {'pointnet', 'steerable'}
    upright, turned = found['steerable']
    assert upright > 0.3 and abs(upright - turned) < 0.2
