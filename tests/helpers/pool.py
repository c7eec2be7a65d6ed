"""What tests of pool share."""
import torch

from pyg_steerable import FieldType, Representation

GROUPS = ['1', 'Inv', 'M', 'C4', 'D3', 'O', 'IxInv', 'SO(2)', 'SO(2)xMxInv',
          'SO(3)', 'O(3)']
# In no order, with an empty cloud 2 and clouds of 1 and 2 points.
BATCH = torch.tensor([3, 0, 1, 0, 4, 3, 0, 3, 0, 4, 0, 3])
SIZE, POINTS = 6, 12


def mixed_type(group):
    return FieldType('2x0e + 0o + 2x1o + 1e + 2e + 3o', group)


def regular_type():
    return FieldType([(2, '1o'), (2, Representation.regular('C4'))], 'C4')


def fields(field_type, n=POINTS):
    return torch.randn(n, field_type.dim, dtype=torch.float64)


def points(n=POINTS):
    return torch.randn(n, 3, dtype=torch.float64)
