"""Runs: options that do not change, files that run nothing, one
process at a time.
"""
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from fuzz_checkpoints import fuzz
from kills import main as kill
from resume import ROOT, killed

pytest.importorskip('lightning')
from benchmarks.papers import checkpoints, modelnet40, qm9, runs  # noqa: E402
from benchmarks.report import load_json, save_json, whole_file  # noqa: E402

QUIET = ['--smoke', '--quiet', '--device', 'cpu']
PAPERS = ROOT / 'benchmarks' / 'papers'

# lightning, with which we do not share a release cycle
pytestmark = pytest.mark.filterwarnings('ignore')


def run(out, *options):
    return qm9.main([*QUIET, '--out', str(out), *options])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run that has ended. Tests leave it as it is."""
    out = tmp_path_factory.mktemp('trained')
    return out, run(out)


def copy(trained, tmp_path):
    for path in trained[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


# Options #####################################################################


@pytest.mark.parametrize('options, said', [
    (['--graph', 'radius'], ['--graph: bonds before, radius now']),
    (['--train', '80', '--lr', '0.1'], ['--train: 64 before, 80 now',
                                        '--lr: 0.001 before, 0.1 now']),
    (['--epochs', '2'], ['--epochs: 1 before, 2 now']),
    (['--match', '5000'], ['--match: None before, 5000 now']),
    (['--bf16'], ['--bf16: False before, True now']),
], ids=str)
def test_other_options_are_refused(trained, options, said):
    out = trained[0]
    before = {p: p.read_bytes() for p in out.iterdir() if p.is_file()}
    with pytest.raises(ValueError, match='--fresh') as error:
        run(out, *options)
    for line in said:
        assert line in str(error.value)
    assert str(error.value).count(' before, ') == len(said)
    assert all(p.read_bytes() == data for p, data in before.items()
               if p.name != '.lock')


def test_other_number_of_processes(trained, monkeypatch):
    """Each has batches of its own."""
    args = qm9.parse([*QUIET, '--out', str(trained[0])])
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='processes: 1 before, 2 now'):
        with runs.run_folder(args, 'qm9'):
            pass
    monkeypatch.undo()
    with pytest.raises(ValueError, match='torchrun --nproc-per-node 2'):
        run(trained[0], '--devices', '2')


def test_options_that_change_nothing(trained, tmp_path):
    out = copy(trained, tmp_path)
    assert run(out, '--threads', '1', '--devices', '1') == trained[1]


def test_fresh_forgets(trained, tmp_path):
    out = copy(trained, tmp_path)
    found = run(out, '--fresh', '--lr', '0.01')
    assert found['test_mae'] != trained[1]['test_mae']
    assert run(out, '--lr', '0.01') == found
    (out / 'results.json').unlink()
    assert run(out, '--lr', '0.01') == found  # reported again


def test_nothing_trained_yet(tmp_path):
    """Options may change while there is nothing to go on with."""
    with pytest.raises(FileNotFoundError, match=r'nothing\.npz'):
        run(tmp_path, '--npz', 'nothing.npz')
    assert run(tmp_path)['test_mae'] > 0


@pytest.mark.parametrize('change, match', [
    (lambda path: path.unlink(), "'options.json' in"),
    (lambda path: path.write_text('{"--lr": '), 'options.json'),
    (lambda path: path.write_text('[1]'), 'options.json'),
    (lambda path: path.write_bytes(b'\xff\xfe\x00'), 'options.json'),
    (lambda path: path.write_text(100000 * '['), 'options.json'),
    (lambda path: path.write_text(path.read_text().replace(
        '"pyg_steerable": "', '"pyg_steerable": "9')),
     'pyg_steerable: 9.* before'),
], ids=['missing', 'truncated', 'list', 'bytes', 'deep', 'version'])
def test_stored_options(trained, tmp_path, change, match):
    out = copy(trained, tmp_path)
    change(out / 'options.json')
    with pytest.raises(ValueError, match=match) as error:
        run(out)
    assert '--fresh' in str(error.value)
    assert run(out, '--fresh') == trained[1]


def test_other_data(tmp_path):
    """Another path, or another content at the same path."""
    rng, files = np.random.default_rng(0), []
    for name in ('train', 'test', 'other'):
        files.append(str(tmp_path / f'{name}.npz'))
        np.savez(files[-1], label=np.arange(20) % 2, scale=np.float32(0.01),
                 points=rng.integers(-99, 99, (20, 80, 3)).astype(np.int16),
                 classes=np.array(['a', 'b']))
    options = [*QUIET, '--out', str(tmp_path / 'run'), '--train', '20',
               '--test', '10', '--batch-size', '4', '--npz']
    found = modelnet40.main([*options, *files[:2]])
    assert modelnet40.main([*options, *files[:2]]) == found
    with pytest.raises(ValueError, match=r'other\.npz'):
        modelnet40.main([*options, files[2], files[1]])
    (tmp_path / 'train.npz').write_bytes(
        (tmp_path / 'other.npz').read_bytes())
    with pytest.raises(ValueError, match='content of --npz: ') as error:
        modelnet40.main([*options, *files[:2]])
    assert str(error.value).count(' before, ') == 1


def test_fingerprint(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'x.pdb').write_text('1')
    before = runs.fingerprint(tmp_path)
    assert before == runs.fingerprint(tmp_path)
    assert runs.fingerprint(tmp_path / 'none') is None
    (tmp_path / 'voxels').mkdir()
    (tmp_path / 'voxels' / 'x.npz').write_text('1')  # made by shrec17.py
    assert runs.fingerprint(tmp_path) == before
    (tmp_path / 'a' / 'y.pdb').write_text('1')
    assert runs.fingerprint(tmp_path) != before


def test_every_script_keeps_its_options():
    """Whatever trains holds its folder while it does."""
    for path in PAPERS.glob('*.py'):
        text = path.read_text()
        if 'add_training_options(parser)' in text:
            assert 'with run_folder(args, __file__, argv):' in text, path


def test_comparisons_do_not_take_other_runs(trained, tmp_path):
    out, found = trained
    options = ['--smoke', '--device', 'cpu']
    assert runs.run_script('qm9', out, options) == found
    with pytest.raises(ValueError, match='--lr: 0.001 before, 0.1 now'):
        runs.run_script('qm9', out, [*options, '--lr', '0.1'])
    bad = ['--smoke', '--train', '1000000']
    with pytest.raises(RuntimeError, match='Expected at most'):
        runs.run_script('qm9', tmp_path, bad)


def test_one_process_at_a_time(trained, tmp_path):
    out = copy(trained, tmp_path)
    with runs.run_folder(qm9.parse([*QUIET, '--out', str(out)]), 'qm9'):
        with pytest.raises(RuntimeError, match=f'process {os.getpid()}'):
            run(out)
    assert run(out) == trained[1]


# Files #######################################################################


class Bomb:
    """Writes a file when it is loaded."""
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w')", ))


class Greedy:
    """Takes a terabyte when it is loaded."""
    def __reduce__(self):
        return (bytearray, (10**12, ))


@pytest.mark.parametrize('name', ['last.ckpt', 'best.ckpt'])
@pytest.mark.parametrize('kind', ['pickle', 'inside', 'protocol 4', 'memory',
                                  'compressed'])
def test_hostile_checkpoints(trained, tmp_path, name, kind):
    out, mark = copy(trained, tmp_path), tmp_path / 'was_here'
    path = out / name
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(Bomb(mark)))
    elif kind == 'compressed':
        state = {**torch.load(path), 'zeros': torch.zeros(10**7)}
        torch.save(state, path)
        with zipfile.ZipFile(path) as archive:
            files = {f: archive.read(f) for f in archive.namelist()}
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for file, data in files.items():
                archive.writestr(file, data)
    else:
        state = torch.load(path)
        state['state_dict'] = Greedy() if kind == 'memory' else Bomb(mark)
        torch.save(state, path, pickle_protocol=4 if '4' in kind else 2)
    with pytest.raises(ValueError, match=f'{name}.*--fresh'):
        run(out)
    assert not mark.exists()
    assert run(out, '--fresh') == trained[1]


@pytest.mark.parametrize('change, match', [
    (lambda s: s['state_dict'].popitem(), 'state_dict has other names'),
    (lambda s: s['state_dict'].update(std=torch.ones(2)), 'std is'),
    (lambda s: s['state_dict'].update(std=1.), 'std is a float'),
    (lambda s: s.update(epoch=7), 'log'),
    (lambda s: s.pop('optimizer_states'), 'optimizer_states'),
    (lambda s: s.update(lr_schedulers=[]), 'lr_schedulers'),
    (lambda s: s.update(loops=3), 'int'),
    (lambda s: s['callbacks'].clear(), 'LastAndBest'),
    (lambda s: s['optimizer_states'][0]['state'][0].update(
        exp_avg=torch.zeros(1).expand(10**12)), 'exp_avg is'),
], ids=lambda v: v if isinstance(v, str) else None)
def test_other_checkpoints(trained, tmp_path, change, match):
    out = copy(trained, tmp_path)
    state = torch.load(out / 'last.ckpt')
    change(state)
    torch.save(state, out / 'last.ckpt')
    with pytest.raises(ValueError, match=match) as error:
        run(out)
    assert f"'{out / 'last.ckpt'}'" in str(error.value)


def test_best_belongs_to_last(trained, tmp_path):
    out = copy(trained, tmp_path)
    state = torch.load(out / 'best.ckpt')
    torch.save({**state, 'epoch': 3}, out / 'best.ckpt')
    with pytest.raises(ValueError, match=r'best.ckpt.*it is of epoch 3'):
        run(out)
    (out / 'best.ckpt').unlink()
    with pytest.raises(ValueError, match=r'best.ckpt'):
        run(out)


def test_damaged_checkpoints(tmp_path):
    ends = fuzz(tmp_path, 200)
    assert sum(n for end, n in ends.items() if 'refused' in end) > 100


def test_whole_files(tmp_path):
    path = tmp_path / 'a.json'
    save_json(path, {'a': 1})
    with pytest.raises(KeyError):
        with whole_file(path) as part:
            part.write_text('{')
            raise KeyError
    assert load_json(path) == {'a': 1}
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']


# Kills #######################################################################


def test_random_kills():
    assert kill(['--kills', '3', '--epochs', '3'])['kills'] == 3


def test_killed_while_it_starts_again(trained, tmp_path):
    """Nothing old is left beside something new."""
    out = copy(trained, tmp_path)
    argv = [*QUIET, '--out', str(out), '--lr', '0.01']
    assert killed(qm9.main, [*argv, '--fresh'], 'options.json')
    assert not any((out / name).exists() for name in runs.FILES)
    assert qm9.main(argv)['test_mae'] != trained[1]['test_mae']


@pytest.mark.parametrize('script, inside', [
    ('qm9', '.'), ('groups', 'M_harmonic_0')])
def test_ctrl_c(tmp_path, script, inside):
    """Also of what runs others, where they must not go on alone."""
    command = [sys.executable, '-m', runs.module_of(script), '--device', 'cpu',
               '--threads', '1', '--epochs', '1000', '--out', str(tmp_path),
               '--fresh']
    command += (['--quiet'] if script == 'qm9' else
                ['--smoke', '--groups', 'M', '--seeds', '0'])
    # Where tests run in the background, Ctrl-C is ignored, also by children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True,
                               start_new_session=True, cwd=ROOT)
    signal.signal(signal.SIGINT, before)
    try:
        limit = time.monotonic() + 120
        while not (tmp_path / inside / 'last.ckpt').exists():
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=200)
    finally:
        if process.poll() is None:  # with what it has started
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert 'to continue, run again:' in said and 'Traceback' not in complained
    again = said.strip().splitlines()[-1].split()
    assert again[1:3] == ['-m', runs.module_of(script)]
    assert '--fresh' not in again
    args = (qm9 if script == 'qm9' else modelnet40).parse(
        ['--out', str(tmp_path / inside)])
    with runs._alone(args.out):  # nobody is there
        pass
    assert str(tmp_path) in again and '1000' in again


# Time #######################################################################


def test_time_left():
    assert [runs.clock(s) for s in (0.4, 61, 36000)] == [
        '0:00:00', '0:01:01', '10:00:00']
    done = list(runs.run_all([(1, 2), (3, 4)], lambda a, b: a + b))
    assert done == [((1, 2), 3), ((3, 4), 7)]


def test_names_that_are_loaded():
    """No more than a checkpoint needs."""
    assert all(not name.startswith('builtins')
               for name in checkpoints.NAMES)
