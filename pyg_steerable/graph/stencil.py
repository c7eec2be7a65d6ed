"""Which voxels of a grid each voxel of the output sees."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


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
        grid = tuple(int(n) for n in self.grid)
        if len(grid) != 3 or min(grid) < 1 or grid != tuple(self.grid):
            raise ValueError(f"Expected 'grid' to be three positive integers, "
                             f"the voxels (D, H, W) (got {self.grid})")
        size, stride, padding, spacing = check_stencil(
            self.kernel_size, self.stride, self.padding, self.spacing)
        check_fits(size, grid)
        for name, value in (('grid', grid), ('padding', padding),
                            ('spacing', spacing)):
            object.__setattr__(self, name, value)

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
        return torch.tensor(list(product(range(self.kernel_size), repeat=3)))


def check_stencil(kernel_size, stride, padding, spacing) -> tuple:
    """The four with defaults filled in; raises an error unless they fit."""
    if not _is_int(kernel_size) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"Expected 'kernel_size' to be an odd integer (got "
                         f"{kernel_size}). An even stencil has no voxel at "
                         f"its centre; take one more or one less")
    if not _is_int(stride) or stride < 1:
        raise ValueError(f"Expected 'stride' to be a positive integer (got "
                         f"{stride})")
    padding = kernel_size // 2 if padding is None else padding
    if not _is_int(padding) or padding < 0:
        raise ValueError(f"Expected 'padding' to be an integer >= 0, or None "
                         f"for half of the stencil (got {padding})")
    number = isinstance(spacing, (int, float))
    steps = tuple(float(a) for a in (3 * (spacing, ) if number else spacing))
    if len(steps) != 3 or not all(0 < a < float('inf') for a in steps):
        raise ValueError(f"Expected 'spacing' to be a positive number, or "
                         f"three of them along (z, y, x) (got {spacing})")
    return kernel_size, stride, padding, steps


def check_fits(kernel_size: int, grid: Sequence[int]) -> None:
    """Raises a ValueError if the stencil is larger than the grid."""
    if kernel_size > min(grid):
        raise ValueError(f"Expected a 'kernel_size' of at most the size of "
                         f"the grid, {tuple(grid)} (got {kernel_size}). Pad "
                         f"the voxels with zeros or take a smaller stencil")


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
