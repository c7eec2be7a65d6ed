"""Equivariant linear maps."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from ... import checks
from ...ops.linear import (
    Block,
    Layout,
    Table,
    linear_by_blocks,
    linear_by_matrix,
    make_table,
    matrix,
    number_of_rows,
)
from ...ops.precision import as_weights
from ...symmetry.fields import FieldType
from ...symmetry.intertwiners import linear_basis
from ..field import FieldModule
from ..reach import MAX_MAP, warn_unreached

_TABLE = tuple(f'table_{name}' for name in Table._fields)


class Linear(FieldModule):
    r"""The general equivariant affine map between two field types,

    .. math::
        \mathbf{y}_w = \sum_{v, s} W^{w v}_{s} \otimes Q^{w v}_{s} \,
        \mathbf{x}_v + \mathbf{b}_w

    where :math:`Q^{wv}_s` is a basis of :math:`\mathrm{Hom}_G(v, w)`,
    :math:`W^{wv}_s` mixes the copies and the bias lies in the part of each
    field that the group leaves alone (all of a scalar; the component along
    the axis of a vector under SO(2)). It commutes with G to rounding. Inputs
    of unit variance give outputs of unit variance at initialisation.

    Args:
        in_type (FieldType): The type of the input.
        out_type (FieldType): The type of the output, of the same group.
        bias (bool, optional): (default: :obj:`True`)

    Shapes:
        - **input:** :math:`[*, d_{in}]`, **output:** :math:`[*, d_{out}]`,
          in the dtype of the weights (under autocast in that of autocast)

    Raises:
        ValueError: If the types belong to different groups, the map would
            be too large, or the input has another width.
    """
    in_type: FieldType
    out_type: FieldType
    maps: Tensor
    weight: Parameter | None
    bias: Parameter | None
    bias_term: Tensor
    bias_value: Tensor
    flat_maps = ('weight', )

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 bias: bool = True):
        super().__init__()
        self.set_types(in_type, out_type)
        checks.flag('bias', bias)
        if self.in_type.dim * self.out_type.dim > MAX_MAP:
            raise ValueError(f"Expected 'in_type' and 'out_type' of a matrix "
                             f"of at most {MAX_MAP} numbers (got "
                             f"{self.out_type.dim} x {self.in_type.dim})")
        self._layout, self._deviations, maps = _layout(self.in_type,
                                                       self.out_type)
        self.register_constant('maps', maps)  # all Q, each once
        table = make_table(maps, self._layout)
        for name, constant in zip(_TABLE, table or ()):
            self.register_constant(name, constant)
        self._has_table = table is not None
        self.register_weights('weight', self._layout.numel)
        if bias:
            size, term, value = _invariants(self.out_type)
            self.register_constant('bias_term', term.flatten())  # which number
            self.register_constant('bias_value', value)  # times what
            self.register_weights('bias', size)
        else:
            self.register_parameter('bias', None)
        self.reset_parameters()
        self._warn()

    def _warn(self) -> None:
        if self.in_type.dim:  # nobody expects anything from nothing
            warn_unreached(type(self).__name__, self.unreached,
                           self.out_type, f'{self.in_type}')

    @property
    def unreached(self) -> list[tuple]:
        """The blocks (copies, representation) of the output that neither
        weights nor bias lead to: they are zero.
        """
        reached = torch.zeros(self.out_type.dim, dtype=torch.bool,
                              device='cpu')
        for b in self._layout.blocks:
            reached[b.w] = True
        if self.bias is not None:
            reached |= self._exact['bias_value'].any(0)
        return [block for block, s in zip(self.out_type.blocks,
                                          self.out_type.slices)
                if not reached[s].any()]

    @property
    def dtype(self) -> torch.dtype:
        """That of weights and constants."""
        return self.maps.dtype

    @property
    def columns(self) -> Tensor:
        """The components of the input that weights take anything from."""
        found = [torch.zeros(0, dtype=torch.long, device='cpu')]
        for b in self._layout.blocks:
            used = b.maps(self._exact['maps']).view(-1, b.dv).any(0)
            copies = torch.arange(b.mv, device='cpu')[:, None]
            found.append((b.v + copies * b.dv +
                          used.nonzero().flatten()).flatten())
        return torch.cat(found).unique()

    def reset_parameters(self):
        """Draws the weights for unit variance, and no bias."""
        with torch.no_grad():
            if self.weight is not None:
                torch.nn.init.normal_(self.weight)
                for W, deviation in zip(self._layout.split(self.weight),
                                        self._deviations):
                    W.mul_(deviation)
            if self.bias is not None:
                self.bias.zero_()

    def matrix(self) -> Tensor:
        r"""The map as a matrix, :math:`[d_{out}, d_{in}]`."""
        return matrix(self.weight, self.maps, self._table, self._layout)

    @property
    def _table(self) -> Table | None:
        if not self._has_table:
            return None
        return Table(*map(self.get_buffer, _TABLE))

    def bias_vector(self) -> Tensor | None:
        r"""The bias of all components, :math:`[d_{out}]`."""
        if self.bias is None:
            return None
        value = self.bias_value
        terms = self.bias.index_select(0, self.bias_term)
        if len(value) == 1:  # the usual case, and one of few steps
            return terms * value[0]
        return (terms.view(value.shape) * value).sum(0)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        x, bias = as_weights(x, self.dtype), self.bias_vector()
        if self.weight is not None and self._layout.by_blocks(
                number_of_rows(x)):
            return linear_by_blocks(x, self.weight, bias, self.maps,
                                    self._layout)
        return linear_by_matrix(x, self.weight, bias, self.maps, self._table,
                                self._layout)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, {self.out_type})'


class LinearTerm(Linear):
    """A linear map that is one term of a sum: other terms may reach the
    fields that it does not.
    """
    def _warn(self) -> None:
        pass


def _layout(in_type: FieldType, out_type: FieldType
            ) -> tuple[Layout, list[float], Tensor]:
    """The blocks that maps lead between, the deviations that their weights
    are drawn with, and the maps, flat, each set once.
    """
    blocks, deviations, starts = [], [], {}
    maps = [torch.zeros(0, dtype=torch.float64, device='cpu')]
    for (mw, w), sw in zip(out_type.blocks, out_type.slices):
        bases = [linear_basis(v, w, in_type.group) for _, v in in_type.blocks]
        fan = sum(mv * len(Q) for (mv, _), Q in zip(in_type.blocks, bases))
        for (mv, v), sv, Q in zip(in_type.blocks, in_type.slices, bases):
            if not mw * mv * len(Q):
                continue
            if (v, w) not in starts:
                starts[v, w] = sum(map(len, maps))
                maps.append(Q.flatten())
            blocks.append(Block(sw.start, mw, w.dim, sv.start, mv, v.dim,
                                len(Q), starts[v, w],
                                int(Q.count_nonzero()), _identity(Q)))
            deviations.append((w.dim / fan)**0.5)
    return (Layout(blocks, out_type.dim, in_type.dim), deviations,
            torch.cat(maps))


def _invariants(field_type: FieldType) -> tuple[int, Tensor, Tensor]:
    """A bias is a map from a number, which is one: how many numbers it has,
    which of them each component takes, and times what, [n, d].
    """
    one = FieldType([(1, '0e')], field_type.group)
    layout, _, maps = _layout(one, field_type)
    most = max((b.s for b in layout.blocks), default=1)
    term = torch.zeros(most, field_type.dim, dtype=torch.long, device='cpu')
    value, first = term.double(), 0
    for b in layout.blocks:
        here = slice(b.w, b.w + b.mw * b.dw)
        number = first + torch.arange(b.numel, device='cpu').view(b.s, b.mw)
        term[:b.s, here] = number.repeat_interleave(b.dw, 1)
        value[:b.s, here] = b.maps(maps).repeat(1, b.mw)
        first += b.numel
    return layout.numel, term, value


def _identity(Q: Tensor) -> float | None:
    """The factor, if there is one map and it is a multiple of one."""
    s, dw, dv = Q.shape
    eye = torch.eye(dw, dv, dtype=Q.dtype, device='cpu')
    if s == 1 and dw == dv and torch.equal(Q[0], Q[0, 0, 0] * eye):
        return float(Q[0, 0, 0])
    return None
