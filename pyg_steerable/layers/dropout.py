"""Dropout of whole fields."""
from __future__ import annotations

import torch
from torch import Tensor

from .. import checks
from ..fields import FieldType
from ..queries import field_index
from .constants import ConstantModule


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
