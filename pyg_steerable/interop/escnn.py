"""From the types of escnn."""
from __future__ import annotations

from ..symmetry.escnn_reader import read_field_type
from ..symmetry.fields import FieldType


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
