"""Bases of equivariant maps: the names of
:mod:`pyg_steerable.symmetry.intertwiners`.
"""
from .symmetry.intertwiners import bilinear_basis, linear_basis

__all__ = ['bilinear_basis', 'linear_basis']
