"""Our networks, as they are by default."""
from __future__ import annotations

import torch
from torch_geometric.data import Data

from benchmarks.peers.network import Network
from benchmarks.peers.tasks import Task
from pyg_steerable.models import ModelNetClassifier, QM9Net


class _OnMolecules(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = QM9Net(5, **options)

    def forward(self, batch: Data):
        return self.net(batch.x, batch.pos, batch.edge_index,
                        batch.edge_attr, batch.batch, batch.num_graphs)


class Ours(Network, name='QM9Net', tasks=['qm9']):
    """On bonds; kernels see them and the atoms."""
    options = dict(edge_dim=4, atom_dim=5, blocks=2)

    def build(self, task: Task) -> torch.nn.Module:
        return _OnMolecules(**self.options)


class Harmonic(Ours, name='QM9Net, harmonic', tasks=['qm9']):
    """On bonds, which the kernels do not see."""
    options = dict(kernel='harmonic', blocks=2)


class _OnClouds(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = ModelNetClassifier(**options)

    def forward(self, batch: Data):
        return self.net(batch.pos, batch.batch, batch_size=batch.num_graphs)


class OursOnClouds(Network, name='ModelNetClassifier',
                   tasks=['modelnet40']):
    """Three convolutions, for the group of a thing that stands."""
    group = 'SO(2)xM'

    def build(self, task: Task) -> torch.nn.Module:
        return _OnClouds(num_classes=task.out_channels, group=self.group,
                         kernel='harmonic', max_degree=1, channels=15,
                         ratios=(0.5, 0.5, 0.5), invariants=64, mlp=64,
                         num_points=128)


class OursTurned(OursOnClouds, name='ModelNetClassifier, SO(3)',
                 tasks=['modelnet40']):
    """The same for all rotations."""
    group = 'SO(3)'
