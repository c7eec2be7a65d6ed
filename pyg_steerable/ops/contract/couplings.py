"""Couplings of blocks of fields: an equivariant bilinear map but for its
weights.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ... import checks

#: Wider fields, or more nodes, than this are a mistake.
MAX_SIZE = 2**31 - 1


class Coupling(NamedTuple):
    """One coupling :math:`U_u \\otimes V_v \\to W_w` of blocks of fields:
    offset, copies and components of each, and the number s of maps. The
    copies of V and W may fall into groups of as many each, of which the first
    of V leads to the first of W, and so on.
    """
    u: int
    mu: int
    du: int
    v: int
    mv: int
    dv: int
    w: int
    mw: int
    dw: int
    s: int
    groups: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the weights: copies of W, maps, copies of U, and those
        copies of V that are in the group.
        """
        return self.mw, self.s, self.mu, self.mv // self.groups

    @property
    def numel(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    def transposed(self) -> Coupling:
        """The coupling, of one group, with the roles of V and W exchanged."""
        return Coupling(self.u, self.mu, self.du, self.w, self.mw, self.dw,
                        self.v, self.mv, self.dv, self.s)


class Couplings(NamedTuple):
    r"""All couplings of an equivariant bilinear map :math:`U \otimes V \to
    W`.

    Args:
        terms (tuple[Coupling, ...]): Which blocks they couple.
        bases (tuple[Tensor, ...]): The maps :math:`Q^c` [s, dw, du, dv] of
            each.
        u_dim, v_dim, w_dim (int): The widths of U, V and W.
    """
    terms: tuple[Coupling, ...]
    bases: tuple[Tensor, ...]
    u_dim: int
    v_dim: int
    w_dim: int

    def transposed(self) -> Couplings:
        """The couplings with the roles of V and W exchanged."""
        return Couplings(tuple([c.transposed() for c in self.terms]),
                         tuple([Q.transpose(1, 3) for Q in self.bases]),
                         self.u_dim, self.w_dim, self.v_dim)

    @property
    def is_grouped(self) -> bool:
        """Whether the copies of some block fall into groups."""
        return any(c.groups > 1 for c in self.terms)

    def ungrouped(self, weight: Tensor) -> tuple[Couplings, Tensor]:
        """The same couplings of all copies with all, and weights that are
        zero between groups.
        """
        if not self.is_grouped:
            return self, weight
        parts = [weight.new_zeros(0)]
        for c, W in zip(self.terms, split_weights(weight, self.terms)):
            n, own = c.groups, torch.eye(c.groups, dtype=weight.dtype,
                                         device=weight.device)
            # [n, mw/n, s, mu, 1, mv/n] times [n, 1, 1, 1, n, 1]
            W = W.unflatten(0, (n, c.mw // n)).unsqueeze(4)
            parts.append((W * own.view(n, 1, 1, 1, n, 1)).flatten())
        terms = tuple([c._replace(groups=1) for c in self.terms])
        return self._replace(terms=terms), torch.cat(parts)

    def check(self) -> Couplings:
        """Raises an error unless the parts fit together."""
        for name, values, kind in (('terms', self.terms, Coupling),
                                   ('bases', self.bases, Tensor)):
            if not isinstance(values, (list, tuple)) or not all(
                    isinstance(value, kind) for value in values):
                raise TypeError(f"Expected '{name}' to be a tuple of "
                                f"{kind.__name__} (got "
                                f"{checks.show(values)})")
        if len(self.bases) != len(self.terms):
            raise ValueError(f"Expected 'bases' to hold one tensor for each "
                             f"of the {len(self.terms)} couplings (got "
                             f"{len(self.bases)})")
        for c, Q in zip(self.terms, self.bases):
            checks.tensor('bases', Q)
            checks.shaped('bases', Q, (c.s, c.dw, c.du, c.dv),
                          '[s, dw, du, dv]')
            if c.groups < 1 or c.mv % c.groups or c.mw % c.groups:
                raise ValueError(f"Expected 'groups' to divide the {c.mv} and "
                                 f"{c.mw} copies of a coupling (got "
                                 f"{c.groups})")
        for name, width, ends in (
                ('u_dim', self.u_dim, [c.u + c.mu * c.du
                                       for c in self.terms]),
                ('v_dim', self.v_dim, [c.v + c.mv * c.dv
                                       for c in self.terms]),
                ('w_dim', self.w_dim, [c.w + c.mw * c.dw
                                       for c in self.terms])):
            checks.integer(name, width, max(ends, default=0), MAX_SIZE)
        return self


def flatten(terms: Sequence[Coupling]) -> list[int]:
    """Couplings as the plain list of integers that operators take."""
    return [n for c in terms for n in c]


def parse(layout: Sequence[int]) -> list[Coupling]:
    """The couplings of a plain list of integers."""
    n = len(Coupling._fields)
    return [Coupling(*layout[i:i + n]) for i in range(0, len(layout), n)]


def pack(bases: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The maps Q of all couplings as one flat tensor: what takes lists of
    tensors is refused by many a tool.
    """
    return torch.cat([Q.flatten() for Q in bases]).to(dtype)


def unpack(bases: Tensor, layout: Sequence[int]) -> list[Tensor]:
    """The maps Q of all couplings, each [s, dw, du, dv], of a flat tensor."""
    shapes = [(c.s, c.dw, c.du, c.dv) for c in parse(layout)]
    return [Q.view(shape) for Q, shape in zip(
        bases.split([math.prod(shape) for shape in shapes]), shapes)]


def split_weights(weight: Tensor, terms: Sequence[Coupling]) -> list[Tensor]:
    """The weights of each coupling, [mw, s, mu, mv] or, in groups, less, of a
    flat tensor.
    """
    return [W.view(c.shape) for c, W in zip(
        terms, weight.split([c.numel for c in terms]))]
