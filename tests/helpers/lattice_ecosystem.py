"""What tests of lattice ecosystem share."""
import torch

from pyg_steerable import FieldType
from pyg_steerable.graph import (
    voxel_to_graph,
)

T = FieldType('2x0e + 1x1o', 'SO(3)')


def lattice_of(occupancy=0.3, dtype=torch.float64, grid=(5, 4, 6), **kwargs):
    mask = torch.rand(grid) < occupancy
    mask[2, 2, 2:4] = True
    return voxel_to_graph(torch.randn(T.dim, *grid, dtype=dtype), mask=mask,
                          **kwargs)
