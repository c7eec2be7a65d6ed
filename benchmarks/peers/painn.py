r"""PaiNN, after "Equivariant message passing for the prediction of tensorial
properties and molecular spectra" (https://arxiv.org/abs/2102.03150).
"""
from __future__ import annotations

import math

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool, global_mean_pool

from benchmarks.peers.forces import Forces
from benchmarks.peers.network import Network
from benchmarks.tasks import Task
from pyg_steerable.graph import RadiusGraph


def _mlp(before: int, hidden: int, after: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(before, hidden),
                               torch.nn.SiLU(),
                               torch.nn.Linear(hidden, after))


class PaiNNLayer(torch.nn.Module):
    """A message (eqs. 7 and 8) and an update (eqs. 9 and 10), on scalars
    [N, F] and vectors [N, 3, F].
    """
    def __init__(self, width: int, num_radial: int):
        super().__init__()
        self.phi = _mlp(width, width, 3 * width)
        self.filter = torch.nn.Linear(num_radial, 3 * width)
        self.mix = torch.nn.Linear(width, 2 * width, bias=False)
        self.update = _mlp(2 * width, width, 3 * width)

    def forward(self, s: Tensor, v: Tensor, edge_index: Tensor,
                direction: Tensor, radial: Tensor, cut: Tensor
                ) -> tuple[Tensor, Tensor]:
        source, target = edge_index
        weight = self.phi(s)[source] * self.filter(radial) * cut
        scalar, along, kept = weight.chunk(3, dim=-1)
        vector = (v[source] * kept[:, None]
                  + direction[:, :, None] * along[:, None])
        s = s.index_add(0, target, scalar)
        v = v.index_add(0, target, vector)
        a, b = self.mix(v).chunk(2, dim=-1)
        norm = (b.square().sum(1) + 1e-8).sqrt()
        of_v, of_dot, of_s = self.update(
            torch.cat([s, norm], dim=-1)).chunk(3, dim=-1)
        return (s + of_s + of_dot * (a * b).sum(1),
                v + of_v[:, None] * a)


class PaiNN(torch.nn.Module):
    """An embedding of atoms, layers, and an MLP of the scalars, averaged or
    summed.
    """
    def __init__(self, width: int = 48, layers: int = 3, num_radial: int = 20,
                 cutoff: float = 3., extensive: bool = False):
        super().__init__()
        self.cutoff = cutoff
        self.pool = global_add_pool if extensive else global_mean_pool
        self.embedding = torch.nn.Embedding(100, width)
        self.layers = torch.nn.ModuleList(
            PaiNNLayer(width, num_radial) for _ in range(layers))
        self.head = _mlp(width, width // 2, 1)
        self.register_buffer('frequency', torch.arange(1, num_radial + 1)
                             * math.pi / cutoff)

    def features(self, batch: Data) -> tuple[Tensor, Tensor]:
        """The scalars and the vectors of each atom."""
        source, target = batch.edge_index
        way = batch.pos[source] - batch.pos[target]
        distance = way.norm(dim=1, keepdim=True)
        radial = torch.sin(self.frequency * distance) / distance
        cut = 0.5 * (torch.cos(math.pi * distance / self.cutoff) + 1)
        s = self.embedding(batch.z)
        v = s.new_zeros(len(s), 3, s.shape[1])
        for layer in self.layers:
            s, v = layer(s, v, batch.edge_index, way / distance, radial, cut)
        return s, v

    def forward(self, batch: Data) -> Tensor:
        s, _ = self.features(batch)
        return self.pool(self.head(s), batch.batch, batch.num_graphs)


class PaiNNPeer(Network, name='PaiNN', tasks=['qm9', 'rmd17']):
    """On pairs of atoms within a cutoff."""
    cutoff = {'qm9': 3., 'rmd17': 4.}

    def prepare(self, task: Task, data: Data) -> Data:
        return RadiusGraph(self.cutoff[task.name])(data)

    def build(self, task: Task) -> torch.nn.Module:
        net = PaiNN(cutoff=self.cutoff[task.name], extensive=task.extensive)
        return Forces(net) if task.name == 'rmd17' else net
