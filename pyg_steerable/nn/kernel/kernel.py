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


class SteerableKernel(FieldModule):
    r"""A G-steerable kernel,

    .. math::
        k(\mathbf{x}, \mathbf{z}) = \sum_q h_q(\mathbf{x}, \mathbf{z}) \,
        \mathbf{B}_q \in \mathbb{R}^{d_{out} \times d_{in}}, \qquad
        k(g \mathbf{x}, \rho_z(g) \mathbf{z}) = \rho_{out}(g) \,
        k(\mathbf{x}, \mathbf{z}) \, \rho_{in}(g)^{-1}

    from a steerable basis :math:`h` and a learned
    :math:`\mathbf{B} \in \mathrm{Hom}_G(\rho_h \otimes \rho_{in},
    \rho_{out})` (`"Implicit Neural Convolutional Kernels"
    <https://arxiv.org/abs/2212.06096>`_, section 3.2).

    Each block of the basis is divided by the deviation of its sum over
    :math:`n` typical neighbours (normal positions, in units of the basis's
    radius, and normal attributes), measured at initialisation and kept as a
    buffer: the paper's generalised He initialisation (section 5.1), with the
    mean counted :math:`n` times as neighbours' features in deep networks are
    alike,

    .. math::
        s^2 = n \, \langle h^2 \rangle + n (n - 1) \langle h \rangle^2.

    Then :math:`\sum_j k_j \mathbf{x}_j` has about the variance :obj:`gain`
    squared for :math:`\mathbf{x}` of unit variance.

    Args:
        basis (SteerableBasis): The basis.
        in_type, out_type (FieldType): The types of features.
        num_neighbors (float, optional): The typical number of neighbours
            :math:`n`. (default: :obj:`1.0`)
        gain (float, optional): (default: :obj:`1.0`)
    """
    def __init__(self, basis: SteerableBasis, in_type: FieldType,
                 out_type: FieldType, num_neighbors: float = 1.0,
                 gain: float = 1.0):
        super().__init__()
        if not isinstance(basis, SteerableBasis):
            raise TypeError(f"Expected 'basis' to be a SteerableBasis (got "
                            f"{checks.show(basis)})")
        self.basis = basis
        self.set_types(in_type, out_type)
        self.product = BilinearTerm(basis.field_type, self.in_type,
                                    self.out_type)
        self.num_neighbors = checks.scale('num_neighbors', num_neighbors)
        self.gain = checks.scale('gain', gain)
        self.keep_in_full('scale')
        self.register_buffer('scale', torch.ones(
            basis.field_type.dim,
            dtype=self._dtype('scale', torch.get_default_dtype())))
        # The weights take the scale, of which they are far fewer than of the
        # basis on all edges.
        first = [p.u for p in self.product.paths]
        self.register_constant('column', torch.tensor(
            first, dtype=torch.long, device='cpu').repeat_interleave(
                torch.tensor([p.numel for p in self.product.paths],
                             dtype=torch.long, device='cpu')))
        self.reset_parameters()

    def reset_parameters(self):
        """Draws all weights again and measures the scale of the basis."""
        self.basis.reset_parameters()
        self.product.reset_parameters()
        if not self.scale.is_meta:
            self._measure()

    @torch.no_grad()
    def _measure(self) -> None:
        positions, attr = (t.to(self.scale.device, self.scale.dtype)
                           for t in typical_inputs(self.basis))
        self.basis.calibrate(positions, attr)
        training = self.basis.training
        h = self.basis.eval()(positions, attr)
        self.basis.train(training)
        n = self.num_neighbors
        variance = n * h.square().mean(0) + n * (n - 1) * h.mean(0).square()
        for s in self.basis.field_type.slices:
            deviation = variance[s].mean().sqrt()
            self.scale[s] = self.gain / deviation.clamp(min=1e-6)

    def weight(self) -> Tensor:
        r"""The weights of :math:`\mathbf{B}`, with the scale of the basis, in
        at least float32.
        """
        scale = self.scale[self.column]
        weight = self.product.weight
        return scale if weight is None else weight * scale

    @property
    def unreached(self) -> list[tuple]:
        """The blocks (copies, representation) of the output that no part of
        the basis leads to: they are zero, whatever the weights.
        """
        return self.product.unreached

    def convolve(self, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                 num_dst: int, order: str = 'auto') -> Tensor:
        r"""Sums the source nodes' features, taken through the kernels of the
        edges, at the targets: :math:`\sum_e k_e \, \mathbf{x}_{src(e)}`,
        where :obj:`h` is :obj:`basis(positions, attr)`. See
        :func:`pyg_steerable.ops.contract`. Sums are taken and returned in at
        least float32.

        Shapes:
            - **h:** :math:`[E, d_h]`, **x:** :math:`[N_{src}, d_{in}]`,
              **output:** :math:`[N_{dst}, d_{out}]`
        """
        return self.product(h, x, src, dst, num_dst, order, self.weight())

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        r"""The kernel as matrices (the reference; convolutions do not form
        them).

        Shapes:
            - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
              **output:** :math:`[E, d_{out}, d_{in}]`
        """
        return self.product.dense(self.basis(positions, attr), self.weight())

    def example(self, generator: torch.Generator) -> Example:
        """What the basis takes, and matrices between fields."""
        return self.basis.example(generator)._replace(
            out_types=(Matrices(self.in_type, self.out_type), ))
