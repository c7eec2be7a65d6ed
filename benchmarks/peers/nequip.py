"""NequIP, if its package is there (pip install nequip)."""
from __future__ import annotations

import importlib.util

import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.peers.network import Network
from benchmarks.tasks import Task
from pyg_steerable.graph import RadiusGraph


class _OnFrames(torch.nn.Module):
    """Energies and forces [B] and [N, 3]; types are indices of elements."""
    def __init__(self, elements: list[int], cutoff: float):
        super().__init__()
        from nequip.model import NequIPGNNModel
        from nequip.utils.global_state import set_global_state

        kept = torch.get_default_dtype(), torch.get_rng_state()
        set_global_state()  # demanded; changes both
        torch.set_rng_state(kept[1])
        seed = int(torch.randint(2**31, ()))
        self.net = NequIPGNNModel(
            seed=seed, model_dtype='float32', r_max=cutoff,
            type_names=[f'E{z}' for z in elements], num_layers=3, l_max=1,
            parity=True, num_features=32, radial_mlp_depth=1,
            radial_mlp_width=64, avg_num_neighbors=8.,
            per_type_energy_scales=1., per_type_energy_shifts=0.)
        torch.set_default_dtype(kept[0])
        index = torch.full((119, ), -1)
        index[elements] = torch.arange(len(elements))
        self.register_buffer('index_of', index)

    def forward(self, batch: Data) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            out = self.net({
                'pos': batch.pos.detach().double(),
                'edge_index': batch.edge_index, 'batch': batch.batch,
                'atom_types': self.index_of[batch.z],
                'num_atoms': batch.batch.bincount()})
        return (out['total_energy'].squeeze(-1).float(),
                out['forces'].float())


if importlib.util.find_spec('nequip') is not None:
    class NequIPPeer(Network, name='NequIP', tasks=['rmd17']):
        """"E(3)-equivariant graph neural networks for data-efficient and
        accurate interatomic potentials" (https://arxiv.org/abs/2101.03164):
        three layers of degree 1, 32 features.
        """
        cutoff = 4.

        def prepare(self, task: Task, data: Data) -> Data:
            return RadiusGraph(self.cutoff)(data)

        def build(self, task: Task) -> torch.nn.Module:
            return _OnFrames(task.elements, self.cutoff)
