"""The learned square of a field."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ...symmetry.fields import FieldType
from ..field import FieldModule
from ..reach import warn_unreached
from .bilinear import BilinearTerm


class TensorProductActivation(FieldModule):
    r"""The learned equivariant quadratic map of a field with itself,

    .. math::
        \mathbf{y} = \mathbf{B}(\mathbf{x} \otimes \mathbf{x}).

    Equivariant to rounding, for any type. Evaluated in at least float32; the
    output is a square, and float16 holds none of more than 65504: layers and
    inputs of large numbers are better left in float32 or bfloat16.

    Args:
        in_type (FieldType): The type of the input.
        out_type (FieldType, optional): The type of the output.
            (default: :obj:`in_type`)

    Shapes:
        - **input:** :math:`[*, d_{in}]`, **output:** :math:`[*, d_{out}]`, in
          the dtype of the weights (also under autocast)
    """
    in_type: FieldType
    out_type: FieldType

    def __init__(self, in_type: FieldType, out_type: FieldType | None = None):
        super().__init__()
        self.set_types(in_type, out_type)
        self.product = BilinearTerm(self.in_type, self.in_type, self.out_type)
        if self.in_type.dim:
            warn_unreached(type(self).__name__, self.product.unreached,
                           self.out_type, f'pairs of {self.in_type}')

    def reset_parameters(self):
        """Draws the weights again."""
        self.product.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        n = rows.shape[0]  # may be a symbol, which len() would fix
        index = torch.arange(n, device=x.device)
        out = self.product(rows, rows, index, index, n, 'aggregate')
        return out.view(*x.shape[:-1], self.out_type.dim)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, {self.out_type})'
