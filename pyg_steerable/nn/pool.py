"""Fewer points, more points, and one vector for each cloud."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from .. import checks
from ..fields import FieldType
from ..graph import edge_shift, fps, knn
from ..layers.constants import ConstantModule
from ..ops.precision import at_least_float32
from ..queries import field_index

#: More clouds than these, or than so many for each point, are a mistake that
#: would fill the memory.
MOST, MOST_EACH = 2**20, 2**10

#: What commutes with every linear action, and what only with none at all.
LINEAR, NONLINEAR = ('mean', 'sum'), ('max', 'min')


def read_batch(index, x: Tensor, size: int | None, name: str = 'batch'
               ) -> tuple[Tensor, int]:
    """The cloud of each row of x, and the number of clouds."""
    argument = 'batch_size' if name == 'batch' else 'size'
    if size is not None:
        size = _read_size(argument, size, x)
    if index is None:
        return x.new_zeros(x.shape[0], dtype=torch.long), (
            1 if size is None else size)
    checks.tensor(name, index, checks.INTEGERS, 'a tensor of integers')
    checks.shaped(name, index, (x.shape[0], ),
                  '[N], the cloud of each point')
    checks.same_device(points=x, **{name: index})
    if size is None:
        checks.has_values(name, index, 'the number of clouds')
        size = int(index.max()) + 1 if len(index) else 0
        if size > 0:
            _read_size(f'{name}.max() + 1', size, x)
    return checks.indices(name, index, size), size


def _read_size(name: str, size, x: Tensor) -> int:
    if torch.compiler.is_compiling():  # sizes may be symbols
        return size
    return checks.integer(name, size, 0, max(MOST, MOST_EACH * x.shape[0]))


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


# More points ###############################################################


def interpolate(x: Tensor, pos_x: Tensor, pos_y: Tensor,
                batch_x: Tensor | None = None,
                batch_y: Tensor | None = None, k: int = 3,
                num_workers: int | None = None, *,
                cell: Tensor | None = None,
                pbc: bool | Sequence[bool] = True) -> Tensor:
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
    has no source get zero. Arguments are in the order of
    :func:`torch_geometric.nn.unpool.knn_interpolate`; with a cell, periodic
    images count.

    Args:
        x (Tensor): The fields at :obj:`pos_x`, of any type.
        pos_x (Tensor): The points to interpolate from.
        pos_y (Tensor): The points to interpolate to.
        batch_x (Tensor, optional): The cloud of each point of :obj:`pos_x`,
            in any order. (default: :obj:`None`)
        batch_y (Tensor, optional): The same for :obj:`pos_y`.
            (default: :obj:`None`)
        k (int, optional): The number of neighbours. (default: :obj:`3`)
        num_workers (int, optional): Threads of the search.
            (default: as many as torch uses)
        cell (Tensor, optional): Lattice vectors as rows, of one or of every
            cloud. (default: :obj:`None`)
        pbc (bool or list, optional): The axes along which cells repeat.
            (default: :obj:`True`)

    Shapes:
        - **x:** :math:`[N, d]`, **pos_x:** :math:`[N, 3]`, **pos_y:**
          :math:`[M, 3]`, **cell:** :math:`[3, 3]` or :math:`[B, 3, 3]`
        - **output:** :math:`[M, d]`, in the dtype of the fields

    Raises:
        ValueError: If fields and points are not as many, :obj:`k` is not
            positive, or a position is not finite.
    """
    checks.positions('pos_x', pos_x)
    checks.positions('pos_y', pos_y)
    checks.tensor('x', x)
    checks.shaped('x', x, (len(pos_x), None),
                  "[N, d], one row for each point of 'pos_x'")
    checks.same_device(x=x, pos_x=pos_x, pos_y=pos_y)
    full = at_least_float32(pos_x, pos_y)
    pos_x, pos_y = pos_x.to(full), pos_y.to(full)
    found, shift = knn(pos_x, pos_y, k, batch_x, batch_y,
                       num_workers=num_workers, cell=cell, pbc=pbc), None
    if cell is not None:
        found, offset = found
        shift = edge_shift(offset, cell, None if batch_y is None
                           or cell.dim() == 2 else batch_y[found[0]])
    y, i = found
    relative = pos_x[i] - pos_y[y]
    if shift is not None:
        relative = relative + shift.to(full)
    square = relative.square().sum(dim=-1)
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


def _check_rows(x, field_type: FieldType) -> None:
    """Raises an error unless x is a table of fields."""
    field_type.check(x, 'x')
    checks.shaped('x', x, (None, field_type.dim), '[N, d]')


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
        checks.choice('reduce', reduce, LINEAR + NONLINEAR)
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
        _check_rows(x, self.field_type)
        batch, size = read_batch(batch, x, batch_size)
        checks.same_device(x=x, batch=batch)
        # A sum of many may not fit into half precision before the mean.
        return scatter(x.to(at_least_float32(x)), batch, 0, size,
                       self.reduce).to(x.dtype)

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
    _check_rows(x, field_type)
    return _norm_max(x, field_index(field_type).to(x.device),
                     field_type.num_fields, index, size)


def _norm_max(x: Tensor, field: Tensor, num_fields: int, index, size
              ) -> Tensor:
    index, size = read_batch(index, x, size, 'index')
    checks.same_device(x=x, index=index)
    n = len(x)
    if n == 0:
        return x.new_zeros(size, x.shape[1])
    with torch.no_grad():
        full = at_least_float32(x)
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
        self.check_fields(self.field_type, x)
        checks.shaped('x', x, (None, self.field_type.dim), '[N, d]')
        return _norm_max(x, self.field, self.field_type.num_fields, index,
                         size)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.field_type})'
