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
from .conv import SteerableConv
from .harmonic_conv import HarmonicSteerableConv
from .hierarchy import Level, hierarchy
from .implicit_conv import ImplicitSteerableConv
from .lattice_block import (
                            LatticeBlock,
                            LatticeDropout,
                            LatticeGate,
                            LatticeNormConv,
                            lattice_stack,
)
from .lattice_conv import LatticeSteerableConv, LatticeSteerableConvTranspose
from .lattice_pool import LatticeAvgPool, LatticeGlobalPool, LatticeLowPass
from .param_groups import param_groups
from .pool import (
                   GlobalPool,
                   NormMaxPool,
                   farthest_downsample,
                   interpolate,
                   norm_max_pool,
                   random_downsample,
)

__all__ = [
    'SteerableConv',
    'ImplicitSteerableConv',
    'HarmonicSteerableConv',
    'LatticeSteerableConv',
    'LatticeSteerableConvTranspose',
    'LatticeNormConv',
    'LatticeBlock',
    'lattice_stack',
    'LatticeGate',
    'LatticeDropout',
    'LatticeLowPass',
    'LatticeAvgPool',
    'LatticeGlobalPool',
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
    'GlobalPool',
    'NormMaxPool',
    'norm_max_pool',
    'random_downsample',
    'farthest_downsample',
    'interpolate',
    'hierarchy',
    'Level',
    'calibrate',
    'param_groups',
]
