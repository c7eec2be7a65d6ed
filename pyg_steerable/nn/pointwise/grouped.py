"""Equivariant bilinear maps that keep channels apart."""
from __future__ import annotations

from itertools import groupby
from math import gcd

from ... import checks
from ...ops import Coupling
from ...symmetry.fields import FieldType
from ...symmetry.intertwiners import bilinear_basis
from .bilinear import BilinearTerm

#: Groups of one channel each.
DEPTHWISE = 'depthwise'


def check_groups(groups: int | str) -> int | str:
    """A number of groups, or that every channel is one."""
    if groups == DEPTHWISE:
        return groups
    if isinstance(groups, str):
        raise ValueError(f"Expected 'groups' to be a number or "
                         f"'{DEPTHWISE}' (got {checks.show(groups)})")
    return checks.integer('groups', groups, 1)


class GroupedTerm(BilinearTerm):
    r"""The bilinear maps :math:`U \otimes V \to W_1 \oplus W_2 \oplus \ldots`
    where every coupling of a block of *U* and one of *V* to a representation
    of :obj:`w_type` has an output of its own, with as many copies as *V*, and
    mixes copies of *V* within groups only,

    .. math::
        \mathbf{y}^{uvw}_g = \sum_{s} W^{uvw}_{s g} \otimes Q^{uvw}_s \,
        (\mathbf{h}_u \otimes \mathbf{x}_{v g}).

    In groups of one copy it is the product of `"Tensor Field Networks"
    <https://arxiv.org/abs/1802.08219>`_ and of those after them.

    Args:
        u_type, v_type, w_type (FieldType): The types, of one group. The
            output has the type :obj:`self.w_type`, which consists of
            representations of :obj:`w_type`.
        groups (int or str): The copies of a block of *V* fall into so many
            groups, or as many as the greatest common divisor;
            :obj:`"depthwise"`: each is one.
    """
    def __init__(self, u_type: FieldType, v_type: FieldType,
                 w_type: FieldType, groups: int | str):
        # Before those of the module: they depend on it.
        self.groups = check_groups(groups)
        super().__init__(u_type, v_type, w_type)
        self.set_types(self.v_type, self.w_type)

    def _couple(self) -> tuple[Coupling, ...]:
        terms: list[Coupling] = []
        outputs, start = [], 0
        for w in dict.fromkeys(rep for _, rep in self.w_type.blocks):
            for (mu, u), su in zip(self.u_type.blocks, self.u_type.slices):
                for (mv, v), sv in zip(self.v_type.blocks,
                                       self.v_type.slices):
                    Q = bilinear_basis(u, v, w, self.u_type.group)
                    if not len(Q):
                        continue
                    n = (mv if self.groups == DEPTHWISE else
                         gcd(mv, int(self.groups)))
                    self.register_constant(f'Q{len(terms)}', Q)
                    terms.append(Coupling(
                        su.start, mu, u.dim, sv.start, mv, v.dim, start, mv,
                        w.dim, len(Q), n))
                    outputs.append((mv, w))
                    start += mv * w.dim
        self.w_type = FieldType(outputs, self.u_type.group)
        return tuple(terms)

    @property
    def joined_type(self) -> FieldType:
        """The type of the output with blocks of one representation, which
        follow each other, as one.
        """
        blocks = [(sum(mul for mul, _ in same), rep) for rep, same in groupby(
            self.w_type.blocks, lambda block: block[1])]
        return FieldType(blocks, self.w_type.group)
