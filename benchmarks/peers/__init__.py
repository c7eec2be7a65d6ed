"""Networks for the tasks of benchmarks.accuracy: ours and those that a user
would take instead, one file each.
"""
from . import descriptor, egnn, ours, painn, pointnet2, schnet  # noqa: F401
from .network import NETWORKS, Network
from .tasks import TASKS, Task

__all__ = ['NETWORKS', 'Network', 'TASKS', 'Task']
