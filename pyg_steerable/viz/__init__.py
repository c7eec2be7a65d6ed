r"""Pictures: kernels, and equivariance as a movie.

.. code-block:: python

    plot_arrows({'k': conv}, vector=(0, 0, 1)).savefig('arrows.png')
    plot_slices(conv).savefig('slices.png')
    equivariance_movie('movie.gif')

All of them at once: ``python -m pyg_steerable.viz --out pictures``. They need
matplotlib, which nothing else here does.
"""
from .command import main
from .kernels import (
    kernel_of,
    plot_arrows,
    plot_slices,
    sample_plane,
    vector_kernels,
)
from .movie import (
    Frame,
    SteerableDemo,
    changes,
    equivariance_movie,
    plain_demo,
    rotated_frames,
)

__all__ = [
    'kernel_of',
    'sample_plane',
    'plot_slices',
    'plot_arrows',
    'vector_kernels',
    'SteerableDemo',
    'plain_demo',
    'Frame',
    'rotated_frames',
    'changes',
    'equivariance_movie',
    'main',
]
