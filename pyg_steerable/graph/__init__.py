"""From raw data to graphs."""
from .lattice import (
    GraphToVoxel,
    LatticeData,
    Stencil,
    VoxelToGraph,
    graph_to_voxel,
    lattice_graph,
    voxel_to_graph,
)
from .neighbors import knn, knn_graph, nearest, radius, radius_graph
from .sampling import fps
from .shift import edge_shift
from .transforms import (
    AnisotropicScale,
    Jitter,
    KNNGraph,
    Normalise,
    RadiusGraph,
    RandomGroupElement,
    RandomPointSubset,
)

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
    'RandomGroupElement',
    'RandomPointSubset',
    'Jitter',
    'AnisotropicScale',
    'Normalise',
]
