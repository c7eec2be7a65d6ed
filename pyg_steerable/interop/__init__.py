"""To and from the types of e3nn and escnn."""
from ..symmetry.escnn_reader import group_from_escnn
from .e3nn import e3nn_basis, to_irreps
from .escnn import from_escnn

__all__ = ['group_from_escnn', 'from_escnn', 'to_irreps', 'e3nn_basis']
