"""Voxels: all protocols run, resume exactly and refuse bad input."""
import json

import numpy as np
import pytest
import torch
from resume import assert_resumes

pytest.importorskip('matplotlib')
pytest.importorskip('lightning')
from benchmarks.papers import (  # noqa: E402
    amino_acids,
    cath,
    classification,
    lattice_equivariance,
    modelnet10_voxels,
    shrec17,
    tetris_voxels,
)
from pyg_steerable.datasets import VoxelData, load_voxels  # noqa: E402

QUIET = ['--smoke', '--quiet', '--device', 'cpu']

# lightning, with which we do not share a release cycle
pytestmark = pytest.mark.filterwarnings('ignore')


def run(example, out, *options):
    found = example.main([*QUIET, '--out', str(out), *options])
    assert all(0 <= a <= 100 for a in found['test_accuracy'].values())
    for name in ('learning_curve.png', 'confusion.png', 'metrics.csv',
                 'last.ckpt', 'best.ckpt'):
        assert (out / name).stat().st_size > 0
    assert json.loads((out / 'results.json').read_text()) == found
    return found


def test_low_pass_helps(tmp_path):
    table = lattice_equivariance.main([
        '--size', '17', '--widths', '1.5', '--rotations', '2', '--inputs',
        '1', '--out', str(tmp_path)])
    assert 0 < table['low-pass'][0] < 0.6 * table['plain'][0]
    assert (tmp_path / 'equivariance.png').stat().st_size > 0


# Classification ##############################################################


def test_confusion():
    scores = torch.tensor([[1., 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]])
    matrix = classification.confusion(scores, torch.tensor([0, 0, 1, 2]))
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert classification.accuracy(matrix) == 75


def test_predictions_are_in_order():
    class Sum(torch.nn.Module):
        def forward(self, voxels):
            return voxels.sum((2, 3, 4)).repeat(1, 2)

    args = tetris_voxels.parse(['--smoke'])
    data = tetris_voxels.load(args, 'test')
    module = classification.Classification(args, Sum())
    scores, label = classification.predict(module, data, 3)
    assert torch.equal(label, data.label) and scores.shape == (16, 2)
    assert torch.allclose(scores[:, 0], data.voxels.sum((1, 2, 3, 4)))


# Tetris ######################################################################


@pytest.mark.parametrize('options', [
    ['--no-smooth', '--no-norm'],
    ['--net', 'cnn', '--orientation', 'fixed'],
], ids=' '.join)
def test_tetris(tmp_path, options):
    found = run(tetris_voxels, tmp_path, *options)
    assert found['smooth'] == ('--no-smooth' not in options)
    assert found['net'] == ('cnn' if 'cnn' in options else 'steerable')
    again = run(tetris_voxels, tmp_path, *options)  # trained already
    assert again == found


def test_tetris_defaults_are_the_papers():
    args = tetris_voxels.parse([])
    sizes = {net: classification.count_parameters(
        tetris_voxels.build_network(tetris_voxels.parse(['--net', net])))
        for net in tetris_voxels.NETS}
    assert sizes == {'steerable': 41198, 'cnn': 6221832}
    assert (args.epochs, args.lr, args.batch_size) == (250, 0.1, 8)
    parameter = torch.nn.Linear(1, 1)
    (optimizer, ), (schedule, ) = classification.held_then_decayed(parameter,
                                                                   args)
    rates = []
    for _ in range(250):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    assert rates[:101] == 101 * [0.1]
    assert rates[249] == pytest.approx(0.1 * 0.98**149)


def test_tetris_rotations_differ():
    """Between parts and seeds."""
    grids = [tetris_voxels.load(tetris_voxels.parse(
        ['--smoke', '--seed', str(seed)]), part).voxels[:8]
        for seed in (0, 1) for part in ('train', 'valid', 'test')]
    for i, a in enumerate(grids):
        assert all(not torch.allclose(a, b) for b in grids[:i])


