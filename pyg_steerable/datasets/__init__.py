"""Datasets in the form that the layers and examples here expect. One more is
a file with :obj:`__all__`, and a line here.
"""
import types

from ..metrics.retrieval import *  # noqa: F403
from .base import *  # noqa: F403
from .nbody import *  # noqa: F403
from .ogb import *  # noqa: F403
from .proteins.amino import *  # noqa: F403
from .proteins.cath import *  # noqa: F403
from .qm9.molecules import *  # noqa: F403
from .rmd17 import *  # noqa: F403
from .shapes.densities import *  # noqa: F403
from .shapes.meshes import *  # noqa: F403
from .shapes.points import *  # noqa: F403
from .shapes.rotation import *  # noqa: F403
from .shapes.shrec17 import *  # noqa: F403
from .shapes.solids import *  # noqa: F403
from .shapes.surface import *  # noqa: F403
from .shapes.tetris import *  # noqa: F403
from .shapes.voxels import *  # noqa: F403

__all__ = classes = sorted(
    name for name, value in globals().items()
    if not name.startswith('_') and not isinstance(value, types.ModuleType))
