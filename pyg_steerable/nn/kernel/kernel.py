"""A steerable basis followed by a learned equivariant linear map."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import checks
from ...symmetry.fields import FieldType
from ...symmetry.groups import Group
from ..field import Example, FieldModule
from ..pointwise.bilinear import BilinearTerm
from ..pointwise.grouped import GroupedTerm, check_groups
from ..pointwise.linear import LinearTerm
from .basis import SteerableBasis, typical_inputs


class Matrices(NamedTuple):
    r"""The type of matrices between fields, [*, d_out, d_in]: they turn into
    :math:`\rho_{out}(g) \, k \, \rho_{in}(g)^{-1}`.
    """
    in_type: FieldType
    out_type: FieldType

    @property
    def group(self) -> Group:
        """The group of the fields."""
        return self.in_type.group

    def act(self, k: Tensor, R: Tensor) -> Tensor:
        """The matrices turned."""
        k = self.out_type.act(k.mT, R).mT
        return k @ self.in_type.matrix(R.mT).to(k.device, k.dtype)


class Kernel(FieldModule):
    r"""A G-steerable kernel,

    .. math::
        k(\mathbf{x}, \mathbf{z}) = \sum_b w_b \, c_b \, K_b(\mathbf{x},
        \mathbf{z}) \in \mathbb{R}^{d_{out} \times d_{in}}, \qquad
        k(g \mathbf{x}, \rho_z(g) \mathbf{z}) = \rho_{out}(g) \,
        k(\mathbf{x}, \mathbf{z}) \, \rho_{in}(g)^{-1}

    where the *elements* :math:`K_b = Q_b \, h` are all products of the fields
    of a steerable basis :math:`h` with equivariant maps :math:`Q_b \in
    \mathrm{Hom}_G(\rho_h \otimes \rho_{in}, \rho_{out})`, for each pair of an
    input and an output field, and the weights :math:`w_b` are learned
    (`"Implicit Neural Convolutional Kernels"
    <https://arxiv.org/abs/2212.06096>`_, section 3.2; `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_, section 4). The scales :math:`c_b`
    are a buffer that subclasses measure at initialisation, by
    :meth:`measure`, before they call :meth:`reset_parameters`.

    Kernels of less rank keep the channels of the input apart, or apart in
    groups, and mix them by an equivariant linear map :math:`\mathbf{M}` after
    it (:obj:`mix`),

    .. math::
        k(\mathbf{x}, \mathbf{z}) = \mathbf{M} \bigoplus_{c, g}
        \sum_{b} w^{c g}_b \, c^c_b \, K^{c g}_b(\mathbf{x}, \mathbf{z})

    where *c* are the couplings of a block of the basis and one of the input
    to a representation of the output, and *g* groups of copies: for groups of
    one, :obj:`"depthwise"`, what `"Tensor Field Networks"
    <https://arxiv.org/abs/1802.08219>`_ and those after them do. They have
    fewer weights for each channel, so that more channels, and more features
    of the basis, are worth their time.

    Parameters and buffers are the same for all subclasses with the same basis
    and types: what was learned on points can be loaded on a lattice, and the
    other way round.
    """
    in_type: FieldType
    out_type: FieldType
    scale: Tensor
    element: Tensor
    _version = 2

    def __init__(self, basis: SteerableBasis, in_type: FieldType,
                 out_type: FieldType, gain: float = 1.0,
                 groups: int | str = 1):
        super().__init__()
        if not isinstance(basis, SteerableBasis):
            raise TypeError(f"Expected 'basis' to be a SteerableBasis (got "
                            f"{checks.show(basis)})")
        self.basis = basis
        self.set_types(in_type, out_type)
        self.groups = check_groups(groups)
        types = basis.field_type, self.in_type, self.out_type
        self.product: BilinearTerm
        self.mix: LinearTerm | None = None
        if self.groups == 1:
            self.product = BilinearTerm(*types)
        else:
            self.product = product = GroupedTerm(*types, self.groups)
            self.mix = LinearTerm(product.joined_type, self.out_type,
                                  bias=False)
        self.gain = checks.scale('gain', gain)
        # The weights take the scale, of which they are far fewer than of the
        # basis on all edges.
        self.register_constant('element', self._element_of_weights())
        self.keep_in_full('scale')
        self.register_buffer('scale', torch.ones(
            sum(c.s * c.mu for c in self.product.couplings.terms),
            dtype=self._dtype('scale', torch.get_default_dtype())))

    def _element_of_weights(self) -> Tensor:
        """The element, [s, mu] of a coupling, that each weight belongs to."""
        parts, start = [torch.zeros(0, dtype=torch.long, device='cpu')], 0
        for c in self.product.couplings.terms:
            own = torch.arange(start, start + c.s * c.mu, device='cpu')
            own = own.view(1, c.s, c.mu, 1)
            parts.append(own.expand(c.shape).flatten())
            start += c.s * c.mu
        return torch.cat(parts)

    def reset_parameters(self):
        """Draws all weights again and measures the scales."""
        self.basis.reset_parameters()
        self.product.reset_parameters()
        if self.mix is not None:
            self.mix.reset_parameters()
        if not self.scale.is_meta:
            with torch.no_grad():
                self.scale.copy_(self.measure())

    def _load_from_state_dict(self, state_dict, prefix, local_metadata,
                              *args):
        # Before version 2 there was one scale for each component of the
        # basis.
        scale = state_dict.get(prefix + 'scale')
        version = local_metadata.get('version')
        if scale is not None and scale.shape == (
                self.basis.field_type.dim, ) and (
                version == 1 or
                version is None and scale.shape != self.scale.shape):
            terms = self.product.couplings.terms
            state_dict[prefix + 'scale'] = torch.cat(
                [scale.new_zeros(0)] +
                [scale[c.u].expand(c.s * c.mu) for c in terms])
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      *args)

    def measure(self) -> Tensor:
        """The scales of all elements, coupling after coupling, each
        [s, mu].
        """
        raise TypeError(f"Expected a subclass of Kernel to define 'measure' "
                        f"(got {type(self).__name__})")

    def weight(self) -> Tensor:
        r"""The weights :math:`w_b c_b` of all couplings, each [mw, s, mu, mv
        / groups], in at least float32.
        """
        if self.product.weight is None:
            return self.scale.new_zeros(0)
        return self.product.weight * self.scale[self.element]

    def _maps_to(self, block: int) -> list[Tensor]:
        """The maps Q, float64, that lead to a block of the output, but for
        those whose scales are zero.
        """
        terms = self.product.couplings.terms
        scales = (self.scale.split([c.s * c.mu for c in terms]) if terms
                  else ())
        # What is mixed after it leads to all blocks of its representation.
        reached = self.product.w_type
        rep = self.out_type.blocks[block][1]
        starts = ([self.out_type.slices[block].start] if self.mix is None else
                  [s.start for (_, r), s in zip(reached.blocks,
                                                reached.slices) if r == rep])
        # Their originals, which have values also for meta layers.
        return [self.product._exact[f'Q{i}']
                for i, (c, scale) in enumerate(zip(terms, scales))
                if c.w in starts and (scale.is_meta or scale.any())]

    @property
    def unreached(self) -> list[tuple]:
        """The blocks (copies, representation) of the output that no part of
        the basis leads to: they are zero, whatever the weights.
        """
        return [block for i, block in enumerate(self.out_type.blocks)
                if not self._maps_to(i)]

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        r"""The kernel as matrices (the reference; convolutions do not form
        them).

        Shapes:
            - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
              **output:** :math:`[E, d_{out}, d_{in}]`
        """
        h = self.basis(positions, attr)
        return self._mixed(self.product.dense(h, self.weight()))

    def _mixed(self, k: Tensor) -> Tensor:
        """Matrices [*, d_out, d_in] of what :obj:`product` gives, after the
        map that mixes it.
        """
        return k if self.mix is None else self.mix.matrix().to(k.dtype) @ k

    def example(self, generator: torch.Generator) -> Example:
        """What the basis takes, and matrices between fields."""
        return self.basis.example(generator)._replace(
            out_types=(Matrices(self.in_type, self.out_type), ))


class SteerableKernel(Kernel):
    r"""The :class:`Kernel` of points, whose neighbours are anywhere. The
    scale of a block of the basis is one by the deviation of its sum over
    :math:`n` typical neighbours (normal positions, in units of the basis's
    radius, and normal attributes): the generalised He initialisation of
    `"Implicit Neural Convolutional Kernels"
    <https://arxiv.org/abs/2212.06096>`_, section 5.1, with the mean counted
    :math:`n` times as neighbours' features in deep networks are alike,

    .. math::
        c^{-2} = n \, \langle h^2 \rangle + n (n - 1) \langle h \rangle^2.

    Then :math:`\sum_j k_j \mathbf{x}_j` has about the variance :obj:`gain`
    squared for :math:`\mathbf{x}` of unit variance.

    Args:
        basis (SteerableBasis): The basis.
        in_type, out_type (FieldType): The types of features.
        num_neighbors (float, optional): The typical number of neighbours
            :math:`n`. (default: :obj:`1.0`)
        gain (float, optional): (default: :obj:`1.0`)
        groups (int or str, optional): Channels of the input are kept apart in
            so many groups, see :class:`Kernel`, or, if their number is no
            multiple of it, in as many as the greatest common divisor;
            :obj:`"depthwise"`: all of them. (default: :obj:`1`)

    Raises:
        ValueError: If the types belong to different groups.
    """
    def __init__(self, basis: SteerableBasis, in_type: FieldType,
                 out_type: FieldType, num_neighbors: float = 1.0,
                 gain: float = 1.0, groups: int | str = 1):
        super().__init__(basis, in_type, out_type, gain, groups)
        self.num_neighbors = checks.scale('num_neighbors', num_neighbors)
        self.reset_parameters()

    def measure(self) -> Tensor:
        """The same scale for all elements of a block of the basis."""
        positions, attr = (t.to(self.scale.device, self.scale.dtype)
                           for t in typical_inputs(self.basis))
        self.basis.calibrate(positions, attr)
        training = self.basis.training
        h = self.basis.eval()(positions, attr)
        self.basis.train(training)
        n = self.num_neighbors
        variance = n * h.square().mean(0) + n * (n - 1) * h.mean(0).square()
        deviation = {s.start: variance[s].mean().sqrt().clamp(min=1e-6)
                     for s in self.basis.field_type.slices}
        return torch.cat([variance.new_zeros(0)] + [
            (self.gain / deviation[c.u]).expand(c.s * c.mu)
            for c in self.product.couplings.terms])

    def convolve(self, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                 num_dst: int, order: str = 'auto',
                 backend: str = 'auto') -> Tensor:
        r"""Sums the source nodes' features, taken through the kernels of the
        edges, at the targets: :math:`\sum_e k_e \, \mathbf{x}_{src(e)}`,
        where :obj:`h` is :obj:`basis(positions, attr)`. See
        :func:`pyg_steerable.ops.contract`. Sums are taken and returned in at
        least float32.

        Shapes:
            - **h:** :math:`[E, d_h]`, **x:** :math:`[N_{src}, d_{in}]`,
              **output:** :math:`[N_{dst}, d_{out}]`
        """
        out = self.product(h, x, src, dst, num_dst, order, backend,
                           self.weight())
        return out if self.mix is None else self.mix(out)
