"""Tiny runs of all networks; peers keep the symmetries they claim."""
import json

import numpy as np
import pytest
import torch
from comparisons import options
from resume import killed
from torch_geometric.data import Batch, Data

pytest.importorskip('lightning')
from benchmarks import accuracy  # noqa: E402
from benchmarks.peers import NETWORKS, Network  # noqa: E402
from benchmarks.peers.descriptor import Descriptor, histogram  # noqa: E402
from benchmarks.peers.egnn import (  # noqa: E402
    EGNNOnMolecules,
    EGNNOnParticles,
)
from benchmarks.peers.forces import Forces  # noqa: E402
from benchmarks.peers.painn import PaiNN  # noqa: E402
from benchmarks.tasks import TASKS  # noqa: E402
from pyg_steerable import Group  # noqa: E402
from pyg_steerable.datasets import load_qm9  # noqa: E402
from pyg_steerable.graph import RadiusGraph  # noqa: E402


@pytest.mark.parametrize('task', list(TASKS))
def test_all_networks(tmp_path, task, capsys):
    out = tmp_path / 'out'
    table = accuracy.main([*options(task, tmp_path), '--out', str(out),
                           '--seeds', '0', '1', '--test'])
    names = [n for n, cls in NETWORKS.items() if task in cls.tasks]
    assert names and set(table) == set(names)
    saved = json.loads((out / 'table.json').read_text())
    assert saved['networks'] == table and saved['commit']
    assert f'benchmarks.accuracy {task} ' in saved['command']
    assert (out / 'accuracy.png').stat().st_size > 0
    printed = capsys.readouterr().out
    for name, row in table.items():
        runs = [json.loads(path.read_text()) for path in out.glob('*_*.json')]
        runs = [run for run in runs if run['network'] == name]
        assert len(runs) == 3  # two rates, and another seed
        assert len([run for run in runs if 'test' in run]) == 2
        first = {run['rate']: run for run in runs if run['seed'] == 0}
        assert row['seconds'] > 0 and row['seeds'] == [0, 1]
        for error in saved['units']:
            for part in ('valid', 'test'):
                values = [run[part][error] for run in runs if part in run
                          and run['rate'] == row['rate']]
                key = f'{part}_{error}'
                assert row[key] == pytest.approx(np.mean(values))
                assert max(values) > 0
                assert row[f'{key}_std'] == pytest.approx(
                    np.std(values, ddof=1))
        error = next(iter(saved['units']))
        errors = {rate: run['valid'][error] for rate, run in first.items()}
        assert errors[row['rate']] == min(errors.values())
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
    for task in ('nbody', 'modelnet40', 'rmd17', 'voxels'):
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


def test_as_long_as_asked(tmp_path):
    """Of the CPU, not in epochs; the schedule goes by it."""
    out = tmp_path / 'out'
    command = [*options('qm9', tmp_path), '--networks', 'EGNN', '--rates',
               '1e-3', '--seconds', '1.5', '--out', str(out)]
    table = accuracy.main(command)
    assert 1.5 <= table['EGNN']['seconds'] < 2.5
    assert table['EGNN']['steps'] > 8  # of 4 in an epoch
    saved = json.loads((out / 'table.json').read_text())
    assert saved['seconds'] == 1.5 and saved['epochs'] is None


@pytest.mark.parametrize('name', ['PaiNN', 'EGNN', 'SchNet', 'QM9Net'])
@pytest.mark.parametrize('target, times', [('homo', 1), ('U0', 2)])
def test_targets_that_are_sums(tmp_path, name, target, times):
    """Of two molecules far from each other."""
    task = TASKS['qm9'](accuracy.parse([*options('qm9', tmp_path),
                                        '--target', target]))
    network = NETWORKS[name]()
    net = network.build(task).eval()
    batch = Batch.from_data_list([network.prepare(task, d.clone())
                                  for d in task.parts['train'][:3]])
    twice = batch.clone()
    for key, value in batch.to_dict().items():
        if key in ('x', 'z', 'pos', 'batch', 'edge_attr'):
            twice[key] = torch.cat([value, value])
    twice.edge_index = torch.cat([
        batch.edge_index, batch.edge_index + batch.num_nodes], dim=1)
    assert torch.allclose(net(twice), times * net(batch), rtol=1e-3)


def test_forces_are_slopes():
    torch.manual_seed(0)
    net, batch = Forces(PaiNN(extensive=True)).double().eval(), molecules()
    energy, force = net(batch)
    assert energy.shape == (6, ) and not force.requires_grad
    step = torch.zeros_like(batch.pos)
    step[3, 1] = 1e-5
    up, down = (net(batch.clone().update({'pos': batch.pos + sign * step}))[0]
                for sign in (1, -1))
    slope = (up - down).sum() / 2e-5
    assert abs(slope + force[3, 1]) < 1e-6 * max(1, force.abs().max())
    with torch.no_grad():
        assert torch.equal(net(batch)[1], force)
    net.train()
    assert net(batch)[1].requires_grad


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
