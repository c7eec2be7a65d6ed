"""Steerable convolutions for any closed subgroup of O(3), for PyG."""
from .symmetry.fields import FieldType
from .symmetry.groups import Group
from .symmetry.representations import Representation

__version__ = '0.1.0'

__all__ = ['Group', 'FieldType', 'Representation', '__version__']
