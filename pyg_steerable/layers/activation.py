"""Equivariant non-linearities."""
from __future__ import annotations

import math

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from .. import checks
from ..fields import FieldType
from ..ops.precision import at_least_float32, full_precision
from ..queries import block_kinds, field_index, field_mean, scalar_fields
from ..representations import Representation
from .bilinear import BilinearTerm
from .constants import ConstantModule
from .reach import warn_unreached
from .readout import InvariantReadout
from .sphere import sphere_samples


def build_activation(activation, field_type: FieldType) -> torch.nn.Module:
    """The layer that a user's class, or another callable, makes for fields of
    a type.
    """
    if isinstance(activation, torch.nn.Module) or not callable(activation):
        raise TypeError(f"Expected 'activation' to be a callable that builds "
                        f"a layer from a FieldType, such as NormGate (got "
                        f"{checks.show(activation)})")
    layer = activation(field_type)
    if not isinstance(layer, torch.nn.Module):
        raise TypeError(f"Expected 'activation' to build a layer, a "
                        f"torch.nn.Module (got {checks.show(layer)})")
    return layer


class QuotientELU(ConstantModule):
    r"""ELU on functions on the sphere :math:`S^2`, the quotient ELU of
    `"A Program to Build E(n)-Equivariant Steerable CNNs"
    <https://openreview.net/forum?id=WE4qe9xlnQw>`_ as used in `"Implicit
    Neural Convolutional Kernels" <https://arxiv.org/abs/2212.06096>`_,
    section 5.1.

    Fields :obj:`0e + 1o + ... + L` are read as the coefficients of a
    band-limited function, sampled, passed through ELU and projected back:

    .. math::
        \mathbf{y} = \mathbf{Z} \, \mathrm{ELU}(\mathbf{Y} \mathbf{x}), \qquad
        Y_{n, lm} = Y_{lm}(\mathbf{r}_n), \quad
        \mathbf{Z} = (\mathbf{Y}^{\top} \mathbf{w} \mathbf{Y})^{-1}
        \mathbf{Y}^{\top} \mathbf{w}

    scaled to keep unit variance. For a *finite* group the samples are
    invariant under the group and the layer is equivariant to rounding. For
    continuous groups ELU makes degrees that the samples cannot tell from
    those kept; the error falls with the number of samples (see
    :obj:`docs/equivariance.md` for figures).

    Args:
        field_type (FieldType): Natural-parity irreps with multiplicities
            that do not grow with the degree: :math:`m_L` functions of degree
            L, :math:`m_{L-1} - m_L` of degree :math:`L - 1`, and so on.
        samples (int, optional): The least number of samples, at most 5000.
            (default: :math:`12 (L + 1)^2`)

    Shapes:
        - **input:** :math:`[*, d]`, **output:** :math:`[*, d]`, in the dtype
          of the input

    Raises:
        ValueError: If the type does not hold functions on the sphere.
    """
    def __init__(self, field_type: FieldType, samples: int | None = None):
        super().__init__()
        self.field_type = field_type = FieldType.wrap(field_type)
        channels = _sphere_channels(field_type)
        self.samples = samples if samples is None else checks.integer(
            'samples', samples, 1, 5000)
        self.degrees = []
        self.num_samples = 0
        for degree, count, columns in channels:
            Y, Z = self._transforms(degree)
            self.register_constant(f'Y{degree}', Y)
            self.register_constant(f'Z{degree}', Z)
            self.register_constant(f'columns{degree}', columns)
            self.degrees.append((degree, count))
            self.num_samples = max(self.num_samples, len(Y))
        order = torch.cat([c[2] for c in channels]) if channels else \
            torch.zeros(0, dtype=torch.long, device='cpu')
        self.register_constant('back', torch.argsort(order))
        self._identity = order.tolist() == list(range(len(order)))

    def _transforms(self, degree: int) -> tuple[Tensor, Tensor]:
        samples = self.samples or 12 * (degree + 1)**2
        if degree == 0:
            Y = torch.ones(1, 1, dtype=torch.float64, device='cpu')
            return Y, Y * _elu_gain(Y, Y)
        points, weight = sphere_samples(self.field_type.group, degree,
                                        samples)
        with torch.device('cpu'):  # whatever the default device
            Y = o3.spherical_harmonics(list(range(degree + 1)), points,
                                       normalize=False,
                                       normalization='component')
        Y = Y / Y.shape[1]**0.5  # unit coefficients give unit samples
        weighted = Y.T * weight
        Z = torch.linalg.solve(weighted @ Y, weighted)
        return Y, Z * _elu_gain(Y, Z)

    def forward(self, x: Tensor) -> Tensor:
        self.check_fields(self.field_type, x)
        if not self.degrees:
            return x
        out = []
        with full_precision(x):
            for degree, count in self.degrees:
                Y, Z = (getattr(self, f'{name}{degree}') for name in 'YZ')
                dtype = at_least_float32(x, Y)
                columns = getattr(self, f'columns{degree}')
                f = (x if self._identity else x[..., columns]).to(dtype)
                f = f.unflatten(-1, (count, -1)) @ Y.to(dtype).T
                f = torch.nn.functional.elu(f) @ Z.to(dtype).T
                out.append(f.flatten(-2))
        out = torch.cat(out, dim=-1) if len(out) > 1 else out[0]
        return (out if self._identity else out[..., self.back]).to(x.dtype)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.field_type}, '
                f'samples={self.num_samples})')


