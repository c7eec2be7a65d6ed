"""What tests of transforms share."""
import torch
from torch_geometric.data import Data

from pyg_steerable import FieldType
from pyg_steerable.graph import (
    AnisotropicScale,
    Jitter,
    Normalise,
    RandomGroupElement,
    RandomPointSubset,
)

TYPE = '2x0e + 0o + 2x1o + 1e + 2e'
TRANSFORMS = [
    RandomGroupElement('SO(2)'),
    RandomPointSubset(5),
    Jitter(),
    AnisotropicScale(),
    Normalise(),
]


def random_cloud(n=12):
    return Data(
        pos=torch.randn(n, 3, dtype=torch.float64),
        normal=torch.randn(n, 3, dtype=torch.float64),
        x=torch.randn(n, FieldType(TYPE).dim, dtype=torch.float64),
        y=torch.randn(1, 5, dtype=torch.float64),
        category=torch.tensor([3]),
        part=torch.arange(n),
    )


def random_graph(n=12):
    data = random_cloud(n)
    data.edge_index = torch.randint(n, (2, 30))
    data.edge_attr = torch.randn(30, 4, dtype=torch.float64)
    return data
