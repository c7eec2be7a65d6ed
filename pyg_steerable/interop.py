r"""Neighbours: `escnn <https://github.com/QUVA-Lab/escnn>`_ and `e3nn
<https://e3nn.org>`_.
"""
from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from .escnn_reader import group_from_escnn, merge_blocks, read_field_type
from .fields import FieldType
from .groups import Group
from .intertwiners import linear_basis

__all__ = ['group_from_escnn', 'from_escnn', 'to_irreps', 'e3nn_basis']

# escnn #####################################################################


def from_escnn(field_type) -> FieldType:
    r"""Returns the :class:`FieldType` of an escnn field type.

    The layout of the features stays escnn's. Each representation becomes

    - an e3nn irrep where its matrices are those of one (for example the
      standard representation :obj:`1o`, or any trivial one, :obj:`0e`),
    - otherwise a :class:`Representation` with escnn's matrices, split where
      all of them are block-diagonal.

    escnn's own irreps of degree :math:`l \geq 1` have their components in
    another order than e3nn's (degree 1 is :math:`(y, z, x)`) and come out as
    the latter; :func:`e3nn_basis` changes to e3nn's.

    Args:
        field_type (escnn.nn.FieldType): A type on a 3-D gspace.

    Raises:
        ImportError: If escnn is not installed.
        TypeError: If it is no escnn field type, or not on a 3-D gspace.
        ValueError: If a representation is not orthogonal.
    """
    return FieldType(*read_field_type(field_type))


# e3nn ######################################################################


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
