"""From raw data to graphs."""
from .lattice.data import LatticeData, lattice_graph
from .lattice.stencil import GridStencil, Stencil
from .lattice.voxels import graph_to_voxel, voxel_to_graph
from .points.fps import fps
from .points.neighbors import knn, knn_graph, nearest, radius, radius_graph
from .points.shift import edge_shift
from .transforms.graphs import KNNGraph, RadiusGraph
from .transforms.group_element import RandomGroupElement
from .transforms.jitter import Jitter
from .transforms.normalise import Normalise
from .transforms.scale import AnisotropicScale
from .transforms.subset import RandomPointSubset
from .transforms.voxels import GraphToVoxel, VoxelToGraph

__all__ = [
    'fps',
    'knn',
    'knn_graph',
    'nearest',
    'radius',
    'radius_graph',
    'edge_shift',
    'RadiusGraph',
    'KNNGraph',
    'VoxelToGraph',
    'GraphToVoxel',
    'voxel_to_graph',
    'graph_to_voxel',
    'lattice_graph',
    'LatticeData',
    'Stencil',
    'GridStencil',
    'RandomGroupElement',
    'RandomPointSubset',
    'Jitter',
    'AnisotropicScale',
    'Normalise',
]
