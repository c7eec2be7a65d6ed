"""Normalisation of fields."""
from __future__ import annotations

import torch
from torch import Tensor

from ..fields import FieldType
from .constants import ConstantModule
from .linear import invariant_vectors


def field_index(field_type: FieldType) -> Tensor:
    """The number of the field that each component belongs to, [d]."""
    sizes = [rep.dim for mul, rep in field_type.blocks for _ in range(mul)]
    return torch.arange(len(sizes), device='cpu').repeat_interleave(
        torch.tensor(sizes, dtype=torch.long, device='cpu'))


def field_mean(field_type: FieldType) -> Tensor:
    """The matrix that averages over the components of each field, [d, F]."""
    index = field_index(field_type)
    size = index.bincount(minlength=field_type.num_fields)
    mean = torch.zeros(field_type.dim, field_type.num_fields,
                       dtype=torch.float64, device='cpu')
    mean[torch.arange(field_type.dim, device='cpu'), index] = (
        1 / size[index].double())
    return mean


class FieldBatchNorm(ConstantModule):
    r"""Batch normalisation of whole fields,

    .. math::
        \mathbf{y}_f = \gamma_f \frac{\mathbf{x}_f - \bar{\mathbf{x}}_f}
        {\sqrt{\langle |\mathbf{x}_f - \bar{\mathbf{x}}_f|^2 / d_f \rangle +
        \epsilon}} + \boldsymbol{\beta}_f

    with one scale for all components of a field, and mean and shift only in
    the part of a field that the group leaves alone (a scalar), so that it
    commutes with G to rounding. (Conventions of `"Implicit Neural
    Convolutional Kernels" <https://arxiv.org/abs/2212.06096>`_, section 5.1,
    and of the field batch-norm of `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_.)

    Args:
        field_type (FieldType): The type of input and output.
        eps (float, optional): (default: :obj:`1e-5`)
        momentum (float, optional): Of the running statistics.
            (default: :obj:`0.1`)
        affine (bool, optional): Learn :math:`\gamma, \beta`.
            (default: :obj:`True`)
        normalization (str, optional): :obj:`"component"` for components of
            unit variance, as above, or :obj:`"norm"` for fields of unit mean
            square norm, without :math:`d_f`, as in the code of "3D Steerable
            CNNs". (default: :obj:`"component"`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`

    Raises:
        ValueError: If the input has another width, or there is no such
            normalisation.
    """
    def __init__(self, field_type: FieldType, eps: float = 1e-5,
                 momentum: float = 0.1, affine: bool = True,
                 normalization: str = 'component'):
        super().__init__()
        if normalization not in ('component', 'norm'):
            raise ValueError(f"Expected 'normalization' to be 'component' or "
                             f"'norm' (got {normalization!r})")
        self.field_type = field_type = FieldType.wrap(field_type)
        self.eps, self.momentum, self.affine = eps, momentum, affine
        self.register_constant('index', field_index(field_type))
        mean = field_mean(field_type)
        self.register_constant('size_of', mean if normalization == 'component'
                               else mean.sign())
        self.register_constant('invariant', invariant_vectors(field_type))
        fields, scalars = field_type.num_fields, self.invariant.shape[1]
        self.register_weights('weight', fields if affine else 0)
        self.register_weights('bias', scalars if affine else 0)
        self.register_buffer('running_mean', torch.zeros(scalars))
        self.register_buffer('running_var', torch.ones(fields))
        self.reset_parameters()

    def reset_parameters(self):
        """Forgets the statistics and learned scales."""
        self.running_mean.zero_()
        self.running_var.fill_(1.)
        if self.weight is not None:
            torch.nn.init.ones_(self.weight)
        if self.bias is not None:
            torch.nn.init.zeros_(self.bias)

    def _statistics(self, x: Tensor, dim: int = 1) -> tuple[Tensor, Tensor]:
        """Means and variances, with the components along a dimension."""
        others = [i for i in range(x.dim()) if i != dim]
        if not self.training or x.numel() == 0:
            return self.running_mean, self.running_var
        mean = x.mean(others) @ self.invariant
        shift = self.invariant @ mean
        centred = x - shift.view([-1] + (x.dim() - dim - 1) * [1])
        var = centred.square().mean(others) @ self.size_of
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype),
                                    self.momentum)
            self.running_var.lerp_(var.to(self.running_var.dtype),
                                   self.momentum)
        return mean, var

    def forward(self, x: Tensor) -> Tensor:
        self.field_type.check(x, 'x')
        mean, var = self._statistics(x.reshape(-1, x.shape[-1]))
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        out = (x - self.invariant @ mean) * scale[self.index]
        if self.bias is not None:
            out = out + self.invariant @ self.bias
        return out

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.field_type})'
