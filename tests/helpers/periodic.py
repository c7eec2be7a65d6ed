"""What tests of periodic share."""
import torch

from pyg_steerable.graph import (
    edge_shift,
    radius_graph,
)
from pyg_steerable.models import (
    QM9Net,
)
from pyg_steerable.nn import (
    calibrate,
)

RADIUS = 2.6


def crystal(n=7, dim=5):
    """Atoms, with some outside of the cell, of a skewed lattice."""
    cell = 2.5 * torch.eye(3) + 0.5 * torch.randn(3, 3)
    pos = 2 * torch.rand(n, 3).double() @ cell.double()
    x = torch.eye(dim).double()[torch.randint(dim, (n, ))]
    return x, pos, cell.double()


def edges(pos, cell, **kwargs):
    edge_index, offset = radius_graph(pos.detach(), RADIUS, cell=cell.detach(),
                                      **kwargs)
    return edge_index, edge_shift(offset, cell)


def energy_model(**options):
    """A random network, with statistics of data."""
    model = QM9Net(**{'blocks': 1, 'pool': 'sum', **options}).double()
    x, pos, cell = crystal()
    edge_index, shift = edges(pos, cell)
    calibrate(model, x, pos, edge_index, edge_shift=shift)
    return model.eval()