def test_tetris_table(tmp_path, monkeypatch):
    # In this process, which is faster.
    monkeypatch.setattr(
        classification, 'run_script', lambda script, folder, options:
        tetris_voxels.main(['--out', str(folder), *options]))
    table = tetris_voxels.main([*QUIET, '--all', '--out', str(tmp_path),
                                '--seeds', '0', '1', '--epochs', '1'])
    assert list(table) == list(tetris_voxels.VARIANTS)
    saved = json.loads((tmp_path / 'comparison.json').read_text())
    assert saved == table
    for entry in table.values():
        assert entry['seeds'] == [0, 1]
        (found, ) = entry['test_accuracy'].values()
        assert len(found['values']) == 2
    found = json.loads((tmp_path / 'cnn_no-low-pass_0' /
                        'results.json').read_text())
    assert (found['net'], found['smooth']) == ('cnn', False)
    assert (tmp_path / 'comparison.png').stat().st_size > 0


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    assert_resumes(tmp_path, tetris_voxels.main, [*QUIET, '--epochs', '4'])


# ModelNet-10 #################################################################


def write(path, n=40, size=12, **changes):
    rng = np.random.default_rng(0)
    bits = np.packbits(rng.integers(0, 2, (n, size, size, size)).astype(
        np.uint8), axis=-1)
    label = (np.arange(n) % 10).astype(np.uint8)
    values = dict(train=bits, train_label=label, test=bits[:20],
                  test_label=label[:20]) | changes
    np.savez(path, **{k: v for k, v in values.items() if v is not None})
    return str(path)


def test_modelnet10(tmp_path):
    found = run(modelnet10_voxels, tmp_path, '--net', 'steerable')
    assert list(found['test_accuracy']) == ['aligned', 'cube', 'z', 'SO(3)']
    assert found['data'] == 'made up'


def test_modelnet10_file(tmp_path):
    path = write(tmp_path / 'v.npz', size=24)
    found = run(modelnet10_voxels, tmp_path / 'run', '--npz', path, '--train',
                '40', '--test', '10', '--net', 'cnn', '--train-rotation', 'z')
    assert found['data'] == path and found['test'] == 10
    with pytest.raises(ValueError, match="'--train' to be at most 40"):
        run(modelnet10_voxels, tmp_path, '--npz', path)
    with pytest.raises(ValueError, match="no .'test_label'"):
        run(modelnet10_voxels, tmp_path, '--npz',
            write(tmp_path / 'v.npz', test_label=None))


@pytest.mark.parametrize('stride, size', [(1, 20), (2, 21), (4, 21), (8, 25)])
def test_strides_keep_the_centre(stride, size):
    data = VoxelData(voxels=torch.ones(1, 1, 20, 20, 20), y=torch.zeros(1))
    grid = modelnet10_voxels.Rotate('1', stride)(data).voxels
    assert grid.shape == (1, 1, size, size, size)
    assert grid.sum() == 20**3


def test_modelnet10_rotations(tmp_path):
    """Where the test turns by symmetries of the cube, nothing is lost."""
    data = load_voxels(write(tmp_path / 'v.npz'))
    args = modelnet10_voxels.parse(['--smoke'])
    for name, group in modelnet10_voxels.ROTATIONS.items():
        turned = classification.items(
            data, modelnet10_voxels.Rotate(group, stride=1), args)
        assert torch.equal(turned[3].voxels, turned[3].voxels)
        same = [torch.equal(turned[i].voxels, data[i].voxels)
                for i in range(10)]
        mass = torch.tensor([float(turned[i].voxels.sum() -
                                   data[i].voxels.sum()) for i in range(10)])
        assert all(same) == (name == 'aligned') and (name == 'aligned' or
                                                     not all(same))
        assert bool((mass == 0).all()) == (name in ('aligned', 'cube'))


# Proteins ####################################################################


@pytest.mark.parametrize('net', cath.NETS)
def test_cath(tmp_path, capsys, net):
    found = run(cath, tmp_path, '--net', net, '--reduce', '2')
    assert set(found['test_accuracy']) == {'test', 'valid'}
    assert 'not proteins' in capsys.readouterr().out
    again = run(cath, tmp_path / 'file', '--npz',
                str(tmp_path / 'made_up.npz'), '--net', net, '--epochs', '1')
    assert '(paper, test: ' in capsys.readouterr().out
    assert again['data'].endswith('made_up.npz')


def test_cath_recipe():
    args = cath.parse(['--net', 'cnn', '--reduce', '4'])
    assert (args.epochs, args.hold, args.decay) == (400, 160, 0.985)
    assert (args.lr, args.l1, args.dropout) == (5e-4, 1e-6, 0.0125)
    args = cath.parse(['--epochs', '7'])
    assert (args.epochs, args.lr, args.weight_decay) == (7, 0.1, 1e-8)
    net = cath.build_network(args, 10, 1)
    assert classification.count_parameters(net) == 143560


