"""Fewer points of each cloud: at random, or far from each other.

PyG's ``decimation_indices`` is not used: it takes sorted clouds and rounds
their sizes down, has no generator, and waits once for each cloud of a batch.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from .batch import read_batch
from .fps import fps


def random_downsample(pos: Tensor, batch: Tensor | None = None,
                      ratio: float = 0.5,
                      generator: torch.Generator | None = None) -> Tensor:
    r"""Chooses :math:`\lceil ratio \cdot n \rceil` of the :math:`n` points of
    every cloud at random, whatever their positions.

    Args:
        pos (Tensor): The points.
        batch (Tensor, optional): The cloud of each point, in any order.
            (default: :obj:`None`)
        ratio (float, optional): The share to keep. (default: :obj:`0.5`)
        generator (torch.Generator, optional): The source of randomness.
            (default: torch's global one)

    Shapes:
        - **pos:** :math:`[N, 3]`, **batch:** :math:`[N]`
        - **output:** :math:`[n]`, cloud after cloud, indices in increasing
          order in each

    Raises:
        ValueError: If :obj:`ratio` is not in (0, 1] or :obj:`batch` has
            another length.
    """
    ratio = checks.real('ratio', ratio, above=0., most=1.)
    checks.positions('pos', pos)
    checks.has_values('pos', pos, 'the choice')
    checks.generator('generator', generator)
    batch, size = read_batch(batch, pos, None)
    device = pos.device if generator is None else generator.device
    order = torch.randperm(len(pos), generator=generator,
                           device=device).to(pos.device)
    order = order[batch[order].argsort(stable=True)]
    count = batch.bincount(minlength=size)
    # Products such as 0.07 * 100 are a rounding error too large.
    keep = (ratio * count.double() - 1e-6).ceil().long().clamp(min=1)
    rank = torch.arange(len(pos), device=pos.device) - (
        count.cumsum(0) - count)[batch[order]]
    index = order[rank < keep[batch[order]]].sort().values
    return index[batch[index].argsort(stable=True)]


def farthest_downsample(pos: Tensor, batch: Tensor | None = None,
                        ratio: float = 0.5, random_start: bool = True
                        ) -> Tensor:
    r"""Chooses :math:`\lceil ratio \cdot n \rceil` of the :math:`n` points of
    every cloud, each the farthest from those before it: the name, next to
    :func:`random_downsample`, of :func:`~pyg_steerable.graph.fps`. Given the
    first, the choice is the same for a rotated or reflected cloud.

    Args:
        pos (Tensor): The points.
        batch (Tensor, optional): The cloud of each point, in any order.
            (default: :obj:`None`)
        ratio (float, optional): The share to keep. (default: :obj:`0.5`)
        random_start (bool, optional): Start at a random point of each cloud
            and not at its first. (default: :obj:`True`)

    Shapes:
        - **pos:** :math:`[N, 3]`, **batch:** :math:`[N]`
        - **output:** :math:`[n]`, cloud after cloud, in the order of choice
          in each

    Raises:
        ValueError: If :obj:`ratio` is not in (0, 1] or :obj:`batch` has
            another length.
    """
    return fps(pos, batch, ratio, random_start)
