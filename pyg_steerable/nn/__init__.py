"""The layers that a user names."""
from ..graph.points.downsample import farthest_downsample, random_downsample
from ..graph.points.hierarchy import Level, hierarchy
from .block import LatticeBlock, lattice_stack
from .calibrate import calibrate
from .conv.harmonic import HarmonicSteerableConv
from .conv.implicit import ImplicitSteerableConv
from .conv.lattice import LatticeSteerableConv
from .conv.lattice_norm import LatticeNormConv
from .conv.lattice_transpose import LatticeSteerableConvTranspose
from .conv.steerable import SteerableConv
from .field import FieldModule
from .param_groups import param_groups
from .pointwise.batch_norm import FieldBatchNorm
from .pointwise.bilinear import Bilinear
from .pointwise.dropout import FieldDropout, LatticeDropout
from .pointwise.gates import Gate, LatticeGate, NormGate
from .pointwise.linear import Linear
from .pointwise.norm_activation import NormActivation
from .pointwise.quotient_elu import QuotientELU
from .pointwise.readout import InvariantReadout
from .pointwise.tensor_product import TensorProductActivation
from .pool.global_pool import GlobalPool
from .pool.interpolate import interpolate
from .pool.lattice import LatticeAvgPool, LatticeGlobalPool, LatticeLowPass
from .pool.norm_max import NormMaxPool, norm_max_pool

__all__ = [
    'FieldModule',
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
