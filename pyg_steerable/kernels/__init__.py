"""Steerable bases, and the kernel on top of them."""
from .basis import SteerableBasis
from .harmonic import HarmonicBasis
from .implicit import ImplicitBasis
from .kernel import SteerableKernel

__all__ = ['SteerableBasis', 'HarmonicBasis', 'ImplicitBasis',
           'SteerableKernel']
