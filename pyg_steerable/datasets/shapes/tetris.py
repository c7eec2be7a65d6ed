r"""The Tetris shapes of the `"3D Steerable CNNs"
<https://arxiv.org/abs/1807.02547>`_ paper: eight classes of four cells each,
two of them mirror images of each other.

They lie in a block of :math:`4^3` cells, as voxels and as points (the
centres of the cells), and rotate about its centre. The same seed turns both
alike.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ... import checks
from ...symmetry.groups import Group
from .points import PointClouds
from .rotation import rotate_voxels
from .voxels import VoxelGrids

__all__ = ['TETRIS', 'tetris_points', 'tetris_voxels']

#: The cells *(x, y, z)* of each shape.
TETRIS = {
    'chiral_1': ((0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)),
    'chiral_2': ((0, 1, 0), (0, 1, 1), (1, 1, 0), (1, 0, 0)),
    'square': ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)),
    'line': ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)),
    'corner': ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),
    'l': ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)),
    't': ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)),
    'zigzag': ((0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)),
}
_SIDE = 4


def tetris_points(copies: int = 1, group: Group | str = 'SO(3)',
                  seed: int = 0, transform: Callable | None = None
                  ) -> PointClouds:
    r"""The shapes as clouds of four points, in units of a cell.

    Args:
        copies (int, optional): How often each shape occurs, each time with a
            rotation of its own; shapes take turns. (default: :obj:`1`)
        group (Group or str, optional): Where rotations come from:
            :obj:`"SO(3)"`, :obj:`"O"` for the 24 of a cube, :obj:`"1"` for
            none, or any other. (default: :obj:`"SO(3)"`)
        seed (int, optional): Of the rotations. (default: :obj:`0`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        ValueError: If the group has reflections, which would turn one
            chiral shape into the other.
    """
    rotations, label = _rotations(copies, group, seed)
    cells = torch.tensor(list(TETRIS.values()), dtype=torch.float64)
    points = (cells - (_SIDE - 1) / 2)[label] @ rotations.mT
    return PointClouds(points, label, list(TETRIS), transform)


def tetris_voxels(copies: int = 1, group: Group | str = 'SO(3)',
                  seed: int = 0, transform: Callable | None = None, *,
                  cell: int = 5, pad: int = 8) -> VoxelGrids:
    r"""The shapes as voxels, as in the paper: cells of :math:`5^3` voxels,
    8 voxels of zeros around the block, :math:`[1, 36, 36, 36]` in all;
    rotations by cubic splines.

    Args:
        copies, group, seed, transform: See :func:`tetris_points`. The paper
            trains with one copy and tests with a hundred, of another seed.
        cell (int, optional): The voxels along each side of a cell.
            (default: :obj:`5`)
        pad (int, optional): The voxels of zeros on each side of the block.
            (default: :obj:`8`)

    Raises:
        ValueError: If the group has reflections, or a size is negative.
    """
    cell = checks.integer('cell', cell)
    pad = checks.integer('pad', pad, 0)
    copies = checks.integer('copies', copies)
    side = _SIDE * cell + 2 * pad
    checks.amount('grids', len(TETRIS), copies, side, side, side)
    rotations, label = _rotations(copies, group, seed)
    grids = torch.zeros(len(TETRIS), _SIDE, _SIDE, _SIDE)
    for grid, cells in zip(grids, TETRIS.values()):
        for x, y, z in cells:
            grid[z, y, x] = 1.
    for axis in (1, 2, 3):
        grids = grids.repeat_interleave(cell, axis)
    grids = torch.nn.functional.pad(grids, 6 * [pad])
    voxels = torch.stack([rotate_voxels(grids[i], R)
                          for i, R in zip(label, rotations)])
    return VoxelGrids(voxels.unsqueeze(1), label, list(TETRIS), transform)


def _rotations(copies: int, group: Group | str, seed: int
               ) -> tuple[Tensor, Tensor]:
    """A rotation and a label for each shape."""
    copies = checks.integer('copies', copies)
    checks.amount('rotations', len(TETRIS), copies, 9)
    seed = checks.integer('seed', seed, -2**63, 2**63 - 1)
    if not isinstance(group, Group):
        group = Group.wrap(checks.text('group', group))
    if not group.is_subgroup_of('SO(3)'):
        raise ValueError(f"Expected a 'group' of rotations (got {group}): a "
                         f"reflection turns 'chiral_1' into 'chiral_2'")
    generator = torch.Generator('cpu').manual_seed(seed)
    label = torch.arange(len(TETRIS)).repeat(copies)
    return group.sample(len(label), generator=generator), label
