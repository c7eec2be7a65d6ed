"""What the convolutions of points and of lattices have in common."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from ... import checks
from ...symmetry.fields import FieldType
from ...symmetry.groups import Group
from ...symmetry.intertwiners import linear_basis
from ..field import FieldModule
from ..kernel.kernel import Kernel
from ..pointwise.linear import LinearTerm


def read_type(name: str, field_type, group: Group | str | None) -> FieldType:
    """A type, which may be text where the group is given."""
    field_type = FieldType.wrap(field_type, group)
    if group is not None and field_type.group != Group.wrap(group):
        raise ValueError(f"Expected '{name}' of {Group.wrap(group)}, the "
                         f"'group' (got {field_type}). Restrict it with "
                         f"'.restrict(group)', or leave 'group' out")
    return field_type


class FieldConv(MessagePassing, FieldModule):
    r"""A sum over neighbours and the node itself,

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{L} \mathbf{x}_i + \mathbf{b} +
        \sum_{j \in \mathcal{N}(i)} k_{ij} \, \mathbf{x}_j,

    with a steerable kernel :math:`k` (:obj:`kernel`) and an equivariant
    affine map (:obj:`lin`), whose linear part :obj:`root_weight` switches on.
    Subclasses say what neighbours are.
    """
    in_type: FieldType
    out_type: FieldType
    kernel: Kernel
    lin: LinearTerm
    backend: str
    # Of PyG's class, which is not typed.
    flow: str
    propagate: Callable[..., Tensor]

    def __init__(self, **kwargs):
        # The options of PyG's class, which comes first.
        super().__init__(**kwargs)

    def _set_types(self, in_type: FieldType, out_type: FieldType,
                   root_weight: bool) -> None:
        self.set_types(in_type, out_type)
        # Under the names that PyG's layers have.
        self.in_channels, self.out_channels = in_type.dim, out_type.dim
        self.root_weight = checks.flag('root_weight', root_weight)
        # Half of the variance from the neighbours, half from the root.
        self._share = 0.5**0.5 if root_weight else 1.

    def _set_maps(self, kernel: Kernel, bias: bool) -> None:
        none = FieldType([], self.in_type.group)
        self.kernel = kernel
        self.lin = LinearTerm(self.in_type if self.root_weight else none,
                              self.out_type, bias=checks.flag('bias', bias))
        self._scale_root()
        self._check_reach()

    def _scale_root(self) -> None:
        with torch.no_grad():
            if self.lin.weight is not None:
                self.lin.weight.mul_(self._share)

    def reset_parameters(self):
        r"""Resets all learnable parameters of the module."""
        MessagePassing.reset_parameters(self)
        self.kernel.reset_parameters()
        self.lin.reset_parameters()
        self._scale_root()

    @property
    def _wants_messages(self) -> bool:
        """Whether somebody looks at single messages."""
        return bool(self.backend == 'reference' or self.explain
                    or self._message_forward_hooks
                    or self._message_forward_pre_hooks
                    or self._aggregate_forward_hooks
                    or self._aggregate_forward_pre_hooks
                    or self._propagate_forward_hooks
                    or self._propagate_forward_pre_hooks)

    def _propagate(self, edge_index, **kwargs):
        """Plain messages. Of classes with subclasses, PyG keeps the wrong
        method for explainers.
        """
        if self.explain:
            return MessagePassing.propagate(self, edge_index, **kwargs)
        return self.propagate(edge_index, **kwargs)

    def _check_reach(self) -> None:
        """Names the fields of the output that stay zero."""
        if not self.in_type.dim or not self.out_type.dim:
            return
        nowhere: list[str] = []
        partly: list[str] = []
        for i, (mul, rep) in enumerate(self.out_type.blocks):
            maps = [Q.transpose(0, 1) for Q in self.kernel._maps_to(i)]
            if self.root_weight:
                maps += [linear_basis(v, rep, self.in_type.group).transpose(
                    0, 1) for _, v in self.in_type.blocks]
            rank = 0
            if maps:
                reached = torch.cat([M.flatten(1) for M in maps], 1)
                rank = int(torch.linalg.matrix_rank(
                    reached @ reached.T, 1e-6, hermitian=True))
            if rank < rep.dim:
                (partly if rank else nowhere).append(f'{mul}x{rep}')
        if len(nowhere) == len(self.out_type.blocks):
            raise ValueError(
                f"Expected kernels{self._where()} that lead from "
                f"{self.in_type} to 'out_type' (got {self.out_type}, to which "
                f"those up to the basis's {self.kernel.basis.field_type} do "
                f"not). Raise 'max_degree' or choose other types")
        if nowhere or partly:
            text = ' and '.join(
                t for t in (', '.join(nowhere), ', '.join(partly) and
                            f"a part of {', '.join(partly)}") if t)
            checks.warn(
                f'Nothing leads from {self.in_type} to {text} in '
                f'{self.out_type}{self._where()}: these fields of the output '
                f"of this {type(self).__name__} are zero. Raise 'max_degree' "
                f"or leave them out")

    def _where(self) -> str:
        """What a user may have to know about the neighbours."""
        return ''

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, {self.out_type})'
