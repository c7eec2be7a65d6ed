"""What tests of lattice conv share."""
from itertools import permutations, product

import torch

from pyg_steerable import FieldType, Group
from pyg_steerable.nn import (
    LatticeSteerableConv,
)

GROUPS = ['1', 'Inv', 'M', 'F', 'C4', 'D4', 'T', 'O', 'OxInv', 'SO(2)',
          'SO(2)xM', 'SO(3)', 'O(3)']
IN, OUT = '2x0e + 1x1o', '1x0e + 1x1e + 1x2e'


def cube_symmetries():
    """All 48."""
    out = []
    for order, signs in product(permutations(range(3)),
                                product([1., -1.], repeat=3)):
        R = torch.zeros(3, 3, dtype=torch.float64)
        R[range(3), list(order)] = torch.tensor(signs, dtype=torch.float64)
        out.append(R)
    return torch.stack(out)


CUBE = cube_symmetries()


def split(group):
    """The cube's symmetries inside and outside of a group."""
    inside = [Group.wrap(group).contains(R) for R in CUBE]
    return ([R for R, here in zip(CUBE, inside) if here],
            [R for R, here in zip(CUBE, inside) if not here])


def turned(voxels, field_type, R):
    """Fields on a grid, turned about its centre."""
    voxels = field_type.act(voxels.movedim(1, -1), R).movedim(-1, 1)
    # Axis a of x, y, z is axis 4 - a of the tensor.
    source = R.abs().argmax(dim=1).tolist()  # of each new axis
    voxels = voxels.permute(0, 1, *(4 - source[2 - k] for k in range(3)))
    flipped = [4 - a for a in range(3) if R[a].sum() < 0]
    return voxels.flip(flipped)


def relative(a, b):
    return float((a - b).detach().norm() / b.detach().norm())


def perturbed(conv):
    with torch.no_grad():  # biases must matter
        for p in conv.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return conv


def make(group='SO(3)', cls=LatticeSteerableConv, kernel_size=3, **kwargs):
    torch.manual_seed(0)
    conv = cls(FieldType(IN, group), FieldType(OUT, group), kernel_size,
               **kwargs)
    return perturbed(conv).double()  # built in float32, then moved


T = FieldType('1x0e', 'O(3)')


def conv(*args, **kwargs):
    return LatticeSteerableConv(T, T, *args, **kwargs)
