"""What networks are compared on: one task a file."""
from . import modelnet40, nbody, qm9, rmd17, voxels  # noqa: F401
from .task import TASKS, Task

__all__ = ['TASKS', 'Task']
