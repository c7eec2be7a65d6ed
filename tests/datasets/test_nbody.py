"""The motion of a few bodies."""
import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_steerable import Group
from pyg_steerable.datasets import (
    NBodySystem,
    NBodyTrajectories,
    generate_nbody,
    load_nbody,
    save_nbody,
)
from pyg_steerable.datasets.archive import load_npz, save_npz

SYSTEMS = [NBodySystem(), NBodySystem('charged', stiffness=2.),
           NBodySystem('gravity', stiffness=0.5, core=0.3),
           NBodySystem('springs', strength=0.1)]


def state(system, num=32, size=5):
    """Charges, positions and velocities."""
    g = torch.Generator().manual_seed(0)
    charge, pos, vel = (torch.randn(num, size, *shape, generator=g,
                                    dtype=torch.float64)
                        for shape in ((), (3, ), (3, )))
    charge = charge.sign() if system.law == 'charged' else 0.5 + charge.abs()
    return charge, 2 * pos, vel


def plain_acceleration(system, charge, pos):
    """The formula, one pair after the other."""
    out = np.zeros(pos.shape)
    for i in range(len(pos)):
        for j in range(len(pos)):
            if i != j:
                d = pos[i] - pos[j]
                force = system.strength * charge[i] * charge[j] * d
                if system.law != 'springs':
                    force /= max(np.linalg.norm(d), system.core)**3
                out[i] += force if system.law == 'charged' else -force
        out[i, 2] -= system.stiffness * pos[i, 2]
        if system.law == 'gravity':
            out[i] /= charge[i]
    return out


# Laws ########################################################################


@pytest.mark.parametrize('system', SYSTEMS, ids=str)
def test_forces(system):
    charge, pos, vel = state(system, 6)
    pos[:3] *= 0.02  # within cores
    found = system.acceleration(charge, pos)
    for k in range(6):
        expected = plain_acceleration(system, charge[k].numpy(),
                                      pos[k].numpy())
        assert np.allclose(found[k], expected, 1e-12, 1e-12)
    mass = charge if system.law == 'gravity' else torch.ones_like(charge)
    pos.requires_grad_()
    slope, = torch.autograd.grad(system.energy(charge, pos, vel).sum(), pos)
    assert torch.allclose(-slope, mass[..., None] * found, 1e-10, 1e-10)


@pytest.mark.parametrize('system', SYSTEMS, ids=str)
def test_energy_is_kept_to_second_order(system):
    charge, pos, vel = state(system)
    before = system.energy(charge, pos, vel)
    errors = [float((system.energy(charge, *system.simulate(
        charge, pos, vel, steps, 1. / steps)) - before).abs().median())
        for steps in (250, 500)]
    assert errors[0] < 1e-3 and 3.5 < errors[0] / errors[1] < 4.5


@pytest.mark.parametrize('system', SYSTEMS, ids=str)
def test_motion_runs_back(system):
    charge, pos, vel = state(system)
    later = system.simulate(charge, pos, vel, 100)
    assert (later[0] - pos).abs().max() > 0.1
    for found, start in zip(system.simulate(charge, *later, 100, -1e-3),
                            (pos, vel)):
        assert torch.allclose(found, start, 1e-9, 1e-9)


@pytest.mark.parametrize('system', SYSTEMS, ids=str)
def test_symmetries(system):
    """All of O(3) without the plane, what keeps it with the plane."""
    charge, pos, vel = state(system)
    out = system.simulate(charge, pos, vel, 200)[0]

    def error(R, shift):
        moved = system.simulate(charge, pos @ R.T + shift, vel @ R.T, 200)[0]
        return float((moved - out @ R.T - shift).abs().max())

    for name in ('O(3)', 'SO(2)xM'):
        for R in Group(name).sample(4).double():
            shift = torch.tensor([1., 2., 0.], dtype=torch.float64)
            breaks = bool(system.stiffness) and name == 'O(3)'
            assert (error(R, shift) > 1e-3) == breaks
    assert (error(torch.eye(3, dtype=torch.float64), torch.tensor(
        [0., 0., 1.])) > 1e-3) == bool(system.stiffness)
    order = torch.tensor([3, 1, 4, 0, 2])
    again = system.simulate(charge[:, order], pos[:, order], vel[:, order],
                            200)[0]
    assert torch.allclose(again, out[:, order])


