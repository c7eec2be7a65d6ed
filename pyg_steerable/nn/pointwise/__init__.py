"""Equivariant layers that act on each node or edge by itself."""
from .batch_norm import FieldBatchNorm
from .bilinear import Bilinear
from .dropout import FieldDropout
from .gates import Gate, NormGate
from .linear import Linear
from .norm_activation import NormActivation
from .quotient_elu import QuotientELU
from .readout import InvariantReadout
from .tensor_product import TensorProductActivation

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
