"""Equivariant layers that act on each node or edge by itself. Here are those
that kernels and networks are built of; :mod:`pyg_steerable.nn` names all.
"""
from .batch_norm import FieldBatchNorm
from .gates import NormGate
from .linear import Linear
from .quotient_elu import QuotientELU
from .readout import InvariantReadout

__all__ = ['FieldBatchNorm', 'NormGate', 'Linear', 'QuotientELU',
           'InvariantReadout']
