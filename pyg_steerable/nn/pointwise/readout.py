"""From fields to invariant numbers."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from ...ops.precision import at_least_float32, full_precision, lowers
from ...symmetry.fields import FieldType
from ...symmetry.queries import field_mean
from ..field import FieldModule
from .linear import Linear

#: More invariants than this are a mistake.
MAX_CHANNELS = 2**20


class InvariantReadout(FieldModule):
    r"""Invariant numbers from fields: a learned linear map of the invariant
    parts of the fields (scalars; the component along the axis under SO(2))
    and of the norms of the other fields,

    .. math::
        \mathbf{y} = \mathbf{L} \big[ \mathbf{x} \,\Vert\,
        \sqrt{|\mathbf{x}_f|^2 / d_f + \epsilon} - \sqrt{\epsilon} \big].

    Norms and the map are evaluated in at least float32.

    Args:
        in_type (FieldType): The type of the input.
        out_channels (int): The number of invariants.
        eps (float, optional): Keeps the norm smooth at zero.
            (default: :obj:`1e-4`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, C]`, in the dtype
          of the weights (under autocast in float32)

    Raises:
        ValueError: If the input has another width, or an option has no
            meaning.
    """
    in_type: FieldType
    out_type: FieldType
    mean_of: Tensor

    def __init__(self, in_type: FieldType, out_channels: int,
                 eps: float = 1e-4):
        super().__init__()
        in_type = FieldType.wrap(in_type)
        self.out_channels = checks.integer('out_channels', out_channels, 0,
                                           MAX_CHANNELS)
        self.set_types(in_type, FieldType([(self.out_channels, '0e')],
                                          in_type.group))
        self.eps = checks.scale('eps', eps)
        mean = field_mean(in_type)
        mean = mean[:, mean.count_nonzero(dim=0) > 1]
        self.register_constant('mean_of', mean)
        norms = FieldType([(mean.shape[1], '0e')], in_type.group)
        self.linear = Linear(in_type + norms, self.out_type)
        # Few components are invariant by themselves: those between the first
        # and the last that have weights.
        used = self.linear.columns
        used = used[used < in_type.dim]
        self._direct = (slice(int(used.min()), int(used.max()) + 1)
                        if len(used) else slice(0, 0))

    def reset_parameters(self):
        """Resets the linear map."""
        self.linear.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        out = self._in_full(x)
        return out if lowers(x.device.type) else out.to(self.mean_of.dtype)

    def _in_full(self, x: Tensor) -> Tensor:
        """The invariants in at least float32."""
        with full_precision(x):
            matrix, bias = self.linear.matrix(), self.linear.bias
            dtype = at_least_float32(x, matrix)
            x, matrix = x.to(dtype), matrix.to(dtype)
            square = x.square() @ self.mean_of.to(dtype)
            norm = (square + self.eps).sqrt() - self.eps**0.5
            direct, of_norm = matrix[:, self._direct], matrix[:, x.shape[-1]:]
            out = torch.nn.functional.linear(
                norm, of_norm, None if bias is None else bias.to(dtype))
            return out + torch.nn.functional.linear(x[..., self._direct],
                                                    direct)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_type}, '
                f'{self.out_channels})')
