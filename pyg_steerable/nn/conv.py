"""The steerable convolution on graphs with positions, for any basis."""
from __future__ import annotations

from typing import Optional, Union

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import (
    Adj,
    OptPairTensor,
    OptTensor,
    PairTensor,
    Size,
)

from .. import checks
from ..fields import FieldType, check_same_group
from ..kernels import SteerableBasis
from ..kernels.kernel import SteerableKernel
from ..layers.linear import LinearTerm
from ..ops import ORDERS
from .edges import as_pair, check_edges, read_edges


class SteerableConv(MessagePassing):
    r"""The steerable point convolution from the `"Implicit Neural
    Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_ paper (eq. 13), with any steerable
    basis,

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{L} \mathbf{x}_i +
        \sum_{j \in \mathcal{N}(i)} e_{ij} \,
        k(\mathbf{p}_j - \mathbf{p}_i, \mathbf{z}_{ij}) \, \mathbf{x}_j,
        \qquad
        k(\mathbf{x}, \mathbf{z}) = \sum_q h_q(\mathbf{x}, \mathbf{z}) \,
        \mathbf{B}_q

    where :math:`h` is the basis, :math:`\mathbf{B}` a learned equivariant
    map (:class:`~pyg_steerable.kernels.SteerableKernel`) and
    :math:`\mathbf{L}` an equivariant linear map, the term :math:`i = j`. It
    commutes with translations and with the group of its types, to rounding
    if the basis does:

    .. math::
        \mathbf{x}^{\prime}(\rho_{in}(g) \mathbf{x}, g \mathbf{p} + \mathbf{t},
        \rho_z(g) \mathbf{z}) = \rho_{out}(g) \, \mathbf{x}^{\prime}.

    The matrices :math:`k` are never formed: outer products
    :math:`h_{ij} \otimes \mathbf{x}_j` are summed per node and go through
    :math:`\mathbf{B}` once (:func:`pyg_steerable.ops.contract`). Explainers
    and hooks of :class:`~torch_geometric.nn.MessagePassing` see the plain
    messages instead.

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        basis (SteerableBasis): The steerable basis.
        edge_type (FieldType, optional): The type of :obj:`edge_attr`.
            (default: :obj:`None`)
        node_type (FieldType, optional): The type of :obj:`node_attr`, taken
            from both ends of an edge. (default: :obj:`None`)
        aggr (str, optional): :obj:`"sum"` or :obj:`"mean"`; nothing else
            commutes with the group. (default: :obj:`"sum"`)
        root_weight (bool, optional): If set to :obj:`False`, the layer has
            no term :math:`\mathbf{L} \mathbf{x}_i`. (default: :obj:`True`)
        bias (bool, optional): If set to :obj:`False`, the layer adds no
            bias to invariant components. (default: :obj:`True`)
        num_neighbors (float, optional): The typical number of neighbours:
            sets the scale of the initial weights so that outputs have unit
            variance. (default: :obj:`16.0`)
        order (str, optional): The order of evaluation, see
            :func:`pyg_steerable.ops.contract`. (default: :obj:`"auto"`)
        validate (bool, optional): Check at every call, on any device and at
            the cost of a synchronisation, that positions are finite and
            indices in range. On the CPU indices are always checked.
            (default: :obj:`False`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, d_{in})` or
          :math:`((|\mathcal{V_s}|, d_{in}), (|\mathcal{V_t}|, d_{in}))` if
          bipartite (the second may be :obj:`None`), positions
          :math:`(|\mathcal{V}|, 3)` or a pair of them, edge indices
          :math:`(2, |\mathcal{E}|)`, edge attributes
          :math:`(|\mathcal{E}|, d_z)` *(optional)*, edge weights
          :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** node features :math:`(|\mathcal{V}|, d_{out})` or
          :math:`(|\mathcal{V_t}|, d_{out})` if bipartite

    Raises:
        ValueError: If types belong to different groups, an aggregation does
            not commute with the group, or shapes do not fit.
        TypeError: If :obj:`edge_index` does not hold integers.
    """
    propagate_type = {
        'x': OptPairTensor,
        'pos': PairTensor,
        'edge_attr': OptTensor,
        'edge_weight': OptTensor,
        'node_attr': Optional[PairTensor],
    }

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 basis: SteerableBasis, edge_type: FieldType | None = None,
                 node_type: FieldType | None = None, *, aggr: str = 'sum',
                 root_weight: bool = True, bias: bool = True,
                 num_neighbors: float = 16., order: str = 'auto',
                 validate: bool = False, **kwargs):
        if aggr not in ('sum', 'add', 'mean'):
            raise ValueError(
                f"Expected 'aggr' to be 'sum' or 'mean' (got {aggr!r}): the "
                f"group mixes the components of a field, and no other "
                f"aggregation commutes with that")
        if kwargs.get('decomposed_layers', 1) != 1:
            raise ValueError(
                f"Expected 'decomposed_layers' to be 1 (got "
                f"{kwargs['decomposed_layers']}): it would cut fields apart")
        if order not in ORDERS:
            raise ValueError(f"Expected 'order' to be one of {ORDERS} (got "
                             f"{order!r})")
        super().__init__(aggr='sum' if aggr == 'add' else aggr, **kwargs)
        # Explainers switch to this. PyG takes the class's attribute, which is
        # a base class's template if one of that was built before.
        type(self)._orig_propagate = MessagePassing.propagate
        self.in_type = FieldType.wrap(in_type)
        self.out_type = FieldType.wrap(out_type)
        group = self.in_type.group
        none = FieldType([], group)
        self.edge_type = FieldType.wrap(none if edge_type is None else
                                        edge_type)
        self.node_type = FieldType.wrap(none if node_type is None else
                                        node_type)
        check_same_group(self.in_type, self.out_type, self.edge_type,
                         self.node_type, basis.field_type)
        attr_type = self.edge_type + self.node_type + self.node_type
        if basis.attr_type != attr_type:
            raise ValueError(
                f"Expected a basis with attributes of type {attr_type}: "
                f"'edge_type' and twice 'node_type' (got {basis.attr_type})")
        self.order, self.validate = order, validate
        self.root_weight = root_weight
        num_neighbors = checks.positive('num_neighbors', num_neighbors)
        # Half of the variance from the neighbours, half from the root.
        self._share = 0.5**0.5 if root_weight else 1.
        gain = self._share * (num_neighbors if aggr == 'mean' else 1.)
        self.kernel = SteerableKernel(basis, self.in_type, self.out_type,
                                      num_neighbors, gain)
        self.lin = LinearTerm(self.in_type if root_weight else none,
                              self.out_type, bias=bias)
        self._scale_root()

    def _scale_root(self):
        with torch.no_grad():
            if self.lin.weight is not None:
                self.lin.weight.mul_(self._share)

    def reset_parameters(self):
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        self.kernel.reset_parameters()
        self.lin.reset_parameters()
        self._scale_root()

    def forward(
        self,
        x: Union[Tensor, OptPairTensor],
        pos: Union[Tensor, PairTensor],
        edge_index: Adj,
        edge_attr: OptTensor = None,
        edge_weight: OptTensor = None,
        size: Size = None,
        node_attr: Optional[Union[Tensor, PairTensor]] = None,
    ) -> Tensor:
        x, pos = as_pair('x', x), as_pair('pos', pos)
        if node_attr is not None:
            node_attr = as_pair('node_attr', node_attr)
        edges, edge_attr, edge_weight = read_edges(edge_index, edge_attr,
                                                   edge_weight, self.flow)
        self._check(x, pos, edge_attr, node_attr, size)
        check_edges(edges, pos, edge_attr, edge_weight, self.validate)
        if self._wants_messages:
            out = self._sum_messages(x, pos, edges, edge_attr, edge_weight,
                                     node_attr)
        else:
            out = self._convolve(x, pos, edges, edge_attr, edge_weight,
                                 node_attr)
        i = 1 if self.flow == 'source_to_target' else 0
        root = x[i]
        if root is None or not self.root_weight:
            root = out.new_zeros(pos[i].shape[0], self.lin.in_type.dim)
        return out + self.lin(root)

    def _sum_messages(self, x, pos, edges, edge_attr, edge_weight,
                      node_attr) -> Tensor:
        size = (pos[0].shape[0], pos[1].shape[0])
        if self.flow == 'source_to_target':
            return self.propagate(edges, x=x, pos=pos, edge_attr=edge_attr,
                                  edge_weight=edge_weight,
                                  node_attr=node_attr, size=size)
        # PyG's templates take the first of a pair for the sources whatever
        # the flow: here all nodes are put into one set, targets first.
        x = torch.cat([
            x[1].new_zeros(size[0], x[1].shape[1]) if x[0] is None else x[0],
            x[1]])
        pos = torch.cat(pos)
        node_attr = None if node_attr is None else 2 * (torch.cat(node_attr),)
        out = self.propagate(
            torch.stack([edges[0], edges[1] + size[0]]), x=(x, x),
            pos=(pos, pos), edge_attr=edge_attr, edge_weight=edge_weight,
            node_attr=node_attr, size=2 * (sum(size), ))
        return out[:size[0]]

    def _convolve(self, x, pos, edges, edge_attr, edge_weight,
                  node_attr) -> Tensor:
        j, i = (0, 1) if self.flow == 'source_to_target' else (1, 0)
        src, dst = edges[j], edges[i]
        num_dst = pos[i].shape[0]
        with self._full_precision(pos[i]):
            h = self.kernel.basis(
                self._relative(pos[j][src], pos[i][dst]),
                self._attributes(
                    edge_attr, None if node_attr is None else
                    node_attr[i][dst],
                    None if node_attr is None else node_attr[j][src]))
            if edge_weight is not None:
                h = h * edge_weight.to(h.dtype).view(-1, 1)
            out = self.kernel.convolve(h, x[j].to(h.dtype), src, dst,
                                       num_dst, self.order)
            if self.aggr == 'mean':
                count = out.new_zeros(num_dst).index_add(
                    0, dst, out.new_ones(1).expand(dst.shape[0]))
                out = out / count.clamp(min=1).view(-1, 1)
        return out

    @staticmethod
    def _full_precision(x: Tensor):
        """Geometry, basis and sums stay in the precision of the weights."""
        return torch.autocast(x.device.type, enabled=False)

    def _relative(self, pos_j: Tensor, pos_i: Tensor) -> Tensor:
        return (pos_j - pos_i).to(self.kernel.scale.dtype)

    def _attributes(self, edge_attr: OptTensor, attr_i: OptTensor,
                    attr_j: OptTensor) -> OptTensor:
        parts = []
        if self.edge_type.dim:
            parts.append(edge_attr)
        if self.node_type.dim:
            parts += [attr_i, attr_j]
        if not parts:
            return None
        return torch.cat(parts, dim=-1).to(self.kernel.scale.dtype)

    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor,
                edge_attr: OptTensor, edge_weight: OptTensor,
                node_attr_i: OptTensor, node_attr_j: OptTensor) -> Tensor:
        with self._full_precision(x_j):
            kernel = self.kernel(
                self._relative(pos_j, pos_i),
                self._attributes(edge_attr, node_attr_i, node_attr_j))
            out = (kernel @ x_j.to(kernel.dtype).unsqueeze(-1)).squeeze(-1)
            if edge_weight is not None:
                out = out * edge_weight.to(out.dtype).view(-1, 1)
        return out

    @property
    def _wants_messages(self) -> bool:
        return bool(self.order == 'reference' or self.explain
                    or self._message_forward_hooks
                    or self._message_forward_pre_hooks
                    or self._aggregate_forward_hooks
                    or self._aggregate_forward_pre_hooks
                    or self._propagate_forward_hooks
                    or self._propagate_forward_pre_hooks)

    def _check(self, x, pos, edge_attr, node_attr, size):
        self._check_nodes(x, pos)
        expected = (pos[0].shape[0], pos[1].shape[0])
        if size is not None and tuple(size) != expected:
            raise ValueError(f"Expected 'size' to be the numbers of "
                             f"positions, {expected} (got {tuple(size)}). "
                             f"It can be left out")
        self._check_attr('edge_attr', edge_attr, self.edge_type, 'edge_type')
        for attr in (None, ) if node_attr is None else node_attr:
            self._check_attr('node_attr', attr, self.node_type, 'node_type')
        for k in range(2 if node_attr is not None else 0):
            if node_attr[k].shape[0] != pos[k].shape[0]:
                raise ValueError(
                    f"Expected 'node_attr' to have one row for each of the "
                    f"{pos[k].shape[0]} nodes (got "
                    f"{list(node_attr[k].shape)})")

    def _check_nodes(self, x, pos):
        j = 0 if self.flow == 'source_to_target' else 1
        if x[j] is None:
            raise ValueError(f"Expected features of the source nodes, 'x"
                             f"[{j}]' (got None)")
        for k in range(2):
            if pos[k] is None or pos[k].dim() != 2 or pos[k].shape[1] != 3:
                got = None if pos[k] is None else list(pos[k].shape)
                raise ValueError(f"Expected 'pos' of shape [N, 3], one for "
                                 f"each set of nodes (got {got})")
            if x[k] is None:
                continue
            self.in_type.check(x[k], 'x')
            if x[k].dim() != 2 or x[k].shape[0] != pos[k].shape[0]:
                raise ValueError(
                    f"Expected 'x' and 'pos' to have one row per node (got "
                    f"{list(x[k].shape)} and {list(pos[k].shape)})")

    @staticmethod
    def _check_attr(name: str, attr: OptTensor, field_type: FieldType,
                    argument: str) -> None:
        if attr is None:
            if field_type.dim:
                raise ValueError(
                    f"Expected '{name}' of type {field_type}, i.e. shape "
                    f"[*, {field_type.dim}] (got None). Pass it, or build "
                    f"the layer without '{argument}'")
        elif field_type.dim == 0:
            raise ValueError(
                f"Expected no '{name}' (got shape {list(attr.shape)}). Name "
                f"its type with '{argument}' when building the layer")
        else:
            field_type.check(attr, name)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.in_type}, {self.out_type})'
