"""The kernel at the offsets of a stencil."""
from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from ... import checks
from ...ops.contract.couplings import split_weights
from ...ops.precision import full_precision
from ...symmetry.fields import FieldType
from ..pointwise import FieldBatchNorm
from ..reach import MAX_MAP
from .basis import SteerableBasis
from .kernel import Kernel

#: Elements of fixed bases up to this many numbers are kept, larger ones
#: sampled anew.
_KEEP = 2**22
#: Elements of smaller norm, compared with the largest, are rounding errors:
#: harmonics that vanish on a plane, say.
_NOTHING = 1e-5


class _Pair(NamedTuple):
    """A block of the output (w) and one of the input (v): copies and
    components, how many copies of the input one of the output sees, the
    number of elements, and the places of the couplings that they come from.
    """
    mw: int
    dw: int
    mv: int
    dv: int
    seen: int
    n: int
    couplings: tuple[int, ...]


class LatticeKernel(Kernel):
    r"""The :class:`Kernel` of lattices, at the :math:`K` offsets of a
    stencil. Its scales are those of `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_, section 4, and its code,

    .. math::
        c_b = \frac{1}{\lVert K_b \rVert}
        \sqrt{\frac{d_{out}}{n_{b} \, n_{in}}}

    where :math:`n_b` is the number of elements of a pair of input and output
    fields, :math:`n_{in}` the number of input fields that the output field
    sees, and the weights are drawn with unit variance. Elements so have unit
    norm over all offsets, and features of unit variance on a full grid keep
    it. Elements that vanish at all offsets do not count: their scale is zero.

    Args:
        basis (SteerableBasis): The basis, without attributes. Its batch
            norms, which see the same points always, are frozen.
        in_type, out_type (FieldType): The types of features.
        positions (Tensor): The offsets :math:`\mathbf{x}_k`, in the unit of
            the basis.
        gain (float, optional): (default: :obj:`1.0`)
        groups (int or str, optional): See :class:`SteerableKernel`.
            (default: :obj:`1`)

    Raises:
        ValueError: If the basis takes attributes, the types belong to
            different groups, or the kernel would be too large.
    """
    positions: Tensor
    place: Tensor

    def __init__(self, basis: SteerableBasis, in_type: FieldType,
                 out_type: FieldType, positions: Tensor, gain: float = 1.,
                 groups: int | str = 1):
        super().__init__(basis, in_type, out_type, gain, groups)
        checks.positions('positions', positions)
        checks.has_values('positions', positions, 'the sampled basis')
        if basis.attr_type.dim:
            raise ValueError(f'Expected a basis without attributes, as all '
                             f'edges of one offset share one kernel (got '
                             f'attributes of type {basis.attr_type})')
        for module in basis.modules():
            if isinstance(module, FieldBatchNorm):
                module.freeze()
        self.keep_in_full('positions')
        self.register_constant('positions', positions)
        self.pairs = self._pairs()
        per_offset = sum(p.n * p.dw * p.dv for p in self.pairs)
        most = len(positions) * max(per_offset, basis.field_type.dim,
                                    self.in_type.dim * self.product.w_type.dim)
        if most > MAX_MAP:
            raise ValueError(f"Expected a kernel of at most {MAX_MAP} numbers "
                             f"(got {most}). Take fewer fields or a smaller "
                             f"'kernel_size'")
        self.register_constant('place', self._places())
        self.is_fixed = not [*basis.parameters()]
        self.is_kept = self.is_fixed and (len(positions) * per_offset
                                          <= _KEEP)
        self._kept_for: dict | None = None  # lengths of the kept elements
        if self.is_kept:
            self._keep()
        self.reset_parameters()

    def _pairs(self) -> list[_Pair]:
        """All pairs of blocks, those of one output after one another."""
        terms, pairs = self.product.couplings.terms, []
        outputs = self.product.w_type
        for (mw, w), sw in zip(outputs.blocks, outputs.slices):
            for (mv, v), sv in zip(self.in_type.blocks, self.in_type.slices):
                own = [i for i, c in enumerate(terms)
                       if (c.w, c.v) == (sw.start, sv.start)]
                n = sum(terms[i].s * terms[i].mu for i in own)
                seen = terms[own[0]].shape[3] if own else mv
                pairs.append(_Pair(mw, w.dim, mv, v.dim, seen, n,
                                   tuple(own)))
        return pairs

    def _places(self) -> Tensor:
        """Where the weights of all pairs, each [mw, mv, n], are among those
        of all couplings.
        """
        couplings = self.product.couplings
        terms = [c._replace(groups=1) for c in couplings.terms]
        number = torch.arange(sum(c.numel for c in terms), device='cpu')
        index = [i.flatten(1, 2) for i in split_weights(number, terms)]
        places = [torch.cat([index[i] for i in pair.couplings], dim=1)
                  .transpose(1, 2).flatten() for pair in self.pairs if pair.n]
        return torch.cat([torch.zeros(0, dtype=torch.long, device='cpu'),
                          *places])

    def train(self, mode: bool = True) -> LatticeKernel:
        """The basis is always at the same points: no statistic changes."""
        super().train(mode)
        self.basis.eval()
        return self

    def reset_parameters(self):
        """Draws all weights again and measures the norms of the elements."""
        super().reset_parameters()
        if self.product.weight is not None:
            torch.nn.init.normal_(self.product.weight)

    def measure(self) -> Tensor:
        """Those of the paper."""
        self.basis.calibrate(self.positions, self.positions.new_zeros(
            len(self.positions), 0))
        self.basis.eval()
        scales: dict[int, Tensor] = {}
        size, terms = len(self.in_type), self.product.couplings.terms
        norms = [E.flatten(1).norm(dim=1) for E in self.elements()]
        largest = max((float(norm.max()) for norm in norms if len(norm)),
                      default=0.)
        alive = [norm > _NOTHING * largest for norm in norms]
        for i, (p, norm, some) in enumerate(zip(self.pairs, norms, alive)):
            first = i - i % size  # of the same output
            seen = sum(q.seen for q, a in zip(
                self.pairs[first:first + size], alive[first:]) if a.any())
            fan_in = p.dw / max(1, int(some.sum()) * seen)
            scale = torch.where(some, self.gain * fan_in**0.5 / norm, 0.)
            counts = [terms[k].s * terms[k].mu for k in p.couplings]
            scales.update(zip(p.couplings, scale.split(counts)))
        return torch.cat([self.scale.new_zeros(0)] + [
            scales[k].to(self.scale.dtype) for k in sorted(scales)])

    def _by_pair(self, values: Tensor) -> list[Tensor]:
        """Numbers of all elements, coupling after coupling, for each pair."""
        counts = [c.s * c.mu for c in self.product.couplings.terms]
        parts = values.split(counts) if counts else ()
        return [torch.cat([values.new_zeros(0),
                           *(parts[k] for k in p.couplings)])
                for p in self.pairs]

    def _load_from_state_dict(self, state_dict, prefix, local_metadata,
                              *args):
        # Before version 2, weights and scales went pair by pair.
        old = state_dict.pop(prefix + 'weight', None)
        if old is not None and old.numel() == self.place.numel():
            weight = torch.empty_like(old)
            weight[self._exact['place'].to(old.device)] = old
            state_dict[prefix + 'product.weight'] = weight
            scale = state_dict.get(prefix + 'scale')
            if scale is None:  # of a fixed basis, which was not saved
                state_dict[prefix + 'scale'] = self.scale
            elif scale.shape == self.scale.shape:
                number = torch.arange(len(scale), device='cpu')
                order = torch.cat(self._by_pair(number)).to(scale.device)
                state_dict[prefix + 'scale'] = torch.empty_like(
                    scale).index_copy(0, order, scale)
            local_metadata = {**local_metadata, 'version': self._version}
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      *args)

    def elements(self) -> list[Tensor]:
        r"""The elements :math:`K_b` at all offsets, for each pair of blocks
        of :obj:`out_type` and :obj:`in_type`.

        Shapes:
            - **output:** :math:`[n_b, d_w, d_v, K]` each
        """
        if not self.is_kept:
            return self._sample()
        if not torch.compiler.is_compiling():  # which takes what is there
            lengths = self.basis.lengths
            if self._kept_for is None or any(
                    self._kept_for[n] is not lengths[n] for n in lengths):
                self._keep()
        return [getattr(self, f'E{i}') for i in range(len(self.pairs))]

    @torch.no_grad()
    def _keep(self) -> None:
        """Samples a fixed basis once and for all, in float64."""
        with torch.device('cpu'):
            exact = copy.deepcopy(self).to_empty(device='cpu').double()
            elements = exact._sample()
        like = self.positions
        for i, E in enumerate(elements):
            name = f'E{i}'
            if name not in self._exact:
                self.keep_in_full(name)
            self.register_constant(name, E)
            self._buffers[name] = E.to(
                like.device, self._dtype(name, like.dtype), copy=True)
        self._kept_for = self.basis.lengths

    def _sample(self) -> list[Tensor]:
        h, couplings = self.basis(self.positions), self.product.couplings
        out = []
        for pair in self.pairs:
            parts = [h.new_zeros(0, pair.dw, pair.dv, len(h))]
            for k in pair.couplings:
                c, Q = couplings.terms[k], couplings.bases[k].to(h.dtype)
                h_u = h[:, c.u:c.u + c.mu * c.du].reshape(len(h), c.mu, c.du)
                parts.append(torch.einsum('kui,swiv->suwvk', h_u,
                                          Q).flatten(0, 1))
            out.append(torch.cat(parts))
        return out

    def sampled(self) -> Tensor:
        r"""The kernel at the stencil's offsets, which come last.

        Shapes:
            - **output:** :math:`[d_{out}, d_{in}, K]`
        """
        K, weight = len(self.positions), self.product.weight
        if weight is None:
            return self.positions.new_zeros(self.out_type.dim,
                                            self.in_type.dim, K)
        with full_precision(self.scale):
            _, weights = self.product.couplings.ungrouped(self.weight())
            weights = weights[self.place].split(
                [p.mw * p.mv * p.n for p in self.pairs])
            blocks = [
                (W.view(p.mw * p.mv, p.n) @ E.flatten(1)).view(
                    p.mw, p.mv, p.dw, p.dv, K).transpose(1, 2).reshape(
                        p.mw * p.dw, p.mv * p.dv, K)
                for p, W, E in zip(self.pairs, weights, self.elements())
            ]
            size = len(self.in_type)
            rows = [torch.cat(blocks[i:i + size], dim=1)
                    for i in range(0, len(blocks), size)]
            kernel = torch.cat(rows).permute(2, 0, 1)
            return self._mixed(kernel).permute(1, 2, 0).to(weight.dtype)

    # A lattice has no attributes, but positions of its own.
    def forward(  # type: ignore[override]
            self, positions: Tensor | None = None) -> Tensor:
        r"""The kernel as matrices, at the stencil's or at other offsets.

        Shapes:
            - **positions:** :math:`[K, 3]`, **output:**
              :math:`[K, d_{out}, d_{in}]`
        """
        if positions is None:
            return self.sampled().permute(2, 0, 1)
        checks.positions('positions', positions)
        return super().forward(positions.to(self.positions.dtype))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.basis}, {self.in_type} -> '
                f'{self.out_type}, offsets={len(self.positions)})')
