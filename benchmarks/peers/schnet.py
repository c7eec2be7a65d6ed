"""SchNet, as PyG has it."""
from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.nn import SchNet

from benchmarks.peers.forces import Forces
from benchmarks.peers.network import Network
from benchmarks.tasks import Task
from pyg_steerable.graph import RadiusGraph


class _Given(torch.nn.Module):
    """The graph of the batch, instead of a search."""
    edge_index: torch.Tensor

    def forward(self, pos, batch):
        source, target = self.edge_index
        return self.edge_index, (pos[source] - pos[target]).norm(dim=1)


class _SchNet(torch.nn.Module):
    def __init__(self, cutoff: float, extensive: bool):
        super().__init__()
        self.graph = _Given()
        self.net = SchNet(64, 64, 3, 25, cutoff, self.graph,
                          readout='add' if extensive else 'mean')

    def forward(self, batch: Data):
        self.graph.edge_index = batch.edge_index
        return self.net(batch.z, batch.pos, batch.batch)


class SchNetPeer(Network, name='SchNet', tasks=['qm9', 'rmd17']):
    """"SchNet" (https://arxiv.org/abs/1706.08566): continuous filters of
    distances.
    """
    cutoff = {'qm9': 3., 'rmd17': 4.}

    def prepare(self, task: Task, data: Data) -> Data:
        return RadiusGraph(self.cutoff[task.name])(data)

    def build(self, task: Task) -> torch.nn.Module:
        net = _SchNet(self.cutoff[task.name], task.extensive)
        return Forces(net) if task.name == 'rmd17' else net
