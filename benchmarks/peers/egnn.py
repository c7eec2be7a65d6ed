r"""EGNN, after "E(n) Equivariant Graph Neural Networks"
(https://arxiv.org/abs/2102.09844).
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import global_add_pool, global_mean_pool

from benchmarks.peers.network import Network
from benchmarks.tasks import Task
from pyg_steerable.graph import RadiusGraph


def _mlp(before: int, hidden: int, after: int, *last) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(before, hidden),
                               torch.nn.SiLU(),
                               torch.nn.Linear(hidden, after), *last)


class EGNNLayer(torch.nn.Module):
    r"""Messages of features and distances (eq. 3), which move the points
    (eqs. 4 and 7) if there are velocities, and change the features (eqs. 5
    and 6). Without velocities messages are weighted (eq. 8), as the authors
    do for molecules.
    """
    def __init__(self, width: int, edge_dim: int = 0, moving: bool = False):
        super().__init__()
        self.message = _mlp(2 * width + 1 + edge_dim, width, width,
                            torch.nn.SiLU())
        self.node = _mlp(2 * width, width, width)
        self.moving = moving
        if moving:
            self.along = _mlp(width, width, 1)
            self.speed = _mlp(width, width, 1)
            # Points hardly move at first.
            torch.nn.init.xavier_uniform_(self.along[-1].weight, gain=1e-3)
        else:
            self.weight = torch.nn.Sequential(torch.nn.Linear(width, 1),
                                              torch.nn.Sigmoid())

    def forward(self, h: Tensor, pos: Tensor, edge_index: Tensor,
                edge_attr: Tensor | None = None, vel: Tensor | None = None
                ) -> tuple[Tensor, Tensor]:
        source, target = edge_index
        way = pos[target] - pos[source]
        parts = [h[target], h[source], way.square().sum(1, keepdim=True)]
        if edge_attr is not None:
            parts.append(edge_attr)
        m = self.message(torch.cat(parts, dim=1))
        if self.moving:
            count = target.bincount(minlength=len(h)).clamp(min=1)[:, None]
            moved = torch.zeros_like(pos).index_add(0, target,
                                                    way * self.along(m))
            pos = pos + moved / count + self.speed(h) * vel
        else:
            m = m * self.weight(m)
        total = torch.zeros_like(h).index_add(0, target, m)
        return h + self.node(torch.cat([h, total], dim=1)), pos


class EGNNOnMolecules(torch.nn.Module):
    """Features alone change; an MLP of them is averaged, or summed."""
    def __init__(self, width: int = 48, layers: int = 4,
                 extensive: bool = False):
        super().__init__()
        self.extensive = extensive
        self.embedding = torch.nn.Linear(5, width)
        self.layers = torch.nn.ModuleList(
            EGNNLayer(width) for _ in range(layers))
        self.node, self.head = (_mlp(width, width, after)
                                for after in (width, 1))

    def forward(self, batch: Data) -> Tensor:
        h = self.embedding(batch.x)
        for layer in self.layers:
            h, _ = layer(h, batch.pos, batch.edge_index)
        h = self.node(h)
        if self.extensive:
            return global_add_pool(self.head(h), batch.batch,
                                   batch.num_graphs)
        return self.head(global_mean_pool(h, batch.batch, batch.num_graphs))


class EGNNOnParticles(torch.nn.Module):
    """Features of the speed; edges know the product of charges and the
    distance at the start; particles move from layer to layer.
    """
    def __init__(self, width: int = 64, layers: int = 4):
        super().__init__()
        self.embedding = torch.nn.Linear(1, width)
        self.layers = torch.nn.ModuleList(
            EGNNLayer(width, 2, moving=True) for _ in range(layers))

    def forward(self, batch: Data) -> Tensor:
        source, target = batch.edge_index
        pos, vel = batch.pos, batch.vel
        edge_attr = torch.cat([
            batch.charge[source] * batch.charge[target],
            (pos[source] - pos[target]).square().sum(1, keepdim=True)], 1)
        h = self.embedding(vel.norm(dim=1, keepdim=True))
        for layer in self.layers:
            h, pos = layer(h, pos, batch.edge_index, edge_attr, vel)
        return pos


class EGNNPeer(Network, name='EGNN', tasks=['qm9', 'nbody']):
    """On molecules pairs of atoms within a cutoff, else all pairs."""
    cutoff = 3.

    def prepare(self, task: Task, data: Data) -> Data:
        return RadiusGraph(self.cutoff)(data) if task.name == 'qm9' else data

    def build(self, task: Task) -> torch.nn.Module:
        return (EGNNOnMolecules(extensive=task.extensive)
                if task.name == 'qm9' else
                EGNNOnParticles())
