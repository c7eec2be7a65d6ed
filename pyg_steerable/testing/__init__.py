r"""Measuring equivariance, and a battery of tests to inherit from.

.. code-block:: python

    from pyg_steerable.testing import assert_equivariant, equivariance_error

    assert_equivariant(conv)                # under the group of its types
    equivariance_error(conv, 'O(3)')        # is it more symmetric than that?
"""
from ..symmetry.grid import Voxels, cube_symmetries
from .battery import EquivariantLayerTests
from .cases import Case, make_case
from .equivariance import TOLERANCE, assert_equivariant, equivariance_error

__all__ = [
    'assert_equivariant',
    'equivariance_error',
    'EquivariantLayerTests',
    'make_case',
    'Case',
    'Voxels',
    'cube_symmetries',
    'TOLERANCE',
]
