"""Equivariant linear maps."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from ...ops.precision import as_weights
from ...symmetry.fields import FieldType
from ...symmetry.intertwiners import linear_basis
from ...symmetry.queries import invariant_vectors
from ..field import FieldModule
from ..reach import MAX_MAP, warn_unreached


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
    maps = ('weight', )

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 bias: bool = True):
        super().__init__()
        self.set_types(in_type, out_type)
        checks.flag('bias', bias)
        if self.in_type.dim * self.out_type.dim > MAX_MAP:
            raise ValueError(f"Expected 'in_type' and 'out_type' of a matrix "
                             f"of at most {MAX_MAP} numbers (got "
                             f"{self.out_type.dim} x {self.in_type.dim})")
        self._fan_in = _Fans()
        entry, weight, value = _expansion(self.in_type, self.out_type,
                                          self._fan_in)
        self.register_constant('entry', entry)  # where in the matrix
        self.register_constant('term', weight)  # which weight
        self.register_constant('value', value)  # times what
        self.register_weights('weight', self._fan_in.numel)
        if bias:
            basis = invariant_vectors(self.out_type)
            self.register_constant('bias_basis', basis)
            self.register_weights('bias', basis.shape[1])
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
        reached[self._exact['entry'] // max(1, self.in_type.dim)] = True
        if self.bias is not None:
            reached |= self._exact['bias_basis'].any(1)
        return [block for block, s in zip(self.out_type.blocks,
                                          self.out_type.slices)
                if not reached[s].any()]

    def reset_parameters(self):
        """Draws the weights for unit variance, and no bias."""
        with torch.no_grad():
            if self.weight is not None:
                self._fan_in.draw(self.weight)
            if self.bias is not None:
                self.bias.zero_()

    def matrix(self) -> Tensor:
        r"""The map as a matrix, :math:`[d_{out}, d_{in}]`."""
        size = self.out_type.dim * self.in_type.dim
        if self.weight is None:
            flat = self.value.new_zeros(size)
        else:
            terms = self.weight[self.term] * self.value
            flat = terms.new_zeros(size).index_add(0, self.entry, terms)
        return flat.view(self.out_type.dim, self.in_type.dim)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        x = as_weights(x, self.value.dtype)
        bias = None
        if self.bias is not None:
            bias = self.bias_basis @ self.bias
        return torch.nn.functional.linear(x, self.matrix(), bias)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, {self.out_type})'


class LinearTerm(Linear):
    """A linear map that is one term of a sum: other terms may reach the
    fields that it does not.
    """
    def _warn(self) -> None:
        pass


class _Fans:
    """Consecutive runs of weights with the deviation each is drawn with."""
    def __init__(self):
        self.runs: list[tuple[int, float]] = []

    @property
    def numel(self) -> int:
        return sum(n for n, _ in self.runs)

    def draw(self, weight: Tensor) -> None:
        torch.nn.init.normal_(weight)
        deviation = [weight.new_full((n, ), std) for n, std in self.runs]
        if deviation:
            weight.mul_(torch.cat(deviation))


def _expansion(in_type: FieldType, out_type: FieldType, fans: _Fans):
    """Every non-zero term weight x value of every entry of the matrix."""
    entries, terms, values, offset = [], [], [], 0
    for (mw, w), sw in zip(out_type.blocks, out_type.slices):
        bases = [linear_basis(v, w, in_type.group)
                 for _, v in in_type.blocks]
        fan = sum(mv * len(Q) for (mv, _), Q in zip(in_type.blocks, bases))
        for (mv, v), sv, Q in zip(in_type.blocks, in_type.slices, bases):
            if not len(Q):
                continue
            s, i, j = Q.nonzero(as_tuple=True)
            row = torch.arange(mw, device='cpu')[:, None, None]
            column = torch.arange(mv, device='cpu')[:, None]
            entry = ((sw.start + row * w.dim + i) * in_type.dim + sv.start +
                     column * v.dim + j)
            entries.append(entry.flatten())
            term = offset + (s * mw + row) * mv + column
            terms.append(term.flatten())
            values.append(Q[s, i, j].expand(mw, mv, -1).flatten())
            numel = len(Q) * mw * mv
            fans.runs.append((numel, (w.dim / fan)**0.5))
            offset += numel
    if not entries:
        empty = torch.zeros(0, dtype=torch.long, device='cpu')
        return empty, empty.clone(), empty.double()
    return torch.cat(entries), torch.cat(terms), torch.cat(values)
