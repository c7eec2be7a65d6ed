"""Datasets in the form that the layers and examples here expect."""
from pyg_steerable.datasets.amino import AminoAcidEnvironments
from pyg_steerable.datasets.cath import CathDomains, load_cath
from pyg_steerable.datasets.densities import (
    GaussianDensities,
    gaussian_densities,
)
from pyg_steerable.datasets.meshes import load_mesh
from pyg_steerable.datasets.ogb import OGBFeatures
from pyg_steerable.datasets.points import (
    PointClouds,
    generate_shapes,
    load_points,
)
from pyg_steerable.datasets.qm9 import (
    TARGETS,
    QM9Molecules,
    Split,
    Target,
    load_qm9,
    split_qm9,
)
from pyg_steerable.datasets.shrec17 import (
    MeshToVoxels,
    Shrec17Meshes,
    mean_average_precision,
    retrieve,
    write_retrieval_lists,
)
from pyg_steerable.datasets.tetris import (
    TETRIS,
    tetris_points,
    tetris_voxels,
)
from pyg_steerable.datasets.voxels import (
    VoxelData,
    VoxelGrids,
    load_voxels,
    rotate_voxels,
)

__all__ = classes = [
    'AminoAcidEnvironments',
    'CathDomains',
    'GaussianDensities',
    'MeshToVoxels',
    'OGBFeatures',
    'PointClouds',
    'QM9Molecules',
    'Shrec17Meshes',
    'Split',
    'TARGETS',
    'TETRIS',
    'Target',
    'VoxelData',
    'VoxelGrids',
    'gaussian_densities',
    'generate_shapes',
    'load_cath',
    'load_mesh',
    'load_points',
    'load_qm9',
    'load_voxels',
    'mean_average_precision',
    'retrieve',
    'rotate_voxels',
    'split_qm9',
    'tetris_points',
    'tetris_voxels',
    'write_retrieval_lists',
]
