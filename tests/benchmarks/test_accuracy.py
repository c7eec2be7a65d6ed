"""Tiny runs of all networks; peers keep the symmetries they claim."""
import json

import numpy as np
import pytest
import torch
from resume import killed
from torch_geometric.data import Batch, Data

pytest.importorskip('lightning')
from benchmarks import accuracy  # noqa: E402
from benchmarks.peers import NETWORKS, TASKS, Network  # noqa: E402
from benchmarks.peers.descriptor import Descriptor, histogram  # noqa: E402
from benchmarks.peers.egnn import (  # noqa: E402
    EGNNOnMolecules,
    EGNNOnParticles,
)
from benchmarks.peers.painn import PaiNN  # noqa: E402
from pyg_steerable import Group  # noqa: E402
from pyg_steerable.datasets import load_qm9  # noqa: E402
from pyg_steerable.graph import RadiusGraph  # noqa: E402

TINY = ['--epochs', '1', '--batch-size', '8', '--train', '32', '--valid',
        '16', '--rates', '1e-3', '1e-2']


def nbody_file(path):
    """The layout; where the particles go is of no matter here."""
    rng, values = np.random.default_rng(0), {}
    for part, size in (('train', 40), ('valid', 20), ('test', 20)):
        values[f'{part}_charge'] = rng.choice([-1., 1.], (size, 5))
        for key in ('pos', 'vel', 'target'):
            values[f'{part}_{key}'] = rng.normal(size=(size, 5, 3))
    np.savez(path, **values)
    return str(path)


def clouds_file(path, seed):
    points = np.random.default_rng(seed).normal(size=(80, 150, 3))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)  # spheres
    np.savez(path, points=points.astype('float32'),
             label=np.arange(80) % 4, classes=np.array(list('abcd')))
    return str(path)


def options(task, tmp_path):
    """The command line of a task, without --out."""
    files = {'qm9': [], 'nbody': [nbody_file(tmp_path / 'nbody.npz')],
             'modelnet40': [clouds_file(tmp_path / f'{i}.npz', i)
                            for i in range(2)]}[task]
    return [task, *TINY, *(['--npz', *files] if files else [])]


@pytest.mark.parametrize('task', list(TASKS))
def test_all_networks(tmp_path, task, capsys):
    out = tmp_path / 'out'
    table = accuracy.main([*options(task, tmp_path), '--out', str(out),
                           '--seeds', '0', '1', '--test'])
    names = [n for n, cls in NETWORKS.items() if task in cls.tasks]
    assert names and set(table) == set(names)
    assert json.loads((out / 'table.json').read_text()) == table
    assert (out / 'accuracy.png').stat().st_size > 0
    printed = capsys.readouterr().out
    for name, row in table.items():
        runs = [json.loads(path.read_text()) for path in out.glob('*_*.json')]
        runs = [run for run in runs if run['network'] == name]
        assert len(runs) == 3  # two rates, and another seed
        assert len([run for run in runs if 'test' in run]) == 2
        first = {run['rate']: run for run in runs if run['seed'] == 0}
        assert row['valid'] > 0 and row['test'] > 0 and row['seconds'] > 0
        assert row['rate'] == min(first, key=lambda r: first[r]['valid'])
        assert {run['steps'] for run in runs} == {4}
        assert f'| {name} |' in printed


def test_killed_and_started_again(tmp_path):
    """Killed while it writes any of its files, it ends as if it had not
    been; what was done is not done again.
    """
    command = [*options('qm9', tmp_path), '--networks', 'EGNN', 'PaiNN',
               '--test']
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    expected = accuracy.main([*command, '--out', str(whole)])
    for name in ('settings.json', 'EGNN_0.01_0.pt', 'PaiNN_0.001_0.json',
                 'table.json', 'accuracy.png'):
        assert killed(accuracy.main, [*command, '--out', str(part)], name)
    first = part / 'EGNN_0.001_0.json'
    written = first.stat().st_mtime_ns
    found = accuracy.main([*command, '--out', str(part)])
    assert first.stat().st_mtime_ns == written
    for name in expected:
        for key in expected[name]:
            if key != 'seconds':
                assert found[name][key] == expected[name][key], (name, key)


def test_other_settings_and_bad_input(tmp_path):
    command = [*options('qm9', tmp_path), '--networks', 'EGNN', '--out',
               str(tmp_path / 'out')]
    accuracy.main(command)
    with pytest.raises(ValueError, match="'epochs'.*got 2"):
        accuracy.main([*command, '--epochs', '2'])
    other = ['--out', str(tmp_path / 'other')]
    with pytest.raises(ValueError, match='--networks.*PointNet'):
        accuracy.main(['qm9', '--networks', 'PointNet++', *other])
    with pytest.raises(ValueError, match='--train'):
        accuracy.main(['qm9', '--train', '1000000', *other])
    for task in ('nbody', 'modelnet40'):
        with pytest.raises(ValueError, match='--npz'):
            accuracy.main([task, '--out', str(tmp_path / task)])
    with pytest.raises(ValueError, match="'name'"):
        type('Again', (Network, ), {}, name='EGNN', tasks=['qm9'])


