"""Farthest point sampling."""
from __future__ import annotations

import torch
from torch import Tensor

from .clouds import Clouds, read_clouds
from .engines import Compiled, choose_engine
from .search import ROUNDINGS


@torch.compiler.disable
def fps(x: Tensor, batch: Tensor | None = None, ratio: float = 0.5,
        random_start: bool = True, batch_size: int | None = None, *,
        engine: str = 'auto') -> Tensor:
    r"""Farthest point sampling of `"PointNet++: Deep Hierarchical Feature
    Learning on Point Sets in a Metric Space"
    <https://arxiv.org/abs/1706.02413>`_: from each cloud, again and again the
    point that is farthest from all points chosen before; :math:`\lceil
    \mathrm{ratio} \cdot n \rceil` of its n points.

    Of points that are equally far, within the rounding of a rotation, the one
    of smallest index is taken, so that a rotated cloud has the same sample.
    The operators of pyg-lib and torch_cluster, which are used on a GPU if
    they are installed, do not promise that: name the engine
    :obj:`'torch'` if it matters.

    Args:
        x (torch.Tensor): Positions, float32 or float64.
        batch (torch.Tensor, optional): The cloud of each point, in any
            order. (default: :obj:`None`)
        ratio (float, optional): Above 0, at most 1. (default: :obj:`0.5`)
        random_start (bool, optional): Whether to start with a random point
            of each cloud rather than its first. (default: :obj:`True`)
        batch_size (int, optional): The number of clouds. (default: one more
            than the largest entry of :obj:`batch`)
        engine (str, optional): :obj:`'torch'`, :obj:`'pyg_lib'` or
            :obj:`'torch_cluster'`. (default: :obj:`'auto'`)

    Shapes:
        - **x:** :math:`[N, D]`
        - **output:** indices, by cloud, in the order of sampling

    Raises:
        ValueError: If the ratio is not in (0, 1], or a shape or a batch does
            not fit, or a position is not finite.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"Expected 'ratio' in (0, 1] (got {ratio!r})")
    if engine == 'scipy':
        raise ValueError("Expected 'engine' to be 'torch', 'pyg_lib' or "
                         "'torch_cluster' (got 'scipy'): it does not sample")
    clouds, order = read_clouds('x', 'batch', x, batch, batch_size)
    chosen = choose_engine(engine, clouds.pos.device, clouds.pos.shape[1])
    if not len(clouds):
        return clouds.batch
    if issubclass(chosen, Compiled):
        ptr = clouds.ptr.unique_consecutive()  # without empty clouds
        # Their product with the size, in float32, must not exceed it.
        index = chosen.fps(clouds.pos, ptr, ratio * (1 - 3e-7), random_start)
    else:
        index = _sample(clouds, ratio, random_start)
    return index if order is None else order[index]


def _sample(clouds: Clouds, ratio: float, random_start: bool) -> Tensor:
    # 0.1 * 30 is a little more than 3.
    wanted = (ratio * (1 - 1e-9) * clouds.count.double()).ceil().long()
    end = wanted.cumsum(0)
    out = clouds.batch.new_empty(int(end[-1]))
    # Clouds of like size together, so that padding at most doubles them.
    level = clouds.count.double().log2().floor()
    for n in level[clouds.count > 0].unique():
        group = (level == n).nonzero()[:, 0]
        count, start = clouds.count[group], clouds.ptr[group]
        column = torch.arange(int(count.max()), device=out.device)
        inside = column < count[:, None]
        pos = clouds.pos[(start[:, None] + column).where(inside, 0)]
        first = torch.zeros_like(count)
        if random_start:
            draw = torch.rand(len(count), device=out.device)
            first = (draw * count).long().clamp(max=count - 1)
        places = _farthest(pos, inside, first, int(wanted[group].max()))
        column = column[:places.shape[1]]
        inside = column < wanted[group, None]
        at = (end - wanted)[group, None] + column
        out[at[inside]] = (start[:, None] + places)[inside]
    return out


def _farthest(pos: Tensor, inside: Tensor, place: Tensor,
              num_samples: int) -> Tensor:
    """Samples of padded clouds :math:`[B, n, D]`, as places in them."""
    cloud = torch.arange(len(pos), device=pos.device)
    column = torch.arange(pos.shape[1], device=pos.device)
    eps = ROUNDINGS * torch.finfo(pos.dtype).eps
    norm = pos.norm(dim=2)
    far = torch.where(inside, torch.inf, -1.0).to(pos.dtype)
    places = [place]
    for _ in range(num_samples - 1):
        dist = (pos - pos[cloud, place][:, None]).norm(dim=2)
        far = torch.minimum(far, dist)
        best, at = far.max(1, keepdim=True)
        tied = far >= best - eps * (best + norm.gather(1, at))
        place = column.where(tied & inside, len(column)).amin(1)
        places.append(place)
    return torch.stack(places, 1)
