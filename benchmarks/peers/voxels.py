"""Networks for voxels: steerable, and a CNN of as many parameters."""
from __future__ import annotations

from argparse import Namespace

import torch
from torch_geometric.data import Data

from benchmarks.papers.modelnet10_voxels import build_network
from benchmarks.peers.network import Network
from benchmarks.tasks import Task


class _OnVoxels(torch.nn.Module):
    def __init__(self, options: dict, num_classes: int):
        super().__init__()
        self.net = build_network(Namespace(**options), num_classes)

    def forward(self, batch: Data):
        return self.net(batch.voxels)


class Steerable(Network, name='steerable', tasks=['voxels']):
    """The network of benchmarks.papers.modelnet10_voxels: a low-pass filter
    and three convolutions, for SO(3).
    """
    group: str | None = 'SO(3)'
    options = dict(net='steerable', strides=[2, 1, 1],
                   fields=['6x0e + 4x1o + 2x2e', '12x0e + 6x1o + 3x2e'],
                   invariants=48)

    def build(self, task: Task) -> torch.nn.Module:
        return _OnVoxels({**self.options, 'group': self.group},
                         task.out_channels)


class CNN(Steerable, name='CNN', tasks=['voxels']):
    """As many convolutions and parameters, no symmetry."""
    group = None
    options = dict(net='cnn', channels=[2, 4, 6], strides=[2, 1, 1])


class WideCNN(Steerable, name='CNN, ten times', tasks=['voxels']):
    """With ten times the parameters."""
    group = None
    options = dict(net='cnn', channels=[8, 12, 20], strides=[2, 1, 1])
