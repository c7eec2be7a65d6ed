"""The example of energies and forces, on a made-up molecule."""
import runpy

import numpy as np
import pytest
import torch
from resume import ROOT, assert_same_files, ctrl_c, killed
from torch_geometric.data import Data

from pyg_steerable.datasets.archive import save_npz

for name in ('matplotlib', 'tqdm'):
    pytest.importorskip(name)
from examples import rmd17  # noqa: E402

#: Of three springs that make up a molecule.
LENGTH, STIFFNESS = np.array([1., 1., 1.6]), 300.


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    """Two files of a triatomic molecule of springs: energies and forces are
    exact, in kcal/mol and Angstrom.
    """
    folder, rng = tmp_path_factory.mktemp('frames'), np.random.default_rng(0)
    paths = []
    for name, num in ('train', 60), ('test', 10):
        pos = np.array([[0., 0., 0.], [1., 0., 0.], [-0.3, 0.95, 0.]])
        pos = pos + 0.08 * rng.normal(size=(num, 3, 3))
        energy, forces = np.full(num, -48000.), np.zeros_like(pos)
        for (i, j), length in zip([(0, 1), (0, 2), (1, 2)], LENGTH):
            vector = pos[:, j] - pos[:, i]
            distance = np.linalg.norm(vector, axis=1, keepdims=True)
            energy += STIFFNESS / 2 * (distance[:, 0] - length)**2
            pull = STIFFNESS * (distance - length) * vector / distance
            forces[:, i] += pull
            forces[:, j] -= pull
        paths.append(str(folder / f'{name}.npz'))
        save_npz(paths[-1], dict(nuclear_charges=np.array([8, 1, 1]),
                                 coords=pos, energies=energy, forces=forces))
    return paths


@pytest.fixture(scope='module')
def options(frames):
    return ['--npz', *frames, '--train', '50', '--valid', '10', '--epochs',
            '5', '--channels', '3', '--blocks', '2', '--ema', '0.8',
            '--device', 'cpu', '--nve', '0.01']


@pytest.fixture(scope='module')
def whole(tmp_path_factory, options):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp('rmd17')
    rmd17.main([*options, '--out', str(folder)])
    return folder


def test_learns(whole, options, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert {path.name for path in before} == {'last.pt', 'rmd17.png',
                                              'results.json'}
    monkeypatch.setattr(rmd17, 'load', None)  # nothing is done again
    found = rmd17.main([*options, '--out', str(whole)])
    assert before == {path: path.stat().st_mtime_ns
                      for path in whole.iterdir()}
    assert found['test_force_mae'] < 0.5 * found['mean_force']
    assert len(found['log']) == 5 and found['log'][-1] < found['log'][0]
    assert len(found['nve']) == 1
    assert f"{found['test_force_mae']:.4g} meV/A" in capsys.readouterr().out


def test_killed_and_resumed_equals_uninterrupted(tmp_path, whole, options):
    argv = [*options, '--out', str(tmp_path)]
    for name, count in ('last.pt', 3), ('rmd17.png', 1), ('results.json', 1):
        assert killed(rmd17.main, argv, name, count), name
        assert not (tmp_path / 'results.json').exists()
    rmd17.main(argv)
    assert_same_files(whole, tmp_path)


def test_ctrl_c_inside_an_epoch(tmp_path, whole, options, monkeypatch):
    argv = [*options, '--out', str(tmp_path)]
    with ctrl_c(10 + 3), pytest.raises(KeyboardInterrupt):
        rmd17.main(argv)
    monkeypatch.setattr('sys.argv', ['rmd17.py', *argv])
    with ctrl_c(3), pytest.raises(SystemExit, match='without --fresh'):
        runpy.run_path(str(ROOT / 'examples' / 'rmd17.py'),
                       run_name='__main__')
    rmd17.main(argv)
    assert_same_files(whole, tmp_path)


def test_other_options_and_a_fresh_start(tmp_path, options):
    argv = [*options, '--epochs', '1', '--nve', '0', '--out', str(tmp_path)]
    first = rmd17.main(argv)
    assert first['nve'] is None
    with pytest.raises(ValueError, match="'--fresh', or choose another"):
        rmd17.main([*argv, '--seed', '1'])
    second = rmd17.main([*argv, '--seed', '1', '--fresh'])
    assert second['test_force_mae'] != first['test_force_mae']
    assert second['options']['seed'] == 1


@pytest.mark.parametrize('option', [('--epochs', '0'), ('--lr', '1e30')])
def test_nothing_learned(tmp_path, options, option):
    with pytest.raises(ValueError, match="'--epochs' or a smaller '--lr'"):
        rmd17.main([*options, '--epochs', '1', *option, '--out',
                    str(tmp_path)])


def test_downloaded_frames_are_split(frames, monkeypatch):
    """Of one trajectory: no frame is used twice."""
    read = rmd17.load_rmd17
    monkeypatch.setattr(rmd17, 'load_rmd17', lambda name: read(frames[0]))
    parts = rmd17.load(rmd17.build_parser().parse_args(
        ['--train', '20', '--valid', '5', '--test', '10']))
    assert [len(part) for part in parts] == [20, 5, 10]
    energies = [float(data.energy) for part in parts for data in part]
    assert len(set(energies)) == 35


class Spring(torch.nn.Module):
    """Two atoms and a spring of length 1."""
    shift = torch.zeros(1)

    def forward(self, z, pos):
        vector = pos[1] - pos[0]
        pull = STIFFNESS * (1 - 1 / vector.norm()) * vector
        energy = STIFFNESS / 2 * (vector.norm() - 1)**2
        return energy, torch.stack([pull, -pull]), None


@pytest.mark.parametrize('step', [0.2, 0.1])
def test_dynamics(step):
    """Velocity Verlet keeps m v^2 / 2 + (1 - (w h)^2 / 4) k x^2 / 2, with
    the frequency w = sqrt(k / m) and the step h, so that the total energy
    swings by (w h)^2 / 4 of itself.
    """
    stretched = torch.tensor([[0., 0., 0.], [1.05, 0., 0.]],
                             dtype=torch.float64)
    data = Data(z=torch.tensor([1, 1]), pos=stretched)
    time, total = rmd17.dynamics(Spring(), data, 0.05, step, kelvin=0.)
    assert len(time) == len(total) == 50 / step and time[1] == step / 1000
    joule, mass = 4184 / 6.02214076e23, 1.008 / 2 * 1.66053907e-27
    square = STIFFNESS * joule / 1e-20 / mass * (step * 1e-15)**2
    expected = STIFFNESS / 2 * 0.05**2 * 4184 / 96.48533212  # in meV
    assert np.isclose(total[0], expected, rtol=1e-6)
    assert np.isclose(np.ptp(total), expected * square / 4, rtol=1e-2)


def test_velocities(options):
    """As warm as asked for: 3/2 kT for each atom but one, as the centre of
    mass rests.
    """
    args = rmd17.build_parser().parse_args(options)
    train_set = rmd17.load(args)[0]
    net = rmd17.build(args, train_set)

    def total(seed, kelvin):
        return rmd17.dynamics(net, train_set[0], 5e-4, kelvin=kelvin,
                              seed=seed)[1][0]

    kinetic = [total(seed, 300.) - total(seed, 0.) for seed in range(50)]
    expected = 1.5 * 2 * rmd17.BOLTZMANN * 300 * rmd17.MEV
    assert abs(np.mean(kinetic) / expected - 1) < 0.25
