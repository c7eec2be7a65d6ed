"""The points of a batch, sorted by cloud, and the places where they are."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from .batch import largest_index, read_batch

#: Beyond this power of two squares would leave the range of float64.
FAR_EXPONENT = 300
#: Any odd numbers, to mix the bits of coordinates.
_ODD = (-7046029254386353131, -4417276706812531889)


class Clouds:
    r"""Points sorted by cloud: :obj:`pos [N, D]` in float64, :obj:`batch
    [N]`, and of each of the :obj:`size` clouds its :obj:`count` and where it
    starts.
    """
    def __init__(self, pos: Tensor, batch: Tensor, size: int):
        self.pos, self.batch, self.size = pos, batch, size
        self.count = torch.bincount(batch, minlength=size)
        self.ptr = torch.nn.functional.pad(self.count.cumsum(0), (1, 0))

    def __len__(self) -> int:
        return len(self.pos)

    def take(self, rows: Tensor) -> Clouds:
        """Some of the points; :obj:`rows` must be increasing."""
        return Clouds(self.pos[rows], self.batch[rows], self.size)

    def replace(self, pos: Tensor) -> Clouds:
        """Other positions for the same points."""
        return Clouds(pos, self.batch, self.size)

    def slices(self, clouds: Tensor) -> list[slice]:
        """Where the points of some clouds are."""
        return [slice(a, b) for a, b in zip(self.ptr[clouds].tolist(),
                                            self.ptr[clouds + 1].tolist())]

    def shared(self, other: Clouds) -> Tensor:
        """The clouds that have points here and there: of many clouds most
        may be empty.
        """
        return ((self.count > 0) & (other.count > 0)).nonzero()[:, 0]

    def largest(self) -> Tensor:
        """The largest coordinate of each cloud, :math:`[B]`."""
        size = self.pos.abs().amax(1)
        return size.new_zeros(self.size).scatter_reduce(0, self.batch, size,
                                                        'amax')

    def times_two_to(self, power: Tensor) -> Clouds:
        """Scaled, cloud by cloud, which is exact."""
        if not bool(power.any()):
            return self
        return self.replace(self.pos.ldexp(power[self.batch, None]))


def safe_exponent(size: Tensor) -> Tensor:
    r"""The powers of two that bring these sizes :math:`[B]` close to one, if
    their squares would overflow or vanish; else zero.
    """
    power = -size.frexp().exponent
    far = (power.abs() > FAR_EXPONENT) & (size > 0)
    return power.clamp(-1000, 1000).where(far, 0)


def read_clouds(name: str, batch_name: str, x: Tensor, batch: Tensor | None,
                size: int | None) -> tuple[Clouds, Tensor | None]:
    """Points and batch of a user, checked, detached, in float64, which holds
    all that float16, bfloat16 and float32 can say, and sorted by cloud; with
    the index of each sorted point, if that is another than its place.
    """
    x = _read_points(name, x)
    given = batch is not None
    batch, size = read_batch(batch, x, size, batch_name)
    if given:  # wrong ones would lead to wrong neighbours, on a GPU too
        largest_index(batch_name, batch, size)
    order = None
    if bool((batch[1:] < batch[:-1]).any()):
        # Stable: within a cloud the points keep their order.
        order = batch.argsort(stable=True)
        x, batch = x[order], batch[order]
    return Clouds(x, batch, max(1, size)), order


def _read_points(name: str, x: Tensor) -> Tensor:
    checks.tensor(name, x, what='a tensor of positions')
    checks.has_values(name, x, 'the graph')
    if x.dim() == 1:
        x = x[:, None]
    if x.dim() != 2 or x.shape[1] == 0:
        raise ValueError(f"Expected '{name}' of shape [N, D] (got "
                         f"{list(x.shape)})")
    # Minus zero is zero: equal points have equal bits.
    return checks.finite(name, x.detach(), 'point').double() + 0.


class Sites:
    r"""The places where there are points, each once, so that points on top
    of each other cost nothing. :obj:`clouds` holds the places; the points at
    place s are :obj:`member[start[s]:start[s] + count[s]]`, in order.
    :obj:`member` is :obj:`None` if no two points are at one place.
    """
    def __init__(self, points: Clouds):
        self.clouds, self.member = points, None
        key, order = _mixed(points).sort(stable=True)
        same = key[1:] == key[:-1]
        if not bool(same.any()):
            return
        # Other bits may mix to the same key: look at the points themselves.
        pos, batch = points.pos[order], points.batch[order]
        same &= ((pos[1:] == pos[:-1]).all(1) & (batch[1:] == batch[:-1]))
        start = torch.nn.functional.pad(~same, (1, 0), value=True)
        start = start.nonzero()[:, 0]
        count = start.diff(append=start.new_tensor([len(order)]))
        # In the order of their first points, hence by cloud.
        first, by_first = order[start].sort()
        self.clouds = points.take(first)
        self.member, self.start = order, start[by_first]
        self.count = count[by_first]

    def points(self, pairs: tuple[Tensor, Tensor],
               most: int) -> tuple[Tensor, Tensor]:
        """Pairs with the points at places, the first so many of each, from
        pairs with places.
        """
        row, site = pairs
        if self.member is None:
            return pairs
        count = self.count[site].clamp(max=most)
        end = count.cumsum(0)
        row = row.repeat_interleave(count)
        # The place of each pair among those of its site.
        shift = (self.start[site] - end + count).repeat_interleave(count)
        at = torch.arange(len(row), device=row.device) + shift
        return row, self.member[at]


def _mixed(points: Clouds) -> Tensor:
    """A number for each point, equal for points at one place of one cloud,
    and hardly ever otherwise.
    """
    key = points.batch.clone()
    for column in points.pos.t():
        bits = column.contiguous().view(torch.int64)
        # The low bits of short numbers are zero: bring the high ones there.
        bits = (bits ^ (bits >> 32)) * _ODD[0]
        key = (key ^ (key >> 29)) * _ODD[1] + (bits ^ (bits >> 31))
    return key
