"""The papers' networks, one file each."""
from .qm9 import QM9Net

__all__ = ['QM9Net']