def test_another_network_joins(tmp_path):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.value = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return self.value.expand(batch.num_graphs, 1)

    class Mean(Network, name='mean', tasks=['qm9']):
        def build(self, task):
            return Constant()

    try:
        table = accuracy.main([*options('qm9', tmp_path), '--networks', 'mean',
                               '--out', str(tmp_path / 'out')])
    finally:
        del NETWORKS['mean']
    assert Mean.tasks == ['qm9'] and table['mean']['parameters'] == 1


# Symmetries ##################################################################


def molecules():
    batch = Batch.from_data_list([RadiusGraph(3.)(d)
                                  for d in load_qm9('sample')[:6]])
    batch.pos, batch.x = batch.pos.double(), batch.x.double()
    return batch


def moved(batch, R, shift=True):
    out = batch.clone()
    out.pos = batch.pos @ R.T
    if shift:
        out.pos = out.pos + torch.randn(3, dtype=torch.float64)
    return out


@pytest.mark.parametrize('build', [PaiNN, EGNNOnMolecules])
def test_molecules_may_turn(build):
    torch.manual_seed(0)
    net, batch = build().double(), molecules()
    out = net(batch)
    assert out.shape == (6, 1) and out.std() > 1e-4
    for R in Group('O(3)').sample(5):
        assert (net(moved(batch, R)) - out).abs().max() < 1e-10
    stretched = moved(batch, torch.eye(3).double() * 1.1)
    assert (net(stretched) - out).abs().max() > 1e-6


def test_vectors_of_painn_turn():
    torch.manual_seed(0)
    net, batch = PaiNN().double(), molecules()
    s, v = net.features(batch)
    assert v.abs().max() > 1e-3
    for R in Group('O(3)').sample(5):
        t, w = net.features(moved(batch, R))
        assert (t - s).abs().max() < 1e-10
        expected = torch.einsum('ij,njf->nif', R, v)
        assert (w - expected).abs().max() < 1e-10
        assert (w - v).abs().max() > 1e-4


def test_painn_forgets_what_leaves_the_cutoff():
    torch.manual_seed(0)
    net = PaiNN(cutoff=3.).double()

    def out(distance):
        pos = torch.tensor([[0., 0, 0], [distance, 0, 0]]).double()
        pairs = torch.tensor([[0, 1], [1, 0]])
        return net(Batch.from_data_list([Data(
            pos=pos, z=torch.tensor([6, 8]), edge_index=pairs)]))

    assert abs(out(3. - 1e-4) - out(3.)) < 1e-7
    assert abs(out(2.) - out(3.)) > 1e-4


def test_particles_of_egnn_turn():
    torch.manual_seed(0)
    net = EGNNOnParticles().double()
    pairs = (1 - torch.eye(5)).nonzero().T
    batch = Batch.from_data_list([Data(
        pos=torch.randn(5, 3).double(), vel=torch.randn(5, 3).double(),
        charge=torch.randn(5, 1).double().sign(), edge_index=pairs)
        for _ in range(3)])
    for layer in net.layers:  # as if it had learned to move
        torch.nn.init.normal_(layer.along[-1].weight)
    out = net(batch)
    for R in Group('O(3)').sample(5):
        turned = moved(batch, R, shift=False)
        turned.vel = batch.vel @ R.T
        turned.pos = turned.pos + 3.
        assert (net(turned) - out @ R.T - 3.).abs().max() < 1e-9
        turned.vel = batch.vel
        assert (net(turned) - out @ R.T - 3.).abs().max() > 1e-2
    # Charges matter.
    batch.charge = batch.charge * torch.tensor([[1.], [-1.]]).double().repeat(
        8, 1)[:15]
    assert (net(batch) - out).abs().max() > 1e-3


def test_descriptor_sees_the_shape_alone():
    torch.manual_seed(0)
    net = Descriptor(4).double().eval()
    pos = torch.randn(3 * 60, 3).double() * torch.tensor([0.5, 0.3, 0.1])
    batch = torch.arange(3).repeat_interleave(60)
    out = net.invariants(pos, batch)
    for R in Group('O(3)').sample(3):
        assert (net.invariants(pos @ R.T + 1., batch) - out).abs().max() \
            < 1e-10
    assert (net.invariants(1.2 * pos, batch) - out).abs().max() > 1e-2


def test_histogram():
    values = torch.tensor([[0., 0., 1.]])
    found = histogram(values, 0., 1., 2)
    near = float(torch.tensor(-0.5).exp())
    assert torch.allclose(found, torch.tensor([[2 + near, 1 + 2 * near]]) / 3)
