"""ELU of functions on the sphere."""
from __future__ import annotations

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from ... import checks
from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType
from ...symmetry.representations import Representation
from ...symmetry.sphere import sphere_samples
from ..field import FieldModule


class QuotientELU(FieldModule):
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
    in_type: FieldType
    out_type: FieldType
    back: Tensor

    def __init__(self, field_type: FieldType, samples: int | None = None):
        super().__init__()
        self.set_types(field_type)
        channels = _sphere_channels(self.in_type)
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
        points, weight = sphere_samples(self.in_type.group, degree,
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
        self.check_input(x)
        if not self.degrees:
            return x
        parts = []
        with full_precision(x):
            for degree, count in self.degrees:
                Y, Z = (getattr(self, f'{name}{degree}') for name in 'YZ')
                dtype = at_least_float32(x, Y)
                columns = getattr(self, f'columns{degree}')
                f = (x if self._identity else x[..., columns]).to(dtype)
                f = f.unflatten(-1, (count, -1)) @ Y.to(dtype).T
                f = torch.nn.functional.elu(f) @ Z.to(dtype).T
                parts.append(f.flatten(-2))
        out = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        return (out if self._identity else out[..., self.back]).to(x.dtype)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_type}, '
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
    back = Z.numpy()
    return float((np.einsum('an,nm,am->', back, product, back) /
                  len(back))**-0.5)
