r"""Field types: which quantities live on a node, and how they transform.

A field type is a list of blocks, each a number of copies of one
representation of O(3) *seen under the group G*: a vector is a vector whatever
the group. The memory layout is e3nn's: blocks one after another, in each
block the copies, in each copy the :math:`2l+1` components.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

from .. import checks
from .escnn_reader import is_from_escnn, read_field_type
from .groups import Group, read_matrices
from .representations import (
    MAX_DEGREE,
    Representation,
    rep_degree,
    rep_matrix,
)

#: More components than any layer can map: more likely a mistake.
MAX_DIM = 2**20


class FieldType:
    r"""Which fields a tensor's last dimension holds, under a group.

    .. code-block:: python

        FieldType('16x0e + 8x1o', group='SO(2)')     # e3nn's notation
        FieldType.sphere(channels=16, max_degree=2, group='O(3)')
        FieldType([(4, Representation.regular('C4'))], 'C4')

    Args:
        irreps (str, o3.Irreps or list): Blocks of e3nn irreps, or a list of
            :obj:`(copies, representation)` where a representation is an
            irrep or a :class:`Representation`.
        group (Group or str): The group under which the fields are seen.
            (default: :obj:`"O(3)"`)

    Raises:
        ValueError: If the irreps cannot be read, a degree is above 11, a
            representation belongs to another group, or there are more than
            1,048,576 components.
    """
    def __init__(self, irreps, group: Group | str = 'O(3)'):
        self.group = Group.wrap(group)
        self.blocks = tuple(_read_blocks(irreps, self.group))
        self.dim = sum(mul * rep.dim for mul, rep in self.blocks)
        if self.dim > MAX_DIM:
            raise ValueError(f"Expected 'irreps' of at most {MAX_DIM} "
                             f"components (got {self.dim})")

    @classmethod
    def sphere(cls, channels: int, max_degree: int,
               group: Group | str = 'O(3)') -> FieldType:
        r"""Functions on the sphere band-limited at :obj:`max_degree`:
        :obj:`channels` copies of :obj:`0e + 1o + 2e + ...`.
        """
        channels = checks.integer('channels', channels, 0, MAX_DIM)
        max_degree = checks.integer('max_degree', max_degree, 0, MAX_DEGREE)
        return cls([(channels, o3.Irrep(degree, (-1)**degree))
                    for degree in range(max_degree + 1)], group)

    @classmethod
    def wrap(cls, field_type, group: Group | str | None = None) -> FieldType:
        r"""Returns a :class:`FieldType` from one, from an escnn
        :obj:`FieldType`, or, given a group, from anything that the
        constructor reads.

        Raises:
            TypeError: If it is none of these.
        """
        if isinstance(field_type, cls):
            return field_type
        if is_from_escnn(field_type):
            return cls(*read_field_type(field_type))
        if group is not None:
            return cls(field_type, group)
        raise TypeError(
            f"Expected a FieldType (got {type(field_type).__name__} "
            f"{checks.show(field_type)}). Build one with "
            f"FieldType('16x0e + 8x1o', group='SO(2)')")

    # Structure #############################################################

    @property
    def irreps(self) -> o3.Irreps:
        """The type as e3nn irreps.

        Raises:
            ValueError: If a block is not an irrep of O(3).
        """
        for _, rep in self.blocks:
            if isinstance(rep, Representation):
                raise ValueError(f"Expected a type of O(3) irreps only (got "
                                 f"{self}, where '{rep}' is given by "
                                 f"matrices). Use '.blocks' instead")
        return o3.Irreps(list(self.blocks))

    @property
    def slices(self) -> list[slice]:
        """Where each block lies in the last dimension."""
        out, start = [], 0
        for mul, rep in self.blocks:
            out.append(slice(start, start + mul * rep.dim))
            start = out[-1].stop
        return out

    @property
    def num_fields(self) -> int:
        """The number of fields, i.e. of copies over all blocks."""
        return sum(mul for mul, _ in self.blocks)

    @property
    def max_degree(self) -> int:
        """The highest degree that occurs (0 for the empty type)."""
        return max((rep_degree(rep) for _, rep in self.blocks), default=0)

    @property
    def is_invariant(self) -> bool:
        """Whether no element of the group moves a field of this type."""
        R = torch.cat([self.group.components, self.group.generators])
        eye = torch.eye(self.dim, dtype=torch.float64, device='cpu')
        return bool(((self.matrix(R) - eye).abs() < 1e-9).all())

    def restrict(self, group: Group | str) -> FieldType:
        """The same quantities seen under a subgroup.

        Raises:
            ValueError: If it is not a subgroup.
        """
        group = Group.wrap(group)
        if not group.is_subgroup_of(self.group):
            raise ValueError(f'Expected a subgroup of {self.group} (got '
                             f'{group})')
        blocks = []
        for mul, rep in self.blocks:
            if isinstance(rep, Representation):
                rep = Representation(group, rep(group.generators), rep.name)
            blocks.append((mul, rep))
        return FieldType(blocks, group)

    # Action ################################################################

    def matrix(self, R) -> Tensor:
        r"""The matrix :math:`\rho(R)` of the whole type, float64. Irreps of
        O(3) have one for every orthogonal matrix, in the group or not.

        Shapes:
            - **R:** :math:`[*, 3, 3]`, **output:** :math:`[*, d, d]`

        Raises:
            ValueError: If a matrix is not orthogonal, or outside of the group
                where a block is a :class:`Representation`.
        """
        R = read_matrices('R', R)
        out = torch.zeros(*R.shape[:-2], self.dim, self.dim,
                          dtype=torch.float64, device='cpu')
        start = 0
        for mul, rep in self.blocks:
            D = rep_matrix(rep, R)
            for _ in range(mul):
                stop = start + rep.dim
                out[..., start:stop, start:stop] = D
                start = stop
        return out

    def transform(self, x: Tensor, R) -> Tensor:
        r"""Applies a group element to fields, :math:`\rho(R) \mathbf{x}`.

        Args:
            x (Tensor): The fields, :math:`[*, d]`.
            R (Tensor): One element :math:`[3, 3]`, or one for each row,
                :math:`[*, 3, 3]`.

        Raises:
            ValueError: If the width is not that of the type, a matrix is no
                element of the group, or there are not as many as rows.
        """
        self.check(x, 'x')
        R = self.group.read('R', R)
        if R.dim() > 2 and R.shape[:-2] != x.shape[:-1]:
            raise ValueError(f"Expected 'R' to be one element [3, 3], or one "
                             f"for each row of 'x', "
                             f"{[*x.shape[:-1], 3, 3]} (got {list(R.shape)})")
        return self._act(x, R)

    def act(self, x: Tensor, R: Tensor) -> Tensor:
        r"""What :meth:`transform` does, for any orthogonal matrices: irreps
        of O(3) know how to turn outside of the group, too. Shows that a layer
        does *not* commute with them.
        """
        self.check(x, 'x')
        return self._act(x, read_matrices('R', R))

    def _act(self, x: Tensor, R: Tensor) -> Tensor:
        out = []
        for (mul, rep), s in zip(self.blocks, self.slices):
            D = rep_matrix(rep, R).to(x.device, x.dtype)
            block = x[..., s].unflatten(-1, (mul, rep.dim))
            out.append((block @ D.mT).flatten(-2))
        return torch.cat(out, dim=-1) if out else x.clone()

    def check(self, x: Tensor, name: str, axis: int = -1) -> None:
        """Raises a TypeError unless :obj:`x` is a dense tensor of floating
        numbers, and a ValueError unless it has the width of the type along
        an axis, the last dimension or the second one.
        """
        checks.tensor(name, x, what='a tensor of fields')
        if not -x.dim() <= axis < x.dim() or x.shape[axis] != self.dim:
            where = 'last' if axis == -1 else 'second'
            raise ValueError(f"Expected '{name}' to hold fields of type "
                             f"{self}, i.e. {self.dim} numbers in its {where} "
                             f"dimension (got shape {list(x.shape)})")

    # Values ################################################################

    def __add__(self, other: FieldType) -> FieldType:
        if not isinstance(other, FieldType):
            return NotImplemented
        check_same_group(self, other)
        return FieldType(self.blocks + other.blocks, self.group)

    def __len__(self) -> int:
        return len(self.blocks)

    def __eq__(self, other) -> bool:
        if not isinstance(other, FieldType):
            return NotImplemented
        return self.blocks == other.blocks and self.group == other.group

    def __hash__(self) -> int:
        return hash((self.blocks, self.group))

    def __repr__(self) -> str:
        text = '+'.join(f'{mul}x{rep}' for mul, rep in self.blocks)
        return f"FieldType({text or '0'}, {self.group.name})"


def _read_blocks(irreps, group: Group):
    if isinstance(irreps, FieldType):
        irreps = irreps.blocks
    if irreps is None:
        raise TypeError("Expected 'irreps' in e3nn's notation, e.g. '16x0e + "
                        "8x1o', or a list of blocks (got None)")
    single = (str, Representation, o3.Irrep)  # an Irrep is a tuple, too
    if isinstance(irreps, single[1:]):
        irreps = [(1, irreps)]
    if isinstance(irreps, (list, tuple)):
        pairs = [(1, p) if isinstance(p, single) else p for p in irreps]
    else:
        try:
            pairs = [(mul, ir) for mul, ir in o3.Irreps(irreps)]
        except Exception as error:  # e3nn raises whatever there is
            raise ValueError(
                f"Expected 'irreps' in e3nn's notation, e.g. '16x0e + 8x1o' "
                f"(got {checks.show(irreps)})") from error
    return [(mul, rep) for mul, rep in
            (_read_block(pair, group) for pair in pairs) if mul > 0]


def _read_block(pair: Sequence, group: Group):
    try:
        copies, rep = pair
    except Exception as error:  # of whatever was given
        raise ValueError(f"Expected 'irreps' to hold pairs of copies and a "
                         f"representation, e.g. (16, '1o') (got "
                         f"{checks.show(pair)})") from error
    mul = checks.integer('copies', copies, 0, MAX_DIM)
    if isinstance(rep, Representation):
        if rep.group != group:
            raise ValueError(f"Expected representations of {group} (got "
                             f"'{rep}' of {rep.group})")
        return mul, rep
    try:
        rep = o3.Irrep(rep)
    except Exception as error:  # e3nn raises whatever there is
        raise ValueError(f"Expected 'irreps' to hold an irrep of O(3) such "
                         f"as '1o', or a Representation (got "
                         f"{checks.show(rep)})") from error
    if rep.l > MAX_DEGREE:
        raise ValueError(f"Expected degrees up to {MAX_DEGREE} (got '{rep}')")
    return mul, rep


def check_same_group(*types: FieldType) -> None:
    """Raises a ValueError unless all types are of one group."""
    for other in types[1:]:
        if other.group != types[0].group:
            raise ValueError(
                f"Expected field types of one group (got {types[0]} and "
                f"{other}). Restrict one with '.restrict(group)'")