def test_amino_acids(tmp_path, capsys):
    pytest.importorskip('gemmi')
    found = run(amino_acids, tmp_path)
    assert sum(found['residues']) == 96 and not found['skipped']
    assert 'not proteins' in capsys.readouterr().out
    (tmp_path / 'made_up' / 'made_up_0.pdb').write_text('some words')
    folder = str(tmp_path / 'made_up')
    with pytest.raises(ValueError, match='made_up_0.pdb'):
        run(amino_acids, tmp_path / 'bad', '--root', folder)
    found = run(amino_acids, tmp_path / 'run', '--root', folder,
                '--on-error', 'skip', '--epochs', '1')
    assert found['skipped'] == {'files': 1} and found['data'] == folder
    with pytest.raises(FileNotFoundError, match="'--root'"):
        run(amino_acids, tmp_path / 'bad', '--root', str(tmp_path / 'run'))


# SHREC17 #####################################################################


def test_shrec17(tmp_path, capsys):
    pytest.importorskip('trimesh')
    found = run(shrec17, tmp_path)
    lists = tmp_path / 'lists' / 'test_perturbed'
    names = sorted(p.name for p in lists.iterdir())
    assert len(names) == 15 and names[0] == 'test0000'
    first = (lists / names[0]).read_text().split('\n')[0].split()
    assert first[0] in names and first[1] == '0'
    assert 0 < found['micro_map'] <= 1 and 0 < found['macro_map'] <= 1
    assert 'not ShapeNet' in capsys.readouterr().out
    root = tmp_path / 'made_up'
    files = list((root / 'voxels').rglob('*.npz'))
    assert len(files) == 60
    again = run(shrec17, tmp_path / 'run', '--root', str(root), '--epochs',
                '1')
    assert again['data'] == str(root)
    assert '(paper, perturbed: 1.110)' in capsys.readouterr().out
    (root / 'train_perturbed' / 'train0003.obj').unlink()
    with pytest.raises(FileNotFoundError, match='train0003'):
        run(shrec17, tmp_path / 'other', '--root', str(root))


def test_balanced_sampler():
    label = torch.tensor(20 * [0] + 4 * [2] + 6 * [3])
    sampler = shrec17.BalancedSampler(range(30), 0, label)
    drawn = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
        assert len(drawn[-1]) == len(sampler) == 12
        assert label[drawn[-1]].bincount().tolist() == [4, 0, 4, 4]
        assert list(sampler) == drawn[-1]
    assert drawn[0] != drawn[1]


# Bad options #################################################################


@pytest.mark.parametrize('example, options', [
    (tetris_voxels, ['--net', 'capsule']),
    (tetris_voxels, ['--orientation', 'upright']),
    (modelnet10_voxels, ['--train-rotation', 'x']),
    (cath, ['--reduce', '3']),
    (amino_acids, ['--channels', '1', '2']),
    (shrec17, ['--milestones', 'a']),
], ids=str)
def test_bad_options(tmp_path, example, options):
    with pytest.raises(SystemExit):
        run(example, tmp_path, *options)


@pytest.mark.parametrize('example, options, match', [
    (tetris_voxels, ['--strides', '1', '2'], "'strides' to hold 4"),
    (tetris_voxels, ['--cell', '0'], "'cell'"),
    (modelnet10_voxels, ['--net', 'cnn', '--strides', '1'], "'--channels'"),
    (modelnet10_voxels, ['--group', 'SE(3)'], "'name'"),
    (cath, ['--size', '4'], 'kernel_size'),
], ids=str)
def test_bad_values(tmp_path, example, options, match):
    with pytest.raises(ValueError, match=match):
        run(example, tmp_path, *options)


@pytest.mark.parametrize('example, option', [
    (modelnet10_voxels, '--npz'), (cath, '--npz'), (amino_acids, '--root'),
    (shrec17, '--root')], ids=str)
def test_missing_data(tmp_path, example, option):
    with pytest.raises(FileNotFoundError, match='nothing'):
        run(example, tmp_path, option, str(tmp_path / 'nothing'))
