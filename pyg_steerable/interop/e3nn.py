"""To the types of e3nn."""
from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from ..symmetry.escnn_reader import merge_blocks
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from ..symmetry.intertwiners import linear_basis


def to_irreps(field_type) -> o3.Irreps:
    r"""Returns a type as e3nn irreps.

    Args:
        field_type (FieldType, o3.Irreps, str or escnn.nn.FieldType): A type
            made of irreps of O(3) in e3nn's basis.

    Raises:
        ValueError: If a block is given by matrices: see :func:`e3nn_basis`.
    """
    return FieldType.wrap(field_type, group='O(3)').irreps


def e3nn_basis(field_type) -> tuple[FieldType, Tensor]:
    r"""Changes a type of SO(3) or O(3) to e3nn's irreps and basis:

    .. math::
        \mathbf{x}_{\mathrm{e3nn}} = Q \mathbf{x}, \qquad
        D_{\mathrm{e3nn}}(g) = Q \, \rho(g) \, Q^{\top}

    so that e.g. features of an escnn network go on in an e3nn one, and
    layers find the closed form of their equivariant maps.

    Args:
        field_type (FieldType or escnn.nn.FieldType): The type.

    Shapes:
        - **output:** The type in e3nn's basis, and :math:`Q`, :math:`[d, d]`
          orthogonal, float64; for rows of features, :obj:`x @ Q.T`

    Raises:
        ValueError: If the group is not SO(3) or O(3), whose irreps alone are
            e3nn's.
    """
    field_type = FieldType.wrap(field_type)
    if field_type.group.dim != 3:
        raise ValueError(f'Expected a type of SO(3) or O(3) (got '
                         f'{field_type}). Irreps of their subgroups are not '
                         f'irreps of e3nn')
    blocks, parts = [], []
    for mul, rep in field_type.blocks:
        found, Q = _decompose(rep, field_type.group)
        blocks += found * mul
        parts += [Q] * mul
    return FieldType(merge_blocks(blocks), field_type.group), torch.block_diag(
        *parts)


def _decompose(rep, group: Group) -> tuple[list, Tensor]:
    """The irreps of a representation of SO(3) or O(3), and Q."""
    if isinstance(rep, o3.Irrep):
        eye = torch.eye(rep.dim, dtype=torch.float64, device='cpu')
        return [(1, rep)], eye
    blocks, rows = [], []
    for irrep in _irreps_of(group, rep.degree):
        for B in linear_basis(rep, irrep, group):
            first = B.flatten()[B.flatten().abs() > 1e-6][0]
            blocks.append((1, irrep))
            rows.append(B * first.sign() * irrep.dim**0.5)
    return blocks, torch.cat(rows)


def _irreps_of(group: Group, max_degree: int) -> list[o3.Irrep]:
    parities = (1, -1) if len(group.components) == 2 else (1, )
    return [o3.Irrep(degree, (-1)**degree * parity)
            for degree in range(max_degree + 1) for parity in parities]
