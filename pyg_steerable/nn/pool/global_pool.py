"""One vector for each cloud."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from ... import checks
from ...graph.points.batch import read_batch
from ...ops.precision import at_least_float32
from ...symmetry.fields import FieldType
from ..field import ROWS, Example, FieldModule

#: What commutes with every linear action, and what only with none at all.
LINEAR, NONLINEAR = ('mean', 'sum'), ('max', 'min')


class GlobalPool(FieldModule):
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
    in_type: FieldType
    out_type: FieldType

    def __init__(self, field_type: FieldType, reduce: str = 'mean'):
        super().__init__()
        self.set_types(field_type)
        checks.choice('reduce', reduce, LINEAR + NONLINEAR)
        if reduce in NONLINEAR and not self.in_type.is_invariant:
            raise ValueError(
                f"Expected 'reduce' to be 'mean' or 'sum' for {self.in_type} "
                f"(got '{reduce}'), as the group mixes components, of which "
                f"a {reduce} is taken one by one. Use NormMaxPool, or an "
                f"InvariantReadout first")
        self.reduce = reduce

    def forward(self, x: Tensor, batch: Tensor | None = None,
                batch_size: int | None = None) -> Tensor:
        """Pools the points of each of :obj:`batch_size` clouds (default: as
        many as :obj:`batch` names; give it while compiling).
        """
        self.check_input(x)
        checks.shaped('x', x, (None, self.in_type.dim), '[N, d]')
        batch, size = read_batch(batch, x, batch_size)
        checks.same_device(x=x, batch=batch)
        # A sum of many may not fit into half precision before the mean.
        return scatter(x.to(at_least_float32(x)), batch, 0, size,
                       self.reduce).to(x.dtype)

    def example(self, generator: torch.Generator) -> Example:
        """Fields of three clouds, and an empty one."""
        batch = torch.arange(ROWS, device='cpu') % 3
        return super().example(generator).beside(batch, 4)

    def __repr__(self) -> str:
        return (f"{self.__class__.__name__}({self.in_type}, "
                f"'{self.reduce}')")
