"""PointNet++ of PyG's layers."""
from __future__ import annotations

import torch
from torch_geometric.data import Data

from benchmarks.papers.pointnet2 import PointNet2
from benchmarks.peers.network import Network
from benchmarks.tasks import Task


class _OnClouds(torch.nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.net = PointNet2(num_classes)

    def forward(self, batch: Data):
        return self.net(batch.pos, batch.batch)


class PointNet2Peer(Network, name='PointNet++', tasks=['modelnet40']):
    """"PointNet++" (https://arxiv.org/abs/1706.02413), the network of
    benchmarks.papers.pointnet2.
    """
    def build(self, task: Task) -> torch.nn.Module:
        return _OnClouds(task.out_channels)