def _sphere_channels(field_type: FieldType):
    """(degree, channels, columns) with the columns of a channel together."""
    starts: dict[int, list[int]] = {}
    for (mul, rep), s in zip(field_type.blocks, field_type.slices):
        if isinstance(rep, Representation) or rep.p != (-1)**rep.l:
            # Under a group without parity a pseudo-scalar is a scalar, but a
            # pseudo-vector is still no function on the sphere.
            raise ValueError(_no_sphere(field_type, f"'{rep}'"))
        starts.setdefault(rep.l, []).extend(
            s.start + m * rep.dim for m in range(mul))
    counts = [len(starts.get(l, ())) for l in range(max(starts, default=-1) +
                                                    1)]
    if sorted(counts, reverse=True) != counts:
        raise ValueError(_no_sphere(
            field_type, f'multiplicities {counts} of degrees 0, 1, ...'))
    channels, first = [], 0
    for degree in reversed(range(len(counts))):
        count = counts[degree] - first
        if count:
            columns = [
                starts[l][c] + i for c in range(first, first + count)
                for l in range(degree + 1) for i in range(2 * l + 1)
            ]
            channels.append((degree, count,
                             torch.tensor(columns, device='cpu')))
        first += count
    return channels


def _no_sphere(field_type, got) -> str:
    return (f"Expected 'field_type' to hold functions on the sphere: irreps "
            f"0e, 1o, 2e, ... with multiplicities that do not grow with the "
            f"degree (got {field_type} with {got}). Use "
            f"'FieldType.sphere(channels, max_degree, group)', or a Gate or "
            f"NormActivation for other types")


def _elu_gain(Y: Tensor, Z: Tensor) -> float:
    r"""The factor that gives the output unit variance for unit normal input.

    With :math:`\mathrm{ELU} = \sum_k a_k He_k / \sqrt{k!}` samples of
    correlation :math:`\rho` give products of mean
    :math:`\sum_k a_k^2 \rho^k`.
    """
    node, weight = np.polynomial.hermite_e.hermegauss(200)
    weight = weight / weight.sum()
    elu = np.where(node > 0, node, np.expm1(np.minimum(node, 0)))
    rho = (Y @ Y.T).numpy()
    product, power = 0., np.ones_like(rho)
    before, he = np.zeros_like(node), np.ones_like(node)
    for k in range(24):
        product = product + (weight @ (elu * he))**2 * power
        power = power * rho
        before, he = he, (node * he - k**0.5 * before) / (k + 1)**0.5
    Z = Z.numpy()
    return float((np.einsum('an,nm,am->', Z, product, Z) / len(Z))**-0.5)


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


class NormActivation(ConstantModule):
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
    def __init__(self, field_type: FieldType, eps: float = 1e-4):
        super().__init__()
        self.field_type = field_type = FieldType.wrap(field_type)
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
            torch.nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        self.check_fields(self.field_type, x)
        if not self.field_type.dim:
            return x
        with full_precision(x):
            full = x.to(at_least_float32(x, self.mean_of))
            square = full.square() @ self.mean_of.to(full.dtype)
            norm = (square + self.eps).sqrt()[..., self.index]
            size = torch.where(self.scalar, full, norm)
            gate = size * self.weight[self.index] + self.bias[self.index]
        return x * gate.sigmoid().to(x.dtype)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.field_type})'


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


class TensorProductActivation(torch.nn.Module):
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
    def __init__(self, in_type: FieldType, out_type: FieldType | None = None):
        super().__init__()
        self.in_type = FieldType.wrap(in_type)
        self.out_type = (self.in_type if out_type is None else
                         FieldType.wrap(out_type))
        self.product = BilinearTerm(self.in_type, self.in_type, self.out_type)
        if self.in_type.dim:
            warn_unreached(type(self).__name__, self.product.unreached,
                           self.out_type, f'pairs of {self.in_type}')

    def reset_parameters(self):
        """Draws the weights again."""
        self.product.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.in_type.check(x, 'x')
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        n = rows.shape[0]  # may be a symbol, which len() would fix
        index = torch.arange(n, device=x.device)
        out = self.product(rows, rows, index, index, n, 'aggregate')
        return out.view(*x.shape[:-1], self.out_type.dim)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, {self.out_type})'
