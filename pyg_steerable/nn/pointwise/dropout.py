"""Dropout of whole fields."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from ...graph.lattice.data import LatticeData, check_lattice
from ...symmetry.fields import FieldType
from ...symmetry.queries import field_index
from ..field import FieldModule


class FieldDropout(FieldModule):
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
    in_type: FieldType
    out_type: FieldType
    index: Tensor

    def __init__(self, field_type: FieldType, p: float = 0.5):
        super().__init__()
        self.set_types(field_type)
        self.p = checks.real('p', p, 0., below=1.)
        self.register_constant('index', field_index(self.in_type))

    def _factors(self, x: Tensor, *rows: int) -> Tensor:
        """What to multiply the components of each row with."""
        keep = x.new_ones(*rows, self.in_type.num_fields)
        return torch.nn.functional.dropout(keep, self.p)[..., self.index]

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if not self.training or self.p == 0:
            return x
        return x * self._factors(x, *x.shape[:-1])

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, p={self.p})'


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
    channel_axis = 1

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        self.check_input(x)
        if not self.training or self.p == 0:
            return x
        if lattice is None:
            return x * self._factors(x, x.shape[0])[..., None, None, None]
        check_lattice(lattice)
        batch = lattice.edges.batch_dst
        checks.shaped('x', x, (batch.shape[0], None),
                      f"[{batch.shape[0]}, d], one row for each voxel of the "
                      f"lattice's output")
        return x * self._factors(x, lattice.num_lattices)[batch]