@pytest.mark.parametrize('law', ['charged', 'gravity', 'springs'])
def test_momentum_is_kept(law):
    system = NBodySystem(law)
    charge, pos, vel = state(system)
    after = system.simulate(charge, pos, vel, 300)[1]
    mass = charge if law == 'gravity' else torch.ones_like(charge)
    first, second = ((mass[..., None] * v).sum(1) for v in (vel, after))
    assert torch.allclose(first, second) and not torch.allclose(vel, after)


def test_an_orbit():
    """Two equal masses at a distance of 2 turn about their centre with the
    speed 1/2, in a time of 4 pi.
    """
    charge = torch.ones(1, 2, dtype=torch.float64)
    pos = torch.tensor([[[1., 0, 0], [-1, 0, 0]]], dtype=torch.float64)
    vel = torch.tensor([[[0, .5, 0], [0, -.5, 0]]], dtype=torch.float64)
    steps = 4000
    found, _ = NBodySystem('gravity').simulate(charge, pos, vel, steps,
                                               np.pi / steps)
    assert (found - torch.tensor([[[0, 1., 0], [0, -1, 0]]])).abs().max() \
        < 1e-6


def test_systems_in_parts():
    """More than are simulated together, each as if alone."""
    system = NBodySystem()
    charge, pos, vel = state(system, 1030, 2)
    found = system.simulate(charge, pos, vel, 3)
    for k in (0, 511, 512, 1029):
        alone = system.simulate(*(t[k:k + 1] for t in (charge, pos, vel)), 3)
        for a, b in zip(alone, found):
            assert torch.allclose(a[0], b[k], 1e-13)


# Data sets ###################################################################


def test_generated():
    first, again, other = (generate_nbody(6, seed=seed, start=20, steps=30)
                           for seed in (0, 0, 1))
    assert torch.equal(first.y, again.y) and not torch.equal(first.y, other.y)
    assert len(first) == 6 and first.charge.abs().unique().tolist() == [1.]
    assert len(first.charge.unique()) == 2
    start = generate_nbody(400, start=0, steps=0)
    assert torch.equal(start.pos, start.y)
    assert torch.allclose(start.vel.norm(dim=1), torch.tensor(0.5))
    assert abs(float(start.pos.std()) - 1) < 0.05
    system = NBodySystem('gravity', stiffness=1.)
    heavy = generate_nbody(50, system, 3, start=5, steps=7, dt=1e-2)
    assert 0.5 <= float(heavy.charge.min()) < float(heavy.charge.max()) < 1.5
    charge, pos, vel = (t.double().view(50, 3, -1) for t in
                        (heavy.charge, heavy.pos, heavy.vel))
    charge = charge.squeeze(-1)
    later, _ = system.simulate(charge, pos, vel, 7, 1e-2)
    assert torch.allclose(later.flatten(0, 1).float(), heavy.y, atol=1e-5)


def test_items():
    dataset = generate_nbody(5, num_particles=4, start=1, steps=10)
    for k, data in enumerate(dataset):
        assert data.charge.shape == (4, 1) and data.num_nodes == 4
        assert data.pos.shape == data.vel.shape == data.y.shape == (4, 3)
        assert torch.equal(data.pos, dataset.pos[4 * k:4 * k + 4])
        pairs = {tuple(p) for p in data.edge_index.T.tolist()}
        assert pairs == {(i, j) for i in range(4) for j in range(4)
                         if i != j} and data.num_edges == 12
    batch = next(iter(DataLoader(dataset[3:], 2)))
    assert torch.equal(batch.y, dataset.y[12:])
    assert batch.edge_index.max() == 7 and batch.num_edges == 24
    assert (batch.batch[batch.edge_index[0]]
            == batch.batch[batch.edge_index[1]]).all()
    charge = torch.ones(1, 2)
    pos = torch.zeros(1, 2, 3)
    kept = NBodyTrajectories(charge, pos, pos, pos,
                             lambda data: data.subgraph(torch.tensor([0])))
    charge += 1
    assert kept[0].charge.tolist() == [[1.]] and kept[0].num_edges == 0


