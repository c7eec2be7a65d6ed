"""A point cloud at several resolutions."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from ... import checks
from .batch import read_batch
from .downsample import farthest_downsample, random_downsample
from .neighbors import knn
from .shift import edge_shift

SAMPLING = ('random', 'fps')


class Level(NamedTuple):
    """One resolution of a cloud, and the edges that lead to it."""
    index: Tensor  # type: ignore[assignment]  #: its points, among those of the level before, [n]
    pos: Tensor  #: [n, 3]
    batch: Optional[Tensor]  #: the cloud of each point, [n]
    edge_index: Tensor  #: from points before to points here, [2, E]
    edge_shift: Optional[Tensor] = None  #: to periodic images, [E, 3]
    periodic: Optional[dict] = None  #: the arguments cell and pbc of searches


@torch.compiler.disable
@torch.no_grad()
def hierarchy(pos: Tensor, batch: Tensor | None = None,
              ratios: Sequence[float] = (0.5, 0.5), k: int = 15,
              sampling: str = 'random', *, cell: Tensor | None = None,
              pbc: bool | Sequence[bool] = True) -> list[Level]:
    r"""Thins clouds out step by step. Each point that is left has edges from
    its :obj:`k` nearest among the points before the step (itself among
    them): the graphs of the network of `"Implicit Neural Convolutional
    Kernels" <https://arxiv.org/abs/2212.06096>`_, section 5.2.

    Distances alone decide on the edges, so that they are the same for a
    rotated or reflected cloud with the same points left. With a cell,
    periodic images count, and each edge has the vector that leads to its
    image (:func:`~pyg_steerable.graph.edge_shift`).

    Args:
        pos (Tensor): The points.
        batch (Tensor, optional): The cloud of each point.
            (default: :obj:`None`)
        ratios (list[float], optional): The share of points that each step
            keeps; every cloud keeps at least one. (default: two halvings)
        k (int, optional): The number of neighbours; fewer, with a warning,
            where a cloud has no more. (default: :obj:`15`)
        sampling (str, optional): :obj:`"random"` or :obj:`"fps"`, farthest
            points, which know no cells. (default: :obj:`"random"`)
        cell (Tensor, optional): Lattice vectors as rows, of one or of every
            cloud. (default: :obj:`None`)
        pbc (bool or list, optional): The axes along which cells repeat.
            (default: :obj:`True`)

    Shapes:
        - **pos:** :math:`[N, 3]`, **batch:** :math:`[N]` in any order,
          **cell:** :math:`[3, 3]` or :math:`[B, 3, 3]`

    Raises:
        ValueError: If an argument does not fit, or a position is not finite.
    """
    checks.choice('sampling', sampling, SAMPLING)
    if sampling == 'fps' and cell is not None:
        raise ValueError("Expected 'sampling' to be 'random' with a 'cell' "
                         "(got 'fps'): farthest points know no images")
    ratios = read_ratios(ratios)
    checks.positions('pos', pos)
    checks.has_values('pos', pos, 'the graph')
    periodic = None if cell is None else {'cell': cell, 'pbc': pbc}
    pick = random_downsample if sampling == 'random' else farthest_downsample
    if batch is not None:
        batch, _ = read_batch(batch, pos, None)
    levels = []
    for ratio in ratios:
        index = (torch.arange(len(pos), device=pos.device) if ratio == 1 else
                 pick(pos, batch, ratio))
        here = pos[index], None if batch is None else batch[index]
        found: Any = knn(pos, here[0], k, batch, here[1], cell=cell, pbc=pbc)
        shift = None
        if cell is not None:
            found, offset = found
            shift = edge_shift(offset, cell.double(),
                               None if batch is None or cell.dim() == 2 else
                               batch[found[1]]).to(pos.dtype)
        levels.append(Level(index, *here, found.flip(0), shift, periodic))
        pos, batch = here
    return levels


def read_ratios(ratios) -> tuple[float, ...]:
    """The share that each step keeps."""
    if isinstance(ratios, str) or not isinstance(
            ratios, (Sequence, np.ndarray, Tensor)) or (
            getattr(ratios, 'ndim', 1) != 1):
        raise TypeError(f"Expected 'ratios' to be a list of numbers (got "
                        f"{checks.show(ratios)})")
    return tuple(checks.real('ratios', r, above=0., most=1.) for r in ratios)
