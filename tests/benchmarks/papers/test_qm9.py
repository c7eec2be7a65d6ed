"""Molecules: training, exact resume, damaged files, two processes."""
import json
import os
import subprocess
import sys

import pytest
import torch
from resume import ROOT, assert_resumes

pytest.importorskip('lightning')
from benchmarks.papers import qm9  # noqa: E402

QUIET = ['--smoke', '--quiet', '--device', 'cpu']

# lightning, with which we do not share a release cycle
pytestmark = pytest.mark.filterwarnings('ignore')


def run(out, *options):
    return qm9.main([*QUIET, '--out', str(out), *options])


@pytest.mark.parametrize('options', [
    ['--target', 'mu', '--condition', 'none'],
    ['--target', 'U0', '--condition', 'bonds', '--graph', 'radius'],
    ['--target', 'gap', '--kernel', 'harmonic', '--group', 'SO(3)'],
    ['--activation', 'quotient', '--match', '9000'],
    ['--bf16'],
], ids=' '.join)
def test_options(tmp_path, options):
    found = run(tmp_path, *options)
    assert found['test_mae'] > 0
    assert found['mean_predictor_mae'] > 0
    exact = 'quotient' not in options and '--bf16' not in options
    assert not exact or found['invariance_error'] < 1e-4
    for name in ('learning_curve.png', 'predictions.png', 'metrics.csv',
                 'results.json', 'last.ckpt', 'best.ckpt'):
        assert (tmp_path / name).stat().st_size > 0
    if '--match' in options:
        assert abs(found['parameters'] / 9000 - 1) < 0.15


def test_learns(tmp_path):
    found = run(tmp_path, '--target', 'U0', '--epochs', '4', '--train',
                '600', '--lr', '5e-3', '--channels', '8')
    assert found['test_mae'] < 0.5 * found['mean_predictor_mae']


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    assert_resumes(tmp_path, qm9.main,
                   [*QUIET, '--epochs', '4', '--threads', '1'])


@pytest.mark.parametrize('damage', ['truncated', 'text', 'other'])
def test_damaged_checkpoint(tmp_path, damage):
    run(tmp_path)
    path = tmp_path / 'last.ckpt'
    if damage == 'truncated':
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == 'text':
        path.write_text('not a checkpoint')
    else:
        torch.save({'weights': torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r'last.ckpt.*--fresh'):
        run(tmp_path)
    assert run(tmp_path, '--fresh')['test_mae'] > 0


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match='at most'):
        run(tmp_path, '--train', '100000')
    with pytest.raises(SystemExit):
        run(tmp_path, '--kernel', 'harmonic', '--condition', 'bonds')
    with pytest.raises(SystemExit):
        run(tmp_path, '--encoder', 'ogb', '--graph', 'radius')
    with pytest.raises(ValueError, match="'r'"):
        run(tmp_path, '--graph', 'radius', '--cutoff', '-1')
    with pytest.raises(FileNotFoundError, match='nothing.npz'):
        run(tmp_path, '--npz', 'nothing.npz')


def test_two_processes(tmp_path):
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone',
         '--nproc-per-node', '2', '-m', 'benchmarks.papers.qm9', *QUIET,
         '--out', str(tmp_path)], check=True, cwd=ROOT, env=environment,
        timeout=240, capture_output=True, text=True)
    assert done.stdout.count('trained by 2 process(es)') == 1
    found = json.loads((tmp_path / 'results.json').read_text())
    assert found['test_mae'] > 0


def test_ablation(tmp_path):
    command = [sys.executable, '-m', 'benchmarks.papers.qm9_ablation', '--out',
               str(tmp_path), '--seeds', '0', '--parameters', '5000',
               '--smoke', '--device', 'cpu']
    subprocess.run(command, check=True, capture_output=True, timeout=400,
                   cwd=ROOT)
    table = json.loads((tmp_path / 'ablation.json').read_text())
    assert len(table) == 4
    assert (tmp_path / 'ablation.png').stat().st_size > 0


def test_ogb_encoders(tmp_path):
    pytest.importorskip('ogb')
    assert run(tmp_path, '--encoder', 'ogb')['test_mae'] > 0
