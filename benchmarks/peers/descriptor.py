"""Histograms of invariants of a cloud, and an MLP."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MLP, global_mean_pool
from torch_geometric.utils import to_dense_batch

from benchmarks.peers.network import Network
from benchmarks.tasks import Task


def histogram(values: Tensor, low: float, high: float, bins: int) -> Tensor:
    """The share of values [B, M] near each of some places, in Gaussian
    windows as wide as these are apart: [B, bins].
    """
    places = torch.linspace(low, high, bins).to(values)
    width = (high - low) / (bins - 1)
    return torch.exp(-0.5 * ((values[..., None] - places) / width)**2).mean(1)


class Descriptor(torch.nn.Module):
    """Distances from the centre, between pairs, and angles of triples of
    points, for clouds of the same number of points; as the number of these
    is large, points meet those that follow them by some places. Nothing of
    it changes under O(3).
    """
    shifts = (1, 2, 3, 5, 7, 11)

    def __init__(self, num_classes: int, width: int = 128):
        super().__init__()
        self.head = torch.nn.Sequential(
            torch.nn.BatchNorm1d(32 + 64 + 32),
            MLP([128, width, width, num_classes], dropout=0.3))

    def invariants(self, pos: Tensor, batch: Tensor) -> Tensor:
        """The histograms, [B, 128]."""
        pos = pos - global_mean_pool(pos, batch)[batch]
        cloud, _ = to_dense_batch(pos, batch)
        ways = [cloud.roll(n, 1) - cloud for n in self.shifts]
        distance = torch.cat([way.norm(dim=-1) for way in ways], 1)
        cosine = torch.cat([torch.cosine_similarity(a, b, dim=-1)
                            for a, b in zip(ways, ways[1:])], 1)
        return torch.cat([histogram(cloud.norm(dim=-1), 0., 1., 32),
                          histogram(distance, 0., 2., 64),
                          histogram(cosine, -1., 1., 32)], dim=1)

    def forward(self, batch: Data) -> Tensor:
        return self.head(self.invariants(batch.pos, batch.batch))


class DescriptorPeer(Network, name='descriptor', tasks=['modelnet40']):
    """What needs no convolutions."""
    def build(self, task: Task) -> torch.nn.Module:
        return Descriptor(task.out_channels)
