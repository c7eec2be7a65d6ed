"""Kernels sampled at the offsets of a stencil."""
from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from ... import checks
from ...ops.precision import full_precision
from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.groups import Group
from ...symmetry.intertwiners import bilinear_basis
from ...symmetry.representations import MAX_DEGREE
from ..constants import ConstantModule
from ..pointwise import FieldBatchNorm
from ..reach import MAX_MAP
from .basis import SteerableBasis
from .harmonic import HarmonicBasis

#: The highest degree on the shell of radius m > 0, see lattice_harmonics.
CUTOFFS = {
    'conservative': lambda m: 2 * m,
    'compromise': lambda m: 2 * m + 1,
    'sfcnn': lambda m: 2 * m + 2,
}
#: The widest stencil: more is a mistake.
MAX_STENCIL = 127
#: Sampled bases up to this many numbers are kept, larger ones sampled anew.
_KEEP = 2**22
#: Elements this much smaller than the largest one are zero but for rounding.
_ZERO = 1e-6


def lattice_harmonics(group: Group | str, kernel_size: int, max_degree: int,
                      cutoff: str = 'compromise', sigma: float = 0.6
                      ) -> HarmonicBasis:
    r"""The basis of the `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_ paper: Gaussian shells at the radii
    :math:`m = 0, 1, \ldots, (s - 1) / 2` times harmonics up to a degree
    that grows with :math:`m`, as higher ones cannot be sampled there.

    Args:
        group (Group or str): The group.
        kernel_size (int): The stencil size :math:`s`.
        max_degree (int): The highest degree that is of use.
        cutoff (str, optional): The highest degree on the shells
            :math:`m = 0, 1, 2, \ldots`: :obj:`"conservative"` 0, 2, 4, 6,
            ..., :obj:`"compromise"` 0, 3, 5, 7, ..., the paper's, or
            :obj:`"sfcnn"` 0, 4, 6, 8, ... (default: :obj:`"compromise"`)
        sigma (float, optional): The width of the shells.
            (default: :obj:`0.6`)

    Raises:
        ValueError: If :obj:`cutoff` is none of the three.
    """
    checks.choice('cutoff', cutoff, tuple(CUTOFFS))
    kernel_size = checks.integer('kernel_size', kernel_size, 1, MAX_STENCIL)
    shells = kernel_size // 2 + 1
    band_limit = [0] + [CUTOFFS[cutoff](m) for m in range(1, shells)]
    max_degree = min(checks.integer('max_degree', max_degree, 0),
                     max(band_limit), MAX_DEGREE)
    # On a lattice no offset is near the origin but the origin itself: the
    # softening only has to keep it from being divided by.
    return HarmonicBasis(group, max_degree, float(max(1, shells - 1)), shells,
                         sigma, band_limit, softening=1e-8)


class _Pair(NamedTuple):
    """A block of the output (w) and one of the input (v): copies and
    components, the number of elements, and the maps they are made with.
    """
    mw: int
    dw: int
    mv: int
    dv: int
    n: int
    maps: tuple[tuple[slice, int, str], ...]

    @property
    def numel(self) -> int:
        """The number of weights, in the order [mw, mv, n]."""
        return self.mw * self.mv * self.n


