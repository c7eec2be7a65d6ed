"""Gates: fields times the sigmoid of an invariant."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ... import checks
from ...symmetry.fields import FieldType
from ...symmetry.queries import (
    block_kinds,
    field_index,
    scalar_fields,
)
from ..constants import ConstantModule
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


class Gate(ConstantModule):
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
    def __init__(self, field_type: FieldType):
        super().__init__()
        self.out_type = field_type = FieldType.wrap(field_type)
        scalar = scalar_fields(field_type)
        self.num_gates = int((~scalar).sum())
        gates = FieldType([(self.num_gates, '0e')], field_type.group)
        self.in_type = gates + field_type
        index = field_index(field_type)
        # Which of [gates, fields] gates each component: a scalar, itself.
        own = torch.arange(field_type.dim, device='cpu') + self.num_gates
        gate = (~scalar).cumsum(0) - 1
        self.register_constant(
            'index', torch.where(scalar[index], own, gate[index]))
        gain = torch.where(scalar[index], _SILU_GAIN, _SIGMOID_GAIN)
        self.register_constant('gain', gain.double())

    def forward(self, x: Tensor) -> Tensor:
        self.check_fields(self.in_type, x)
        # SiLU is x sigmoid(x): a scalar is gated by itself.
        gate = x[..., self.index].sigmoid() * self.gain.to(x.dtype)
        return x[..., self.num_gates:] * gate

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.out_type})'


class NormGate(ConstantModule):
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

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`, in the dtype
          of the input
    """
    def __init__(self, field_type: FieldType):
        super().__init__()
        self.field_type = field_type = FieldType.wrap(field_type)
        self.readout = InvariantReadout(field_type, field_type.num_fields)
        self._blocks = block_kinds(field_type)

    def reset_parameters(self):
        """Draws the weights again."""
        self.readout.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.readout.check_fields(self.field_type, x)
        if not self._blocks:
            return x
        gates = self.readout._in_full(x).split(
            [mul for mul, _, _ in self._blocks], dim=-1)
        fields = x.split([mul * dim for mul, dim, _ in self._blocks], dim=-1)
        out = []
        for (mul, dim, is_scalar), g, f in zip(self._blocks, gates, fields):
            if is_scalar:
                out.append(torch.nn.functional.silu(g) * _SILU_GAIN)
                continue
            gate = g.sigmoid().unsqueeze(-1) * _SIGMOID_GAIN
            f = f.unflatten(-1, (mul, dim)) * gate
            out.append(f.flatten(-2))
        return torch.cat(out, dim=-1).to(x.dtype)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.field_type})'



def _check_second(x: Tensor, field_type: FieldType) -> None:
    checks.tensor('x', x, what='a tensor of voxels or of features')
    if x.dim() < 2 or x.shape[1] != field_type.dim:
        raise ValueError(f'Expected voxels or nodes with fields of type '
                         f'{field_type}, i.e. {field_type.dim} numbers in '
                         f'the second dimension (got shape {list(x.shape)})')


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
    def __init__(self, field_type: FieldType):
        super().__init__(field_type)
        self._blocks = block_kinds(self.out_type)

    def forward(self, x: Tensor) -> Tensor:
        _check_second(x, self.in_type)
        sizes = [mul * dim for mul, dim, _ in self._blocks]
        gates, *fields = x.split([self.num_gates, *sizes], dim=1)
        gates, first, out = gates.sigmoid().unsqueeze(2), 0, []
        for (mul, dim, is_scalar), f in zip(self._blocks, fields):
            if is_scalar:
                out.append(f.relu())
                continue
            f = f.unflatten(1, (mul, dim)) * gates[:, first:first + mul]
            out.append(f.flatten(1, 2))
            first += mul
        return torch.cat(out, dim=1) if out else x  # no fields
