"""Equivariant bilinear maps, with weights for every coupling of fields."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from ...ops import Coupling, Couplings, contract, dense_kernel
from ...ops.contract.couplings import split_weights
from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.intertwiners import bilinear_basis
from ..field import ROWS, Example, FieldModule, random_fields
from ..reach import MAX_MAP, warn_unreached


class Bilinear(FieldModule):
    r"""The general equivariant bilinear map :math:`U \otimes V \to W`,

    .. math::
        \mathbf{y}_w = \sum_{u, v, s} W^{uvw}_s \otimes Q^{uvw}_s \,
        (\mathbf{h}_u \otimes \mathbf{x}_v)

    where :math:`Q^{uvw}_s` is a basis of :math:`\mathrm{Hom}_G(u \otimes v,
    w)` and :math:`W^{uvw}_s` mixes the copies: the map *B* that turns
    steerable features into kernels (`"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_, section 4; `"Implicit Neural
    Convolutional Kernels" <https://arxiv.org/abs/2212.06096>`_, section 3.2).
    Independent inputs of unit variance give outputs of unit variance at
    initialisation.

    Args:
        u_type, v_type, w_type (FieldType): The types, of one group.

    Raises:
        ValueError: If the types belong to different groups or the map would
            be too large.
    """
    in_type: FieldType
    out_type: FieldType
    weight: Parameter | None
    flat_maps = ('weight', )

    def __init__(self, u_type: FieldType, v_type: FieldType,
                 w_type: FieldType):
        super().__init__()
        u_type, v_type, w_type = (FieldType.wrap(t)
                                  for t in (u_type, v_type, w_type))
        check_same_group(u_type, v_type, w_type)
        self.u_type, self.v_type, self.w_type = u_type, v_type, w_type
        self.set_types(v_type, w_type)
        self._terms = self._couple()
        size = sum(c.numel for c in self._terms)
        if size > MAX_MAP:
            raise ValueError(f'Expected types of at most {MAX_MAP} weights '
                             f'(got {size} for {u_type}, {v_type} -> '
                             f'{w_type})')
        self.register_weights('weight', size)
        self.reset_parameters()
        self._warn()

    def _couple(self) -> tuple[Coupling, ...]:
        """All couplings, whose maps Q become constants."""
        terms: list[Coupling] = []
        for (mw, w), sw in zip(self.w_type.blocks, self.w_type.slices):
            for (mu, u), su in zip(self.u_type.blocks, self.u_type.slices):
                for (mv, v), sv in zip(self.v_type.blocks,
                                       self.v_type.slices):
                    Q = bilinear_basis(u, v, w, self.u_type.group)
                    if len(Q):
                        self.register_constant(f'Q{len(terms)}', Q)
                        terms.append(Coupling(
                            su.start, mu, u.dim, sv.start, mv, v.dim,
                            sw.start, mw, w.dim, len(Q)))
        return tuple(terms)

    def _warn(self) -> None:
        if self.u_type.dim and self.v_type.dim:
            warn_unreached(type(self).__name__, self.unreached, self.w_type,
                           f'{self.u_type} and {self.v_type}')

    def reset_parameters(self):
        """Draws the weights for unit variance."""
        fan: dict[int, int] = {}
        for c in self._terms:
            fan[c.w] = fan.get(c.w, 0) + c.numel // c.mw
        if self.weight is None:
            return
        with torch.no_grad():
            torch.nn.init.normal_(self.weight)
            for c, W in zip(self._terms,
                            split_weights(self.weight, self._terms)):
                W.mul_((c.dw / fan[c.w])**0.5)

    @property
    def couplings(self) -> Couplings:
        """The couplings of blocks, and their maps Q as they now are."""
        return Couplings(
            self._terms,
            tuple([getattr(self, f'Q{i}') for i in range(len(self._terms))]),
            self.u_type.dim, self.v_type.dim, self.w_type.dim)

    @property
    def unreached(self) -> list[tuple]:
        """The blocks (copies, representation) of the output that no
        coupling leads to: they are zero, whatever the weights.
        """
        reached = {c.w for c in self._terms}
        return [block for block, s in zip(self.w_type.blocks,
                                          self.w_type.slices)
                if s.start not in reached]

    def forward(self, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                num_dst: int, order: str = 'auto', backend: str = 'auto',
                weight: Tensor | None = None) -> Tensor:
        r"""Sums :math:`B(h_e \otimes x_{src(e)})` at the targets, see
        :func:`pyg_steerable.ops.contract`; with other weights than its own
        if they are given. Sums are taken in at least float32.

        Shapes:
            - **h:** :math:`[E, d_U]`, **x:** :math:`[N_{src}, d_V]`,
              **output:** :math:`[N_{dst}, d_W]`, in the dtype of the weights

        Raises:
            ValueError: If shapes do not fit, an index is out of range, or
                the order or the backend is not known.
        """
        self.u_type.check(h, 'h')
        self.check_input(x)
        weight = self.weight if weight is None else weight
        if weight is None:  # no coupling, no weights
            weight = h.new_zeros(0)
        return contract(h, x, src, dst, num_dst, weight,
                        self.couplings, order, backend)

    def dense(self, h: Tensor, weight: Tensor | None = None) -> Tensor:
        r"""The maps of single edges as matrices, :math:`[E, d_W, d_V]`."""
        self.u_type.check(h, 'h')
        weight = self.weight if weight is None else weight
        if weight is None:
            return h.new_zeros(len(h), self.w_type.dim, self.v_type.dim)
        return dense_kernel(h, weight, self.couplings)

    def example(self, generator: torch.Generator) -> Example:
        """Fields on edges and on the nodes that these join."""
        h = random_fields(self.u_type, generator, 4 * ROWS)
        edges = torch.randint(ROWS, (2, len(h)), generator=generator,
                              device='cpu')
        return Example(
            (h, random_fields(self.v_type, generator), *edges, ROWS),
            (self.u_type, self.v_type, None, None, None), (self.w_type, ))

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.u_type}, {self.v_type} -> '
                f'{self.w_type}, couplings={len(self._terms)})')


class BilinearTerm(Bilinear):
    """A bilinear map inside a layer, which itself warns of what nothing
    reaches.
    """
    def _warn(self) -> None:
        pass
