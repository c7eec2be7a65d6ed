"""Steerable bases, and the kernel on top of them."""
from .basis import SteerableBasis
from .harmonic import HarmonicBasis, lattice_harmonics
from .implicit import ImplicitBasis
from .kernel import Kernel, SteerableKernel
from .lattice import LatticeKernel
from .radial import BesselRadial, GaussianRadial, RadialFunctions
from .spec import BasisSpec

__all__ = ['SteerableBasis', 'HarmonicBasis', 'ImplicitBasis', 'BasisSpec',
           'Kernel', 'SteerableKernel', 'LatticeKernel', 'lattice_harmonics',
           'RadialFunctions', 'GaussianRadial', 'BesselRadial']
