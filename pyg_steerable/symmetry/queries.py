"""What layers ask of a field type: whose field a component is, and what the
group leaves alone.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .fields import FieldType
from .intertwiners import linear_basis

_TRIVIAL = '0e'


def field_index(field_type: FieldType) -> Tensor:
    """The number of the field that each component belongs to, [d]."""
    sizes = [rep.dim for mul, rep in field_type.blocks for _ in range(mul)]
    return torch.arange(len(sizes), device='cpu').repeat_interleave(
        torch.tensor(sizes, dtype=torch.long, device='cpu'))


def field_mean(field_type: FieldType) -> Tensor:
    """The matrix that averages over the components of each field, [d, F]."""
    index = field_index(field_type)
    size = index.bincount(minlength=field_type.num_fields)
    mean = torch.zeros(field_type.dim, field_type.num_fields,
                       dtype=torch.float64, device='cpu')
    mean[torch.arange(field_type.dim, device='cpu'), index] = (
        1 / size[index].double())
    return mean


def block_kinds(field_type: FieldType) -> list[tuple[int, int, bool]]:
    """Copies and components of each block, and whether its fields are
    invariant numbers.
    """
    return [(mul, rep.dim, rep.dim == 1 and FieldType(
        [(1, rep)], field_type.group).is_invariant)
            for mul, rep in field_type.blocks]


def scalar_fields(field_type: FieldType) -> Tensor:
    """Which fields are invariant numbers, [F]."""
    flags = [is_scalar for mul, _, is_scalar in block_kinds(field_type)
             for _ in range(mul)]
    return torch.tensor(flags, dtype=torch.bool, device='cpu')


def invariant_vectors(field_type: FieldType) -> Tensor:
    r"""An orthonormal basis of the vectors that the group leaves alone,
    :math:`[d, n]` float64, each inside one field.
    """
    columns = []
    for (mul, rep), s in zip(field_type.blocks, field_type.slices):
        for q in linear_basis(_TRIVIAL, rep, field_type.group)[:, :, 0]:
            for m in range(mul):
                column = q.new_zeros(field_type.dim)
                start = s.start + m * rep.dim
                column[start:start + rep.dim] = q
                columns.append(column)
    if not columns:
        return torch.zeros(field_type.dim, 0, dtype=torch.float64,
                           device='cpu')
    return torch.stack(columns, dim=1)
