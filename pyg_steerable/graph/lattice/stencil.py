"""Which voxels each voxel of the output sees, on any grid and on one."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import prod
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ... import checks
from ...ops.lattice_edges import Triple, box, triple

#: Voxels along an axis: the number of a voxel stays below 2^63.
MAX_SIDE = 2**20
#: Of a stencil along an axis: two million offsets.
MAX_STENCIL = 127


@dataclass(frozen=True, init=False, repr=False)
class Stencil:
    r"""Which voxels each voxel of the output sees: a box. With its sizes
    :math:`\mathbf{s}`, strides :math:`\mathbf{t}` and paddings
    :math:`\mathbf{p}` along *(z, y, x)*,

    .. math::
        \mathbf{o} \leftarrow \mathbf{t} \odot \mathbf{o} - \mathbf{p} +
        \mathbf{k}, \qquad 0 \leq k_a < s_a

    as in :func:`torch.nn.functional.conv3d`. The offsets
    :math:`\mathbf{k}` are numbered with the last one running fastest. Each
    argument is one number or three of them along *(z, y, x)*, and three from
    then on. A box of *(1, 5, 5)* is planar: on grids one voxel thick it is a
    window on images.

    Args:
        kernel_size (int or tuple[int], optional): The sizes
            :math:`\mathbf{s}`, odd. (default: :obj:`3`)
        stride (int or tuple[int], optional): One number is that of the axes
            along which the box is more than one voxel thick, of the others
            it is one; a box of one voxel takes it along all.
            (default: :obj:`1`)
        padding (int or tuple[int], optional): Voxels of zeros on both sides
            of the grid; one number as for :obj:`stride`, with zero along the
            others. (default: :obj:`kernel_size // 2`)
        spacing (float or tuple[float], optional): The distance of voxels.
            (default: :obj:`1.0`)

    Raises:
        ValueError: If a size is even, or not positive.
    """
    kernel_size: Triple
    stride: Triple
    padding: Triple
    spacing: tuple[float, float, float]

    def __init__(self, kernel_size: int | Sequence[int] = 3,
                 stride: int | Sequence[int] = 1,
                 padding: int | Sequence[int] | None = None,
                 spacing: float | Sequence[float] = 1.):
        size = _three('kernel_size', kernel_size, 1, MAX_STENCIL)
        if not all(s % 2 for s in size):
            raise ValueError(
                f"Expected 'kernel_size' to be an odd integer, or three of "
                f"them (got {short(size)}). An even stencil has no voxel at "
                f"its centre; take one more or one less")
        thick = [s > 1 or max(size) == 1 for s in size]
        own: dict[str, tuple] = {
            'kernel_size': size,
            'stride': _three('stride', stride, 1, MAX_SIDE, thick),
            'padding': (triple(s // 2 for s in size) if padding is None else
                        _three('padding', padding, 0, MAX_SIDE // 4, thick)),
        }
        lengths: Sequence = (spacing if _is_sequence(spacing) else
                             3 * (spacing, ))
        if len(lengths) != 3:
            raise ValueError(f"Expected 'spacing' to be a positive number, "
                             f"or three of them along (z, y, x) (got "
                             f"{checks.show(lengths)})")
        own['spacing'] = triple(checks.positive('spacing', a)
                                for a in lengths)
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def __reduce__(self):
        # Stencils of files are checked like any others.
        return Stencil, astuple(self)

    @property
    def num_offsets(self) -> int:
        r"""The number of offsets, :math:`s_z s_y s_x`."""
        return prod(self.kernel_size)

    @property
    def shift(self) -> Triple:
        """The voxel at the centre of the box of the first output."""
        return triple(s // 2 - p
                      for s, p in zip(self.kernel_size, self.padding))

    @property
    def ratios(self) -> tuple[float, float, float]:
        """The spacing in units of the smallest along which the box is more
        than one voxel thick, and one along the others.
        """
        thick = [a for a, s in zip(self.spacing, self.kernel_size) if s > 1]
        return triple(a / min(thick) if s > 1 else 1.
                      for a, s in zip(self.spacing, self.kernel_size))

    def offsets(self) -> Tensor:
        r"""All :math:`\mathbf{k}`, :math:`[K, 3]`."""
        return box(self.kernel_size)

    def positions(self) -> Tensor:
        r"""The positions *(x, y, z)* of all offsets relative to the centre,
        in units of the smallest spacing along which the box is more than
        one voxel thick, :math:`[K, 3]` float64.
        """
        centre = torch.tensor([s // 2 for s in self.kernel_size],
                              device='cpu')
        step = torch.tensor(self.ratios, dtype=torch.float64, device='cpu')
        offsets = box(self.kernel_size, 'cpu')
        return ((offsets - centre) * step).flip(-1)

    def on(self, grid: Sequence[int]) -> GridStencil:
        """The stencil on a grid.

        Args:
            grid (tuple[int]): The numbers of voxels *(D, H, W)*.
        """
        return GridStencil(self, grid)

    def __repr__(self) -> str:
        parts = ', '.join(f'{name}={short(value)}'
                          for name, value in vars(self).items())
        return f'{type(self).__name__}({parts})'


@dataclass(frozen=True, init=False)
class GridStencil:
    """A stencil on a grid: which voxels there are for it, and which come
    out. Made by :meth:`Stencil.on`.

    Args:
        stencil (Stencil): The stencil.
        grid (tuple[int]): The numbers of voxels *(D, H, W)*.

    Raises:
        ValueError: If the stencil is larger than the grid.
    """
    stencil: Stencil
    grid: Triple

    def __init__(self, stencil: Stencil, grid: Sequence[int]):
        if not isinstance(stencil, Stencil):
            raise TypeError(f"Expected 'stencil' to be a Stencil (got "
                            f"{checks.show(stencil)})")
        if not _is_sequence(grid) or len(grid) != 3:
            raise ValueError(f"Expected 'grid' to be three positive integers, "
                             f"the voxels (D, H, W) (got "
                             f"{checks.show(grid)})")
        numbers = triple(checks.integer('grid', n, 1, MAX_SIDE) for n in grid)
        check_fits(stencil, numbers)
        object.__setattr__(self, 'stencil', stencil)
        object.__setattr__(self, 'grid', numbers)

    def __reduce__(self):
        return GridStencil, (self.stencil, self.grid)

    @property
    def padded(self) -> Triple:
        """The grid with its padding."""
        return triple(n + 2 * p
                      for n, p in zip(self.grid, self.stencil.padding))

    @property
    def out_grid(self) -> Triple:
        """The grid of the output."""
        own = self.stencil
        return triple((n - s) // t + 1 for n, s, t in zip(
            self.padded, own.kernel_size, own.stride))

    @property
    def shift(self) -> Triple:
        """See :attr:`Stencil.shift`."""
        return self.stencil.shift

    @property
    def keeps_sites(self) -> bool:
        """Whether the output lies on the same voxels."""
        return self.grid == self.out_grid and not any(self.shift)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Grid, sizes, strides and paddings, one after the other."""
        own = self.stencil
        return *self.grid, *own.kernel_size, *own.stride, *own.padding