def test_files(tmp_path):
    path = str(tmp_path / 'a.npz')
    train, test = (generate_nbody(n, start=2, steps=3) for n in (4, 3))
    save_nbody(path, train=train[1:], test=test)
    for split, data in (('train', train[1:]), ('test', test)):
        found = load_nbody(path, split)
        assert len(found) == 3
        for name in ('charge', 'pos', 'vel', 'y', 'edge_index'):
            assert torch.equal(found[2][name], data[2][name])
    arrays = load_npz(path, ['train_charge', 'train_target', 'test_vel'])
    assert arrays['train_charge'].shape == (3, 5)
    assert arrays['train_target'].shape == arrays['test_vel'].shape == (3, 5,
                                                                        3)
    with pytest.raises(ValueError, match="a.npz: Expected.*no .'valid_char"):
        load_nbody(path, 'valid')
    arrays = load_npz(path, [f'test_{key}' for key in
                             ('charge', 'pos', 'vel', 'target')])
    arrays['test_charge'] = arrays['test_charge'].astype(np.int8)
    save_npz(path, arrays)  # as in files of others
    assert torch.equal(load_nbody(path, 'test').charge, test.charge)
    again = load_nbody(path, 'test', lambda data: data.pos)
    assert torch.equal(again[0], test[0].pos)


# Errors ######################################################################


def arrays(**changes):
    out = {f'train_{key}': np.zeros((4, 5, 3)[:2 if key == 'charge' else 3])
           for key in ('charge', 'pos', 'vel', 'target')}
    return out | {f'train_{key}': value for key, value in changes.items()}


@pytest.mark.parametrize('change, words', [
    (dict(charge=np.zeros((4, 6))), r"'charge' of shape .4, 5"),
    (dict(pos=np.zeros((4, 5))), "'pos' of shape"),
    (dict(vel=np.zeros((4, 5, 2))), "'vel' of shape"),
    (dict(target=np.zeros((3, 5, 3))), "'target' of shape"),
    (dict(target=np.full((4, 5, 3), np.nan)), "'target' to be finite"),
    (dict(vel=np.full((4, 5, 3), 1e9)), r"'vel' in \[-1e\+06"),
    (dict(pos=np.full((4, 5, 3), 'a')), "'train_pos' to hold numbers"),
    (dict(charge=np.zeros((0, 5)), pos=np.zeros((0, 5, 3)), vel=np.zeros(
        (0, 5, 3)), target=np.zeros((0, 5, 3))), "'charge' of one"),
    (dict(charge=np.zeros((4, 0)), pos=np.zeros((4, 0, 3)), vel=np.zeros(
        (4, 0, 3)), target=np.zeros((4, 0, 3))), "'charge' .*1 to 1024"),
])
def test_wrong_files(tmp_path, change, words):
    path = str(tmp_path / 'a.npz')
    save_npz(path, arrays())
    assert len(load_nbody(path)) == 4
    save_npz(path, arrays(**change))
    with pytest.raises(ValueError, match=f'a.npz: Expected {words}'):
        load_nbody(path)


@pytest.mark.parametrize('call, error, words', [
    (lambda: NBodySystem('friction'), ValueError, "'law' to be one of"),
    (lambda: NBodySystem(stiffness=-1), ValueError, "'stiffness'"),
    (lambda: NBodySystem(core=0), ValueError, "'core'"),
    (lambda: generate_nbody(0), ValueError, "'num'"),
    (lambda: generate_nbody(2, 'springs'), TypeError, "'system'"),
    (lambda: generate_nbody(2, seed=-1), ValueError, "'seed'"),
    (lambda: generate_nbody(2**20, num_particles=2**10), ValueError,
     'pairs of particles'),
    (lambda: NBodySystem().simulate(torch.ones(1, 2), torch.ones(1, 3, 3),
                                    torch.ones(1, 3, 3), 1), ValueError,
     "'charge' of shape .1, 3"),
    (lambda: NBodySystem().energy(torch.ones(1, 2), torch.ones(1, 2, 3),
                                  torch.ones(1, 2)), ValueError, "'vel'"),
    (lambda: load_nbody('nowhere.npz'), FileNotFoundError, "'path'"),
    (lambda: load_nbody('nowhere.npz', 'all'), ValueError, "'split'"),
    (lambda: save_nbody('a', train=[1]), ValueError, "end in '.npz'"),
    (lambda: save_nbody('a.npz'), ValueError, 'got none'),
    (lambda: save_nbody('a.npz', train=[1]), TypeError, "'train'"),
    (lambda: save_nbody('a.npz', rest=[1]), ValueError, "'split'"),
])
def test_wrong_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()
