"""Networks for the tasks of benchmarks.accuracy: ours and those that a user
would take instead, one file each.
"""
from . import (  # noqa: F401
    descriptor,
    egnn,
    nequip,
    ours,
    painn,
    pointnet2,
    schnet,
    voxels,
)
from .network import NETWORKS, Network

__all__ = ['NETWORKS', 'Network']
