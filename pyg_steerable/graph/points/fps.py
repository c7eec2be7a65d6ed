"""Farthest point sampling."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from .clouds import Clouds, read_clouds, safe_exponent
from .engines import ENGINES, Compiled, choose_engine
from .search import tie_tolerance


@torch.compiler.disable
def fps(x: Tensor, batch: Tensor | None = None, ratio: float | Tensor = 0.5,
        random_start: bool = True, batch_size: int | None = None, *,
        engine: str = 'auto') -> Tensor:
    r"""Farthest point sampling of `"PointNet++: Deep Hierarchical Feature
    Learning on Point Sets in a Metric Space"
    <https://arxiv.org/abs/1706.02413>`_: from each cloud, again and again the
    point that is farthest from all points chosen before; :math:`\lceil
    \mathrm{ratio} \cdot n \rceil` of its n points, each once.

    Distances are those of the numbers given, in float64. Of points that are
    equally far, to a few roundings, the one of smallest index is taken. Points
    on top of chosen ones come last, in order. The operators of pyg-lib and
    torch_cluster, which are used on a GPU if they are installed, may take
    another of equally far points: name the engine :obj:`'torch'` if it
    matters.

    Args:
        x (torch.Tensor): Positions, of any floating dtype.
        batch (torch.Tensor, optional): The cloud of each point, in any
            order. (default: :obj:`None`)
        ratio (float or torch.Tensor, optional): Above 0, at most 1; one
            number, or one for each cloud, :math:`[B]`. (default: :obj:`0.5`)
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
        TypeError: If an argument is of another kind.
        ImportError: If an engine is named that is not installed.
    """
    random_start = checks.flag('random_start', random_start)
    if checks.choice('engine', engine, ('auto', *ENGINES)) == 'scipy':
        raise ValueError("Expected 'engine' to be 'torch', 'pyg_lib' or "
                         "'torch_cluster' (got 'scipy'): it does not sample")
    clouds, order = read_clouds('x', 'batch', x, batch, batch_size)
    ratio = _read_ratio(ratio, clouds)
    chosen = choose_engine(engine, clouds.pos.device, clouds.pos.shape[1])
    if not len(clouds):
        return clouds.batch
    clouds = clouds.times_two_to(safe_exponent(clouds.largest()))
    # 0.1 * 30 is a little more than 3.
    wanted = (ratio * (1 - 1e-9) * clouds.count).ceil().long()
    if issubclass(chosen, Compiled):
        index = _compiled(chosen, clouds, wanted, random_start)
    else:
        index = _sample(clouds, wanted, random_start)
    return index if order is None else order[index]


def _read_ratio(ratio, clouds: Clouds) -> Tensor:
    """The share of each cloud, :math:`[B]`."""
    like = clouds.pos.new_empty(clouds.size)
    if not isinstance(ratio, Tensor) or ratio.dim() == 0:
        return like.fill_(checks.real('ratio', ratio, above=0, most=1))
    checks.tensor('ratio', ratio, what='a number or a tensor')
    checks.has_values('ratio', ratio, 'the sample')
    if list(ratio.shape) not in ([1], [clouds.size]):
        raise ValueError(f"Expected 'ratio' to be a number, or of shape "
                         f"[{clouds.size}], one for each cloud (got "
                         f"{list(ratio.shape)})")
    # NaN fails too.
    good = (ratio > 0) & (ratio <= 1)
    if not bool(good.all()):
        bad = int((~good).nonzero()[0])
        raise ValueError(f"Expected 'ratio' in (0, 1] (got "
                         f"{float(ratio[bad])} for cloud {bad})")
    return like.copy_(ratio.detach())


def _compiled(engine, clouds: Clouds, wanted: Tensor,
              random_start: bool) -> Tensor:
    """The sample of a compiled engine, cut and completed."""
    # The most that any cloud wants, for a sample begins with every smaller
    # one; a little more, for they may round its size down.
    most = float((wanted / clouds.count.clamp(min=1)).max())
    index = engine.fps(clouds.pos, clouds.ptr.unique_consecutive(),
                       min(1., most * (1 + 1e-6) + 1e-9), random_start)
    # Where all that is left lies on chosen points, they repeat themselves.
    turn = torch.arange(len(index), device=index.device)
    never = len(index)
    first = turn.new_full((len(clouds), ), never).scatter_reduce(
        0, index, turn, 'amin')
    rest = (first == never).nonzero()[:, 0]
    index = torch.cat([index[first[index] == turn], rest])
    index = index[clouds.batch[index].argsort(stable=True)]
    batch = clouds.batch[index]
    place = torch.arange(len(index), device=index.device) - clouds.ptr[batch]
    return index[place < wanted[batch]]


def _sample(clouds: Clouds, wanted: Tensor, random_start: bool) -> Tensor:
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
    pos = pos.permute(2, 0, 1).contiguous()  # by coordinate: faster
    # Of squares, twice that of distances.
    equal = 1 - 2 * tie_tolerance(len(pos))
    # The squared distance to the chosen ones; -1 where there is no choice.
    far = torch.where(inside, torch.inf, -1.).to(pos.dtype)
    step, dist = torch.empty_like(far), torch.empty_like(far)
    places = [place]
    for _ in range(num_samples - 1):
        far.scatter_(1, place[:, None], -1.)
        dist.zero_()
        for x in pos:
            torch.sub(x, x.gather(1, place[:, None]), out=step)
            dist.addcmul_(step, step)
        torch.minimum(far, dist, out=far)
        tied = far >= far.amax(1, keepdim=True) * equal
        place = tied.to(torch.uint8).argmax(1)  # the first one
        places.append(place)
    return torch.stack(places, 1)
