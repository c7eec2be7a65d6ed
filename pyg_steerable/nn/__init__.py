"""The layers that a user names."""
from ..layers import (
                      Bilinear,
                      FieldBatchNorm,
                      FieldDropout,
                      Gate,
                      InvariantReadout,
                      Linear,
                      NormActivation,
                      NormGate,
                      QuotientELU,
                      TensorProductActivation,
)
from .calibrate import calibrate
from .conv import HarmonicSteerableConv, ImplicitSteerableConv, SteerableConv

__all__ = [
    'SteerableConv',
    'ImplicitSteerableConv',
    'HarmonicSteerableConv',
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
    'calibrate',
]
