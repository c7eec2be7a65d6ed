"""Fields times a function of their own norm."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from ... import checks
from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType
from ...symmetry.queries import field_index, field_mean, scalar_fields
from ..field import FieldModule


class NormActivation(FieldModule):
    r"""Each field is multiplied by a function of its own norm,

    .. math::
        \mathbf{y}_f = \sigma(a_f |\mathbf{x}_f| + b_f) \, \mathbf{x}_f,

    with learned :math:`a_f, b_f`, and invariant scalars go through
    :math:`\sigma(a_f x + b_f) \, x`. Equivariant to rounding, for any type.

    Args:
        field_type (FieldType): The type of input and output.
        eps (float, optional): The norm is
            :math:`\sqrt{|\mathbf{x}|^2 / d + \epsilon}`, smooth at zero.
            (default: :obj:`1e-4`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`, in the dtype
          of the input
    """
    in_type: FieldType
    out_type: FieldType
    weight: Parameter | None
    bias: Parameter | None
    index: Tensor
    mean_of: Tensor
    scalar: Tensor

    def __init__(self, field_type: FieldType, eps: float = 1e-4):
        super().__init__()
        self.set_types(field_type)
        field_type = self.in_type
        self.eps = checks.scale('eps', eps)
        index = field_index(field_type)
        self.register_constant('index', index)
        self.register_constant('mean_of', field_mean(field_type))
        self.register_constant('scalar', scalar_fields(field_type)[index])
        self.register_weights('weight', field_type.num_fields)
        self.register_weights('bias', field_type.num_fields)
        self.reset_parameters()

    def reset_parameters(self):
        """Unit slopes and no offsets."""
        if self.weight is not None:
            torch.nn.init.ones_(self.weight)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self.weight is None or self.bias is None:  # no fields
            return x
        with full_precision(x):
            full = x.to(at_least_float32(x, self.mean_of))
            square = full.square() @ self.mean_of.to(full.dtype)
            norm = (square + self.eps).sqrt()[..., self.index]
            size = torch.where(self.scalar, full, norm)
            gate = size * self.weight[self.index] + self.bias[self.index]
        return x * gate.sigmoid().to(x.dtype)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type})'
