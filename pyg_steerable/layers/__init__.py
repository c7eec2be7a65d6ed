"""Equivariant layers that act on each node or edge by itself."""
from .activation import (
                         Gate,
                         NormActivation,
                         NormGate,
                         QuotientELU,
                         TensorProductActivation,
)
from .bilinear import Bilinear
from .dropout import FieldDropout
from .linear import Linear
from .norm import FieldBatchNorm
from .readout import InvariantReadout

__all__ = [
    'Linear',
    'Bilinear',
    'QuotientELU',
    'Gate',
    'NormActivation',
    'NormGate',
    'TensorProductActivation',
    'FieldBatchNorm',
    'FieldDropout',
    'InvariantReadout',
]