class LatticeKernel(ConstantModule):
    r"""A G-steerable kernel at the :math:`K` offsets of a stencil,

    .. math::
        k(\mathbf{x}_k) = \sum_b w_b \, c_b \, K_b(\mathbf{x}_k), \qquad
        c_b = \frac{1}{\lVert K_b \rVert}
        \sqrt{\frac{d_{out}}{n_{b} \, n_{in}}}

    where the :math:`K_b` are all products of the basis's fields with
    equivariant maps, :math:`n_b` is their number for a pair of input and
    output fields, :math:`n_{in}` the number of input fields that the output
    field sees, and the weights are drawn with unit variance (`"3D Steerable
    CNNs" <https://arxiv.org/abs/1807.02547>`_, section 4, and its code).
    The :math:`K_b` have unit norm over all offsets, so that features of unit
    variance on a full grid keep it. Norms of a learned basis are those at
    initialisation, kept as a buffer.

    Args:
        basis (SteerableBasis): The basis, without attributes.
        in_type, out_type (FieldType): The types of features.
        positions (Tensor): The offsets :math:`\mathbf{x}_k`, in the unit of
            the basis.
        gain (float, optional): (default: :obj:`1.0`)

    Raises:
        ValueError: If the basis takes attributes, the types belong to
            different groups, or the kernel would be too large.
    """
    def __init__(self, basis: SteerableBasis, in_type: FieldType,
                 out_type: FieldType, positions: Tensor, gain: float = 1.):
        super().__init__()
        if not isinstance(basis, SteerableBasis):
            raise TypeError(f"Expected 'basis' to be a SteerableBasis (got "
                            f"{checks.show(basis)})")
        in_type, out_type = FieldType.wrap(in_type), FieldType.wrap(out_type)
        check_same_group(basis.field_type, in_type, out_type)
        checks.positions('positions', positions)
        checks.has_values('positions', positions, 'the sampled basis')
        gain = checks.scale('gain', gain)
        if basis.attr_type.dim:
            raise ValueError(f'Expected a basis without attributes, as all '
                             f'edges of one offset share one kernel (got '
                             f'attributes of type {basis.attr_type})')
        self.basis, self.gain = basis, gain
        for module in basis.modules():  # which sees the same points always
            if isinstance(module, FieldBatchNorm):
                module.freeze()
        self.in_type, self.out_type = in_type, out_type
        self.register_constant('positions', positions)
        known: dict[tuple, str] = {}  # the maps of each three reps
        self.pairs = [self._pair(w, v, known) for w in out_type.blocks
                      for v in in_type.blocks]
        size = sum(p.numel for p in self.pairs)
        per_offset = sum(p.n * p.dw * p.dv for p in self.pairs)
        most = max(size, len(positions) * max(
            per_offset, in_type.dim * out_type.dim, basis.field_type.dim))
        if most > MAX_MAP:
            raise ValueError(f"Expected a kernel of at most {MAX_MAP} numbers "
                             f"(got {most}). Take fewer fields or a smaller "
                             f"'kernel_size'")
        self.register_parameter(
            'weight', Parameter(torch.empty(size)) if size else None)
        self.is_fixed = not [*basis.parameters()]
        self.is_kept = False
        if self.is_fixed:  # sampled once and for all, in float64
            with torch.device('cpu'):
                exact = copy.deepcopy(self).to_empty(device='cpu')
                self._keep(exact.double(), per_offset)
        else:
            self.register_buffer('scale',
                                 torch.ones(sum(p.n for p in self.pairs)))
        self.reset_parameters()

    def _keep(self, exact: LatticeKernel, per_offset: int) -> None:
        exact.scale = exact._scales()
        self.register_constant('scale', exact.scale)
        if len(self.positions) * per_offset <= _KEEP:
            for i, E in enumerate(exact.elements()):
                self.register_constant(f'E{i}', E)
            self.is_kept = True

    def _pair(self, w, v, known: dict) -> _Pair:
        (mw, rep_w), (mv, rep_v), maps = w, v, []
        blocks = self.basis.field_type
        for (mu, rep_u), place in zip(blocks.blocks, blocks.slices):
            reps = (rep_u, rep_v, rep_w)
            name = known.setdefault(reps, f'Q{len(known)}')
            if name not in self._exact:
                self.register_constant(
                    name, bilinear_basis(*reps, blocks.group))
            if len(self._exact[name]):
                maps.append((place, mu, name))
        n = sum(mu * len(self._exact[name]) for _, mu, name in maps)
        return _Pair(mw, rep_w.dim, mv, rep_v.dim, n, tuple(maps))

    @property
    def unreached(self) -> list[tuple]:
        """The blocks (copies, representation) of the output that no part of
        the basis leads to: they are zero, whatever the weights.
        """
        size = len(self.in_type)
        return [block for i, block in enumerate(self.out_type.blocks)
                if not any(p.n for p in self.pairs[i * size:][:size])]

    @property
    def vanishing(self) -> list[tuple]:
        """The blocks of the output that parts of the basis lead to which are
        all zero at the offsets: in a plane, say, what is odd under its
        reflection.
        """
        scale = self._exact.get('scale', self.scale)
        if scale.is_meta or checks.is_traced(scale):
            return []
        parts = scale.split([p.n for p in self.pairs])
        size = len(self.in_type)
        return [block for i, block in enumerate(self.out_type.blocks)
                if any(p.n for p in self.pairs[i * size:][:size])
                and not torch.cat(parts[i * size:][:size]).any()]

    def train(self, mode: bool = True) -> LatticeKernel:
        """The basis is always at the same points: no statistic changes."""
        super().train(mode)
        self.basis.eval()
        return self

    def reset_parameters(self):
        """Draws all weights again and measures the norms of the basis."""
        if self.weight is not None:
            torch.nn.init.normal_(self.weight)
        self.basis.reset_parameters()
        if not self.is_fixed and not self.scale.is_meta:
            self.scale.copy_(self._scales())

    @torch.no_grad()
    def _scales(self) -> Tensor:
        """The c_b of all elements, none of those that are zero at all
        offsets but for rounding.
        """
        none = self.positions.new_zeros(len(self.positions), 0)
        self.basis.calibrate(self.positions, none)
        self.basis.eval()
        norms = [E.flatten(1).norm(dim=1)
                 for E in self._sample(self.basis(self.positions))]
        largest = torch.cat([self.positions.new_zeros(1), *norms]).max()
        there = [norm > _ZERO * largest for norm in norms]
        scales, size = [self.positions.new_zeros(0)], len(self.in_type)
        for i, (p, norm) in enumerate(zip(self.pairs, norms)):
            row = range(i - i % size, i - i % size + size)  # of one output
            seen = sum(self.pairs[j].mv * there[j].any() for j in row)
            fan_in = p.dw / (there[i].sum() * seen).clamp(min=1)
            scale = self.gain * fan_in.to(norm.dtype).sqrt() / norm
            scales.append(scale.where(there[i], 0.))
        return torch.cat(scales)

    def _sample(self, h: Tensor) -> Iterator[Tensor]:
        for p in self.pairs:
            parts = [h.new_zeros(0, p.dw, p.dv, len(h))]
            for place, mu, name in p.maps:
                Q = getattr(self, name)
                h_u = h[:, place].reshape(len(h), mu, Q.shape[2])
                parts.append(
                    torch.einsum('kui,swiv->suwvk', h_u, Q).flatten(0, 1))
            yield torch.cat(parts)

    def elements(self, positions: Tensor | None = None) -> list[Tensor]:
        r"""All :math:`c_b K_b`, for each pair of blocks of
        :obj:`out_type` and :obj:`in_type`.

        Shapes:
            - **output:** :math:`[n_b, d_w, d_v, K]` each
        """
        if positions is None and self.is_kept:
            return [getattr(self, f'E{i}') for i in range(len(self.pairs))]
        h = self.basis(self.positions if positions is None else positions)
        scales = self.scale.split([p.n for p in self.pairs])
        return [E * scale.view(-1, 1, 1, 1)
                for E, scale in zip(self._sample(h), scales)]

    def sampled(self, positions: Tensor | None = None) -> Tensor:
        r"""The kernel at the stencil's or at other offsets, with the offsets
        last.

        Shapes:
            - **output:** :math:`[d_{out}, d_{in}, K]`
        """
        if positions is not None:
            checks.positions('positions', positions)
            positions = positions.to(self.positions.dtype)
        K = len(self.positions if positions is None else positions)
        if self.weight is None:
            return self.positions.new_zeros(self.out_type.dim,
                                            self.in_type.dim, K)
        with full_precision(self.weight):
            weights = self.weight.split([p.numel for p in self.pairs])
            blocks = [
                (W.view(p.mw * p.mv, p.n) @ E.flatten(1)).view(
                    p.mw, p.mv, p.dw, p.dv, K).transpose(1, 2).reshape(
                        p.mw * p.dw, p.mv * p.dv, K)
                for p, W, E in zip(self.pairs, weights,
                                   self.elements(positions))
            ]
            size = len(self.in_type)
            rows = [torch.cat(blocks[i:i + size], dim=1)
                    for i in range(0, len(blocks), size)]
            return torch.cat(rows)

    def forward(self, positions: Tensor | None = None) -> Tensor:
        r"""The kernel as matrices, at the stencil's or at other offsets.

        Shapes:
            - **positions:** :math:`[K, 3]`, **output:**
              :math:`[K, d_{out}, d_{in}]`
        """
        return self.sampled(positions).permute(2, 0, 1)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.basis}, {self.in_type} -> '
                f'{self.out_type}, offsets={len(self.positions)})')
