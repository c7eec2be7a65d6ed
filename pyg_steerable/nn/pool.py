"""Fewer points, more points, and one vector for each cloud."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ..fields import FieldType
from ..graph import fps, knn
from ..layers.constants import ConstantModule
from ..layers.norm import field_index

#: What commutes with every linear action, and what only with none at all.
LINEAR, NONLINEAR = ('mean', 'sum'), ('max', 'min')


def read_batch(index, x: Tensor, size: int | None, name: str = 'batch'
               ) -> tuple[Tensor, int]:
    """The cloud of each row of x, and the number of clouds."""
    if index is None:
        return x.new_zeros(len(x), dtype=torch.long), size or 1
    if index.dim() != 1 or len(index) != len(x):
        raise ValueError(f"Expected '{name}' of shape [{len(x)}], the cloud "
                         f"of each point (got {list(index.shape)})")
    if index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"Expected '{name}' to hold integers (got "
                        f"{index.dtype}). Convert it with '.long()'")
    if size is None:
        size = int(index.max()) + 1 if len(index) else 0
    # As for edges, a look at the values costs a wait off the CPU.
    if (not torch.compiler.is_compiling() and len(index)
            and index.device.type == 'cpu'):
        low, high = (int(t) for t in index.aminmax())
        if low < 0 or high >= size:
            raise ValueError(f"Expected '{name}' in [0, {size}), the number "
                             f"of clouds (got values from {low} to {high})")
    return index.long(), size


# Fewer points ##############################################################


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
    if not 0 < ratio <= 1:
        raise ValueError(f"Expected 'ratio' in (0, 1] (got {ratio}). It is "
                         f"the share of points that are kept")
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


# More points ###############################################################


def interpolate(x: Tensor, pos_x: Tensor, pos_y: Tensor, k: int = 3,
                batch_x: Tensor | None = None,
                batch_y: Tensor | None = None) -> Tensor:
    r"""Interpolates fields from some points to others, as the up-sampling of
    `"PointNet++" <https://arxiv.org/abs/1706.02413>`_,

    .. math::
        \mathbf{f}(\mathbf{y}) = \frac{\sum_{i=1}^k w_i \mathbf{x}_i}
        {\sum_{i=1}^k w_i}, \qquad
        w_i = \frac{1}{|\mathbf{y} - \mathbf{p}_i|^2}

    over the :math:`k` nearest points of the same cloud, or all of a cloud of
    fewer, which warns (:func:`~pyg_steerable.graph.knn`). Weights are
    invariant, so that it is equivariant for fields of any type. A point of
    :obj:`pos_y` that coincides with points of :obj:`pos_x` gets their (mean)
    field exactly. Differentiable in fields and positions, coincident ones
    included, as long as the nearest points stay the same. Points whose cloud
    has no source get zero.

    Args:
        x (Tensor): The fields at :obj:`pos_x`, of any type.
        pos_x (Tensor): The points to interpolate from.
        pos_y (Tensor): The points to interpolate to.
        k (int, optional): The number of neighbours. (default: :obj:`3`)
        batch_x (Tensor, optional): The cloud of each point of :obj:`pos_x`,
            in any order. (default: :obj:`None`)
        batch_y (Tensor, optional): The same for :obj:`pos_y`.
            (default: :obj:`None`)

    Shapes:
        - **x:** :math:`[N, d]`, **pos_x:** :math:`[N, 3]`, **pos_y:**
          :math:`[M, 3]`
        - **output:** :math:`[M, d]`

    Raises:
        ValueError: If fields and points are not as many, :obj:`k` is not
            positive, or a position is not finite.
    """
    if x.dim() != 2 or len(x) != len(pos_x):
        raise ValueError(f"Expected 'x' of shape [{len(pos_x)}, d], one row "
                         f"for each point of 'pos_x' (got {list(x.shape)})")
    y, i = knn(pos_x, pos_y, k, batch_x, batch_y)
    square = (pos_x[i] - pos_y[y]).square().sum(dim=-1)
    weight = _inverse(square, y, len(pos_y)).unsqueeze(-1)
    out = scatter(weight * x[i], y, 0, len(pos_y), 'sum')
    total = scatter(weight, y, 0, len(pos_y), 'sum')
    # Not less than one, the weight of the nearest, where there is any.
    return (out / total.clamp(min=1)).to(x.dtype)


def _inverse(square: Tensor, y: Tensor, size: int) -> Tensor:
    """The weights 1 / square, in units of the largest for each y.

    That of the nearest is the constant one: neither values nor derivatives
    are singular at distance zero.
    """
    least = scatter(square.detach(), y, 0, size, 'min')
    edge = torch.arange(len(y), device=y.device)
    first = torch.where(square.detach() == least[y], edge, len(y))
    nearest = scatter(first, y, 0, size, 'min')[y]
    one = (edge == nearest) | (square == 0)
    return torch.where(one, 1., square[nearest] / torch.where(one, 1.,
                                                              square))


# One for each cloud ########################################################


class GlobalPool(torch.nn.Module):
    r"""One vector of fields for each cloud,

    .. math::
        \mathbf{y}_c = \bigoplus_{i \in c} \mathbf{x}_i .

    The mean and the sum commute with G for every type and give invariants
    from invariants. The largest of each component does not: under a rotation
    the components of a vector mix. It is allowed where nothing moves; see
    :class:`NormMaxPool` for other types.

    Args:
        field_type (FieldType): The type of input and output.
        reduce (str, optional): :obj:`"mean"`, :obj:`"sum"`, or, for types
            that G leaves alone, :obj:`"max"` or :obj:`"min"`.
            (default: :obj:`"mean"`)

    Shapes:
        - **input:** :math:`[N, d]`, **batch:** :math:`[N]` in any order,
          **output:** :math:`[B, d]`, zero for empty clouds

    Raises:
        ValueError: If the reduction is unknown or breaks equivariance.
    """
    def __init__(self, field_type: FieldType, reduce: str = 'mean'):
        super().__init__()
        self.field_type = field_type = FieldType.wrap(field_type)
        if reduce not in LINEAR + NONLINEAR:
            raise ValueError(f"Expected 'reduce' to be one of "
                             f"{LINEAR + NONLINEAR} (got {reduce!r})")
        if reduce in NONLINEAR and not field_type.is_invariant:
            raise ValueError(
                f"Expected 'reduce' to be 'mean' or 'sum' for {field_type} "
                f"(got '{reduce}'), as the group mixes components, of which "
                f"a {reduce} is taken one by one. Use NormMaxPool, or an "
                f"InvariantReadout first")
        self.reduce = reduce

    def forward(self, x: Tensor, batch: Tensor | None = None,
                batch_size: int | None = None) -> Tensor:
        """Pools the points of each of :obj:`batch_size` clouds (default: as
        many as :obj:`batch` names; give it while compiling).
        """
        self.field_type.check(x, 'x')
        batch, size = read_batch(batch, x, batch_size)
        return scatter(x, batch, 0, size, self.reduce)

    def __repr__(self) -> str:
        return (f"{self.__class__.__name__}({self.field_type}, "
                f"'{self.reduce}')")


def norm_max_pool(x: Tensor, field_type: FieldType, index: Tensor | None,
                  size: int | None = None) -> Tensor:
    r"""Keeps, for each field by itself, the one with the largest norm among
    the points of a cloud or cluster,

    .. math::
        \mathbf{y}_{c, f} = \mathbf{x}_{i^{*}, f}, \qquad
        i^{*} = \mathrm{argmax}_{i \in c} |\mathbf{x}_{i, f}|.

    Norms are invariant, so that it is equivariant for fields of any type.
    Among norms that agree to rounding (symmetric clouds have them) the first
    point in memory wins, in every orientation; the result then depends on
    the order of points.

    Args:
        x (Tensor): The fields.
        field_type (FieldType): Their type.
        index (Tensor, optional): The cluster of each point, in any order.
            :obj:`None` is a single one.
        size (int, optional): The number of clusters. (default: as many as
            :obj:`index` names)

    Shapes:
        - **x:** :math:`[N, d]`, **index:** :math:`[N]`
        - **output:** :math:`[C, d]`, zero for empty clusters

    Raises:
        ValueError: If the width is not that of the type, or :obj:`index` has
            another length or range.
    """
    field_type = FieldType.wrap(field_type)
    field_type.check(x, 'x')
    return _norm_max(x, field_index(field_type).to(x.device),
                     field_type.num_fields, index, size)


def _norm_max(x: Tensor, field: Tensor, num_fields: int, index, size
              ) -> Tensor:
    index, size = read_batch(index, x, size, 'index')
    n = len(x)
    if n == 0:
        return x.new_zeros(size, x.shape[1])
    with torch.no_grad():
        full = torch.promote_types(x.dtype, torch.float32)
        square = torch.zeros(n, num_fields, dtype=full, device=x.device)
        square.index_add_(1, field, x.to(full).square())
        best = scatter(square, index, 0, size, 'max')[index]
        # To rounding; and what is not a number must not go unnoticed.
        is_best = ~(square < best * (1 - 32 * torch.finfo(full).eps))
        is_best &= square.isnan() | ~best.isnan()
        point = torch.arange(n, device=x.device).unsqueeze(-1)
        # Empty clusters, where scatter leaves zero, show by their count.
        winner = scatter(torch.where(is_best, point, n), index, 0, size,
                         'min')[:, field]
        filled = scatter(torch.ones_like(index), index, 0, size, 'sum') > 0
    return torch.where(filled.unsqueeze(-1), x.gather(0, winner), 0.)


class NormMaxPool(ConstantModule):
    r"""The module of :func:`norm_max_pool`.

    Args:
        field_type (FieldType): The type of input and output.

    Shapes:
        - **input:** :math:`[N, d]`, **index:** :math:`[N]` in any order,
          **output:** :math:`[C, d]`, zero for empty clusters
    """
    def __init__(self, field_type: FieldType):
        super().__init__()
        self.field_type = field_type = FieldType.wrap(field_type)
        self.register_constant('field', field_index(field_type))

    def forward(self, x: Tensor, index: Tensor | None = None,
                size: int | None = None) -> Tensor:
        self.field_type.check(x, 'x')
        return _norm_max(x, self.field, self.field_type.num_fields, index,
                         size)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.field_type})'
