"""Fields at more points."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ... import checks
from ...graph.points.neighbors import knn
from ...graph.points.shift import edge_shift
from ...ops.precision import at_least_float32


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
