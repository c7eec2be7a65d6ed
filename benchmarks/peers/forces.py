"""Forces of a network of energies."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data


class Forces(torch.nn.Module):
    r"""The energy :math:`E` [B] of a network that reads :obj:`batch.pos`, and
    the forces :math:`-\partial E / \partial \mathbf{p}` [N, 3].
    """
    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.net = net

    def forward(self, batch: Data) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            batch = batch.clone()
            batch.pos = batch.pos.detach().requires_grad_()
            energy = self.net(batch).squeeze(-1)
            slope, = torch.autograd.grad(energy.sum(), batch.pos,
                                         create_graph=self.training)
        return energy, -slope
