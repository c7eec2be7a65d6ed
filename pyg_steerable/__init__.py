"""Steerable convolutions for any closed subgroup of O(3), for PyG."""
from .fields import FieldType, Representation
from .groups import Group

__version__ = '0.1.0'

__all__ = ['Group', 'FieldType', 'Representation', '__version__']
