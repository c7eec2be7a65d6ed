"""For each field, the one of the largest norm."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ... import checks
from ...graph.points.batch import read_batch
from ...ops.precision import at_least_float32
from ...symmetry.fields import FieldType
from ...symmetry.queries import field_index
from ..field import ROWS, Example, FieldModule


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
    checks.shaped('x', x, (None, field_type.dim), '[N, d]')
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


class NormMaxPool(FieldModule):
    r"""The module of :func:`norm_max_pool`.

    Args:
        field_type (FieldType): The type of input and output.

    Shapes:
        - **input:** :math:`[N, d]`, **index:** :math:`[N]` in any order,
          **output:** :math:`[C, d]`, zero for empty clusters
    """
    in_type: FieldType
    out_type: FieldType
    field: Tensor

    def __init__(self, field_type: FieldType):
        super().__init__()
        self.set_types(field_type)
        self.register_constant('field', field_index(self.in_type))

    def forward(self, x: Tensor, index: Tensor | None = None,
                size: int | None = None) -> Tensor:
        self.check_input(x)
        checks.shaped('x', x, (None, self.in_type.dim), '[N, d]')
        return _norm_max(x, self.field, self.in_type.num_fields, index, size)

    def example(self, generator: torch.Generator) -> Example:
        """Fields of three clouds, and an empty one."""
        index = torch.arange(ROWS, device='cpu') % 3
        return super().example(generator).beside(index, 4)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type})'
