"""From raw data to graphs."""
from . import transforms
from .lattice.data import LatticeData, lattice_graph
from .lattice.stencil import GridStencil, Stencil
from .lattice.voxels import graph_to_voxel, voxel_to_graph
from .points.fps import fps
from .points.neighbors import knn, knn_graph, nearest, radius, radius_graph
from .points.shift import edge_shift
from .transforms import *  # noqa: F403

__all__ = [
    'fps',
    'knn',
    'knn_graph',
    'nearest',
    'radius',
    'radius_graph',
    'edge_shift',
    'voxel_to_graph',
    'graph_to_voxel',
    'lattice_graph',
    'LatticeData',
    'Stencil',
    'GridStencil',
    *transforms.__all__,
]
