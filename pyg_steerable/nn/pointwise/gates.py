"""Gates: fields times the sigmoid of an invariant."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...symmetry.fields import FieldType
from ...symmetry.queries import block_kinds
from ..field import FieldModule
from .readout import InvariantReadout


def _gain(function) -> float:
    r"""The factor :math:`\langle f(g)^2 \rangle^{-1/2}` that keeps unit
    variance for normal :math:`g`.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    mean_square = weight @ function(node)**2 / weight.sum()
    return float(mean_square**-0.5)


_SIGMOID_GAIN = _gain(lambda g: 1 / (1 + np.exp(-g)))
_SILU_GAIN = _gain(lambda g: g / (1 + np.exp(-g)))


def unit_sigmoid(x: Tensor) -> Tensor:
    """The sigmoid, of mean square one for normal numbers."""
    return x.sigmoid() * _SIGMOID_GAIN


def unit_silu(x: Tensor) -> Tensor:
    """The SiLU, of mean square one for normal numbers."""
    return torch.nn.functional.silu(x) * _SILU_GAIN


class Gate(FieldModule):
    r"""Gated non-linearity: invariant scalars go through SiLU, every other
    field is multiplied by the sigmoid of a scalar of its own,

    .. math::
        \mathbf{y}_f = \sigma(g_f) \, \mathbf{x}_f

    (`"3D Steerable CNNs" <https://arxiv.org/abs/1807.02547>`_, section 4.3),
    times constants that keep unit variance. Equivariant to rounding, for any
    type.

    The input type :obj:`gate.in_type` is the gates :math:`g_f` (as
    :obj:`0e`) followed by the fields of :obj:`field_type`: let the layer
    before produce it.

    Args:
        field_type (FieldType): The type of the output.

    Shapes:
        - **input:** :math:`[*, n_g + d]`, **output:** :math:`[*, d]`, in the
          dtype of the input
    """
    in_type: FieldType
    out_type: FieldType
    #: What scalars and gates go through.
    _scalar: Callable[[Tensor], Tensor] = staticmethod(unit_silu)
    _sigmoid: Callable[[Tensor], Tensor] = staticmethod(unit_sigmoid)

    def __init__(self, field_type: FieldType):
        super().__init__()
        field_type = FieldType.wrap(field_type)
        self._blocks = block_kinds(field_type)
        self.num_gates = sum(mul for mul, _, is_scalar in self._blocks
                             if not is_scalar)
        gates = FieldType([(self.num_gates, '0e')], field_type.group)
        self.set_types(gates + field_type, field_type)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        axis = self.channel_axis % x.dim()
        sizes = [mul * dim for mul, dim, _ in self._blocks]
        gates, *fields = x.split([self.num_gates, *sizes], dim=axis)
        gates = self._sigmoid(gates).unsqueeze(axis + 1)
        gates = iter(gates.split([mul for mul, _, is_scalar in self._blocks
                                  if not is_scalar], dim=axis))
        out = []
        for (mul, dim, is_scalar), f in zip(self._blocks, fields):
            if is_scalar:
                out.append(self._scalar(f))
            else:
                f = f.unflatten(axis, (mul, dim)) * next(gates)
                out.append(f.flatten(axis, axis + 1))
        return torch.cat(out, dim=axis) if out else x  # no fields

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.out_type})'


class NormGate(FieldModule):
    r"""Gates learned from all invariants: every field is multiplied by the
    sigmoid of a linear map of the scalars and norms of *all* fields, and
    scalars are replaced by the SiLU of such a map,

    .. math::
        \mathbf{y}_f = \sigma(g_f) \, \mathbf{x}_f, \qquad
        y_s = \mathrm{SiLU}(g_s), \qquad
        \mathbf{g} = \mathrm{InvariantReadout}(\mathbf{x})

    times constants that keep unit variance. Equivariant to rounding, for any
    type and group: degrees and channels see each other's norms.

    Args:
        field_type (FieldType): The type of input and output.
        eps (float, optional): Keeps norms smooth at zero, see
            :class:`~pyg_steerable.nn.InvariantReadout`. Where derivatives
            count, as for forces, take more. (default: :obj:`1e-4`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`, in the dtype
          of the input

    Raises:
        ValueError: If the input has another width, or :obj:`eps` is not
            positive.
    """
    in_type: FieldType
    out_type: FieldType

    def __init__(self, field_type: FieldType, eps: float = 1e-4):
        super().__init__()
        self.set_types(field_type)
        self.readout = InvariantReadout(self.in_type, self.in_type.num_fields,
                                        eps)
        self._blocks = block_kinds(self.in_type)

    def reset_parameters(self):
        """Draws the weights again."""
        self.readout.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if not self._blocks:
            return x
        gates = self.readout._in_full(x).split(
            [mul for mul, _, _ in self._blocks], dim=-1)
        fields = x.split([mul * dim for mul, dim, _ in self._blocks], dim=-1)
        out = []
        for (mul, dim, is_scalar), g, f in zip(self._blocks, gates, fields):
            if is_scalar:
                out.append(unit_silu(g))
                continue
            gate = unit_sigmoid(g).unsqueeze(-1)
            f = f.unflatten(-1, (mul, dim)) * gate
            out.append(f.flatten(-2))
        return torch.cat(out, dim=-1).to(x.dtype)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type})'


class LatticeGate(Gate):
    r"""The gated non-linearity of the `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_ paper, section 4.3: invariant
    scalars go through ReLU, every other field is multiplied by the sigmoid
    of a scalar of its own,

    .. math::
        y_s = \mathrm{ReLU}(x_s), \qquad
        \mathbf{y}_f = \sigma(g_f) \, \mathbf{x}_f.

    It differs from :class:`~pyg_steerable.nn.Gate` in the ReLU, in having no
    constants for unit variance, and in that fields lie along the *second*
    dimension.

    Args:
        field_type (FieldType): The type of the output. The input is of
            :obj:`gate.in_type`: the gates and then the fields.

    Shapes:
        - **input:** :math:`(B, n_g + d, D, H, W)` or
          :math:`(|\mathcal{V}|, n_g + d)`
        - **output:** :math:`(B, d, D, H, W)` or :math:`(|\mathcal{V}|, d)`

    Raises:
        ValueError: If the input has another width.
    """
    channel_axis = 1
    _scalar = staticmethod(torch.relu)
    _sigmoid = staticmethod(torch.sigmoid)
