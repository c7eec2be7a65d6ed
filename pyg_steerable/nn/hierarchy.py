"""A point cloud at several resolutions."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from ..graph import knn
from .pool import farthest_downsample, random_downsample, read_batch

SAMPLING = ('random', 'fps')


class Level(NamedTuple):
    """One resolution of a cloud, and how it hangs on the one before."""
    index: Tensor  #: its points, among those of the level before, [n]
    pos: Tensor  #: [n, 3]
    batch: Optional[Tensor]  #: the cloud of each point, [n]
    edge_index: Tensor  #: from points before to points here, [2, E]


@torch.compiler.disable
@torch.no_grad()
def hierarchy(pos: Tensor, batch: Tensor | None = None,
              ratios: Sequence[float] = (0.5, 0.5), k: int = 15,
              sampling: str = 'random') -> list[Level]:
    r"""Thins clouds out step by step. Each point that is left has edges from
    its :obj:`k` nearest among the points before the step (itself among
    them): the graphs of the network of `"Implicit Neural Convolutional
    Kernels" <https://arxiv.org/abs/2212.06096>`_, section 5.2.

    Distances alone decide on the edges, so that they are the same for a
    rotated or reflected cloud with the same points left.

    Args:
        pos (Tensor): The points.
        batch (Tensor, optional): The cloud of each point.
            (default: :obj:`None`)
        ratios (list[float], optional): The share of points that each step
            keeps; every cloud keeps at least one. (default: two halvings)
        k (int, optional): The number of neighbours; fewer, with a warning,
            where a cloud has no more. (default: :obj:`15`)
        sampling (str, optional): :obj:`"random"` or :obj:`"fps"`, farthest
            points. (default: :obj:`"random"`)

    Shapes:
        - **pos:** :math:`[N, 3]`, **batch:** :math:`[N]` in any order

    Raises:
        ValueError: If an argument does not fit, or a position is not finite.
    """
    if sampling not in SAMPLING:
        raise ValueError(f"Expected 'sampling' to be one of {SAMPLING} (got "
                         f"{sampling!r})")
    pick = random_downsample if sampling == 'random' else farthest_downsample
    if batch is not None:
        batch, _ = read_batch(batch, pos, None)
    levels = []
    for ratio in ratios:
        index = (torch.arange(len(pos), device=pos.device) if ratio == 1 else
                 pick(pos, batch, ratio))
        here = pos[index], None if batch is None else batch[index]
        target, source = knn(pos, here[0], k, batch, here[1])
        levels.append(Level(index, *here, torch.stack([source, target])))
        pos, batch = here
    return levels
