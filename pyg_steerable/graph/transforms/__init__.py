r"""From point clouds to graphs, and augmentations, as transforms of PyG's
:obj:`Data`.

.. code-block:: python

    transform = T.Compose([
        Normalise(),
        RandomPointSubset(1024),
        RandomGroupElement('SO(2)'),  # rotations about z
        Jitter(0.01, clip=0.05),
        KNNGraph(15),
    ])

They draw from torch's global generator: :obj:`torch.manual_seed` makes them
reproducible, workers of a loader included. Build graphs after them.

Crystals have a :obj:`cell` of shape :math:`[1, 3, 3]` (lattice vectors as
rows) and, if not all axes repeat, :obj:`pbc` of shape :math:`[1, 3]`, so that
a batch holds one for each. :class:`RadiusGraph` and :class:`KNNGraph` then
also write :obj:`edge_shift`, which batches, turns and scales with the rest.
"""
from .bonds import RadiusGraphWithBonds
from .graphs import KNNGraph, RadiusGraph
from .group_element import RandomGroupElement
from .jitter import Jitter
from .normalise import Normalise
from .scale import AnisotropicScale
from .subset import RandomPointSubset
from .voxels import GraphToVoxel, VoxelToGraph

__all__ = [
    'RadiusGraph',
    'RadiusGraphWithBonds',
    'KNNGraph',
    'VoxelToGraph',
    'GraphToVoxel',
    'RandomGroupElement',
    'RandomPointSubset',
    'Jitter',
    'AnisotropicScale',
    'Normalise',
]