def check_fits(stencil: Stencil, grid: Sequence[int]) -> None:
    """Raises a ValueError if the stencil is larger than the grid."""
    if any(s > n for s, n in zip(stencil.kernel_size, grid)):
        raise ValueError(f"Expected a 'kernel_size' of at most the size of "
                         f"the grid, {tuple(grid)} (got "
                         f"{short(stencil.kernel_size)}). Pad the voxels "
                         f"with zeros or take a smaller stencil")


def check_same_box(own: Stencil, given: Stencil, whose: str) -> None:
    """Raises a ValueError unless a lattice has the stencil of a layer, but
    for the distances of voxels.
    """
    sizes, others = ((s.kernel_size, s.stride, s.padding)
                     for s in (own, given))
    if sizes != others:
        wanted, got = ('{}, {} and {}'.format(*map(short, numbers))
                       for numbers in (sizes, others))
        raise ValueError(f"Expected a lattice with the {whose}'s "
                         f"'kernel_size', 'stride' and 'padding', {wanted} "
                         f"(got {got}). Build it with the same numbers")


def short(three: tuple):
    """Three numbers for a message, as one where all are the same."""
    return three[0] if len(set(three)) == 1 else three


def _three(name: str, value, least: int, most: int,
           thick: Sequence[bool] = (True, True, True)) -> Triple:
    """Three integers from three or from one, which is that of thick axes."""
    if not _is_sequence(value):
        value = checks.integer(name, value, least, most)
        return triple(value if is_thick else least for is_thick in thick)
    if len(value) != 3:
        raise ValueError(f"Expected '{name}' to be an integer, or three of "
                         f"them along (z, y, x) (got {checks.show(value)})")
    return triple(checks.integer(name, n, least, most) for n in value)


def _is_sequence(value) -> TypeGuard[Sequence[Any]]:
    """Lists, tuples, arrays and vectors, but no numbers and no strings."""
    return (hasattr(value, '__len__') and not isinstance(value, (str, dict))
            and getattr(value, 'ndim', 1) == 1)


# Files name both by their public place, wherever their source is.
Stencil.__module__ = GridStencil.__module__ = 'pyg_steerable.graph'
# Lattices are stored with their stencil.
torch.serialization.add_safe_globals([Stencil, GridStencil])
