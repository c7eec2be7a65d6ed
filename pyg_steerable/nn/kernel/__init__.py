"""Steerable bases, and the kernel on top of them."""
from .basis import SteerableBasis
from .harmonic import HarmonicBasis
from .implicit import ImplicitBasis
from .kernel import SteerableKernel
from .lattice import LatticeKernel, lattice_harmonics

__all__ = ['SteerableBasis', 'HarmonicBasis', 'ImplicitBasis',
           'SteerableKernel', 'LatticeKernel', 'lattice_harmonics']
