"""Datasets in the form that the layers and examples here expect."""
from pyg_steerable.datasets.ogb import OGBFeatures
from pyg_steerable.datasets.proteins.amino import AminoAcidEnvironments
from pyg_steerable.datasets.proteins.cath import CathDomains, load_cath
from pyg_steerable.datasets.qm9.molecules import (
    TARGETS,
    QM9Molecules,
    Split,
    Target,
    load_qm9,
    split_qm9,
)
from pyg_steerable.datasets.shapes.densities import (
    GaussianDensities,
    gaussian_densities,
)
from pyg_steerable.datasets.shapes.meshes import load_mesh
from pyg_steerable.datasets.shapes.points import (
    PointClouds,
    generate_shapes,
    load_points,
)
from pyg_steerable.datasets.shapes.shrec17 import MeshToVoxels, Shrec17Meshes
from pyg_steerable.datasets.shapes.tetris import (
    TETRIS,
    tetris_points,
    tetris_voxels,
)
from pyg_steerable.datasets.shapes.voxels import (
    VoxelData,
    VoxelGrids,
    load_voxels,
    rotate_voxels,
)
from pyg_steerable.metrics.retrieval import (
    mean_average_precision,
    retrieve,
    write_retrieval_lists,
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
