"""Dropout of whole fields."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from ...graph.lattice.data import LatticeData, check_lattice
from ...symmetry.fields import FieldType
from ...symmetry.queries import field_index
from ..constants import ConstantModule
from .gates import _check_second


class FieldDropout(ConstantModule):
    r"""Sets whole fields to zero with probability :obj:`p` while training,
    and scales the others by :math:`1 / (1 - p)`: all components of a field
    share their fate, which keeps the layer equivariant.

    Args:
        field_type (FieldType): The type of input and output.
        p (float, optional): (default: :obj:`0.5`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`, in the dtype
          of the input

    Raises:
        ValueError: If :obj:`p` is no probability or the width differs.
    """
    def __init__(self, field_type: FieldType, p: float = 0.5):
        super().__init__()
        self.field_type = FieldType.wrap(field_type)
        self.p = checks.real('p', p, 0., below=1.)
        self.register_constant('index', field_index(self.field_type))

    def forward(self, x: Tensor) -> Tensor:
        self.check_fields(self.field_type, x)
        if not self.training or self.p == 0:
            return x
        keep = x.new_ones(*x.shape[:-1], self.field_type.num_fields)
        keep = torch.nn.functional.dropout(keep, self.p)
        return x * keep[..., self.index]

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.field_type}, p={self.p})'



class LatticeDropout(FieldDropout):
    r"""Dropout of whole fields, the same at all voxels of a grid: each field
    of each example is either set to zero everywhere or scaled by
    :math:`1 / (1 - p)`.

    Args:
        field_type (FieldType): The type of input and output.
        p (float, optional): (default: :obj:`0.5`)

    Shapes:
        - **input:** voxels :math:`(B, d, D, H, W)`, or features of the
          lattice's output :math:`(|\mathcal{V_t}|, d)` and the lattice
        - **output:** as the input

    Raises:
        ValueError: If :obj:`p` is no probability or the width differs.
    """
    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        _check_second(x, self.field_type)
        if not self.training or self.p == 0:
            return x
        if lattice is not None:
            check_lattice(lattice)
        size = x.shape[0] if lattice is None else lattice.num_lattices
        keep = super().forward(x.new_ones(size, self.field_type.dim))
        if lattice is None:
            return x * keep[..., None, None, None]
        batch = lattice.edges.batch_dst
        checks.shaped('x', x, (batch.shape[0], None),
                      f"[{batch.shape[0]}, d], one row for each voxel of the "
                      f"lattice's output")
        return x * keep[batch]
