"""Which voxels of a grid each voxel of the output sees."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import checks
from ...ops.lattice_edges import cube

#: Voxels along an axis: the number of a voxel stays below 2^63.
MAX_SIDE = 2**20
#: Of a stencil along an axis: two million offsets.
MAX_STENCIL = 127


@dataclass(frozen=True)
class Stencil:
    r"""Which voxels of a grid each voxel of the output sees: with stencil
    size :math:`s`, stride :math:`t` and padding :math:`p`,

    .. math::
        \mathbf{o} \leftarrow t \, \mathbf{o} - p + \mathbf{k}, \qquad
        \mathbf{k} \in \{0, \ldots, s - 1\}^3

    as in :func:`torch.nn.functional.conv3d`. The offsets
    :math:`\mathbf{k}` are numbered with the last one running fastest.

    Args:
        grid (tuple[int]): The numbers of voxels *(D, H, W)*.
        kernel_size (int, optional): The stencil size :math:`s`, odd.
            (default: :obj:`3`)
        stride (int, optional): (default: :obj:`1`)
        padding (int, optional): (default: :obj:`kernel_size // 2`)
        spacing (float or tuple[float], optional): The distance of voxels
            along *(z, y, x)*. (default: :obj:`1.0`)

    Raises:
        ValueError: If the stencil is even or larger than the grid, or
            another size does not fit.
    """
    grid: tuple[int, int, int]
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    spacing: float | tuple[float, float, float] = 1.

    def __post_init__(self):
        if not _is_sequence(self.grid) or len(self.grid) != 3:
            raise ValueError(f"Expected 'grid' to be three positive integers, "
                             f"the voxels (D, H, W) (got "
                             f"{checks.show(self.grid)})")
        grid = tuple(checks.integer('grid', n, 1, MAX_SIDE)
                     for n in self.grid)  # (D, H, W)
        numbers = check_stencil(self.kernel_size, self.stride, self.padding,
                                self.spacing)
        check_fits(numbers[0], grid)
        for name, value in zip(('grid', 'kernel_size', 'stride', 'padding',
                                'spacing'), (grid, *numbers)):
            object.__setattr__(self, name, value)

    def __reduce__(self):
        # Stencils of files are checked like any others.
        return Stencil, (self.grid, self.kernel_size, self.stride,
                         self.padding, self.spacing)

    @property
    def num_offsets(self) -> int:
        """The number of offsets, of :math:`s^3`."""
        return self.kernel_size**3

    @property
    def padded(self) -> tuple[int, ...]:
        """The grid with its padding."""
        return tuple(n + 2 * self.padding for n in self.grid)

    @property
    def out_grid(self) -> tuple[int, ...]:
        """The grid of the output."""
        return tuple((n - self.kernel_size) // self.stride + 1
                     for n in self.padded)

    @property
    def shift(self) -> int:
        """The voxel at the centre of the stencil of the first output."""
        return self.kernel_size // 2 - self.padding

    @property
    def keeps_sites(self) -> bool:
        """Whether the output lies on the same voxels."""
        return self.stride == 1 and self.shift == 0

    def offsets(self) -> Tensor:
        r"""All :math:`\mathbf{k}`, :math:`[s^3, 3]`."""
        return cube(self.kernel_size)


def check_stencil(kernel_size, stride, padding, spacing) -> tuple:
    """The four with defaults filled in; raises an error unless they fit."""
    size = checks.integer('kernel_size', kernel_size, 1, MAX_STENCIL)
    if size % 2 == 0:
        raise ValueError(f"Expected 'kernel_size' to be an odd integer (got "
                         f"{size}). An even stencil has no voxel at its "
                         f"centre; take one more or one less")
    stride = checks.integer('stride', stride, 1, MAX_SIDE)
    padding = (size // 2 if padding is None else
               checks.integer('padding', padding, 0, MAX_SIDE // 4))
    if not _is_sequence(spacing):
        spacing = 3 * (spacing, )
    if len(spacing) != 3:
        raise ValueError(f"Expected 'spacing' to be a positive number, or "
                         f"three of them along (z, y, x) (got "
                         f"{checks.show(spacing)})")
    steps = tuple(checks.positive('spacing', a) for a in spacing)
    return size, stride, padding, steps


def check_fits(kernel_size: int, grid: Sequence[int]) -> None:
    """Raises a ValueError if the stencil is larger than the grid."""
    if kernel_size > min(grid):
        raise ValueError(f"Expected a 'kernel_size' of at most the size of "
                         f"the grid, {tuple(grid)} (got {kernel_size}). Pad "
                         f"the voxels with zeros or take a smaller stencil")


def _is_sequence(value) -> bool:
    """Lists, tuples, arrays and vectors, but no numbers and no strings."""
    return (hasattr(value, '__len__') and not isinstance(value, (str, dict))
            and getattr(value, 'ndim', 1) == 1)


# Lattices are stored with their stencil.
torch.serialization.add_safe_globals([Stencil])
