"""The steerable convolution on graphs with positions, for any basis."""
from __future__ import annotations

from typing import Optional, Union

import torch
from torch import Tensor
from torch_geometric.typing import (
    Adj,
    OptPairTensor,
    OptTensor,
    PairTensor,
    Size,
)

from ... import checks
from ...ops.contract import check_backend, check_order
from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.groups import Group
from ..field import ROWS, Example, random_fields, random_positions
from ..kernel import BasisSpec, SteerableBasis, SteerableKernel
from ..kernel.spec import read_spec
from .base import FieldConv, read_type
from .edges import as_pair, check_edges, read_edges


class SteerableConv(FieldConv):
    r"""The steerable point convolution from the `"Implicit Neural
    Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_ paper (eq. 13), with any steerable
    basis,

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{L} \mathbf{x}_i +
        \sum_{j \in \mathcal{N}(i)} e_{ij} \,
        k(\mathbf{p}_j + \mathbf{s}_{ij} - \mathbf{p}_i, \mathbf{z}_{ij}) \,
        \mathbf{x}_j, \qquad
        k(\mathbf{x}, \mathbf{z}) = \sum_q h_q(\mathbf{x}, \mathbf{z}) \,
        \mathbf{B}_q

    where :math:`h` is the basis, :math:`\mathbf{B}` a learned equivariant
    map (:class:`~pyg_steerable.kernels.SteerableKernel`) and
    :math:`\mathbf{L}` an equivariant linear map, the term :math:`i = j`. In
    crystals the neighbour may be a periodic image: :math:`\mathbf{s}_{ij}`
    (:obj:`edge_shift`, otherwise zero) leads from node :math:`j` to it
    (:func:`pyg_steerable.graph.edge_shift`). The layer commutes with
    translations and with the group of its types, to rounding if the basis
    does:

    .. math::
        \mathbf{x}^{\prime}(\rho_{in}(g) \mathbf{x}, g \mathbf{p} + \mathbf{t},
        \rho_z(g) \mathbf{z}) = \rho_{out}(g) \, \mathbf{x}^{\prime}.

    The matrices :math:`k` are never formed: outer products
    :math:`h_{ij} \otimes \mathbf{x}_j` are summed per node and go through
    :math:`\mathbf{B}` once (:func:`pyg_steerable.ops.contract`). Explainers
    and hooks of :class:`~torch_geometric.nn.MessagePassing` see the plain
    messages instead.

    Kernels are made for neighbours at distances of about the radius of their
    basis and vanish beyond a few. :func:`~pyg_steerable.nn.calibrate` sets it
    from data; a layer whose first batch of training does not fit warns.

    Nodes without features get the same scalar each, e.g.
    :obj:`x = torch.ones(N, 1)` of type :obj:`'1x0e'`. Positions are no
    features: they move with translations, and the output would too.

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        basis (SteerableBasis, BasisSpec or str): The steerable basis, or
            what makes one for the types of this layer:
            :obj:`ImplicitBasis.spec(hidden=32)`, or a name,
            :obj:`"implicit"` or :obj:`"harmonic"`.
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
        backend (str, optional): What evaluates, see
            :func:`pyg_steerable.ops.contract`; :obj:`"reference"` for plain
            messages. (default: :obj:`"auto"`)
        validate (bool, optional): Check at every call, on any device and at
            the cost of a synchronisation, that positions are finite and
            indices in range. On the CPU indices are always checked.
            (default: :obj:`False`)
        group (Group or str, optional): The group of types that are given as
            text, e.g. :obj:`'8x0e + 4x1o'`. (default: :obj:`None`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, d_{in})` or
          :math:`((|\mathcal{V_s}|, d_{in}), (|\mathcal{V_t}|, d_{in}))` if
          bipartite (the second may be :obj:`None`, and is if there is one
          tensor for two sets of positions), positions
          :math:`(|\mathcal{V}|, 3)` or a pair of them, edge indices
          :math:`(2, |\mathcal{E}|)`, edge attributes
          :math:`(|\mathcal{E}|, d_z)` *(optional)*, edge weights
          :math:`(|\mathcal{E}|)` *(optional)*, node attributes
          :math:`(|\mathcal{V}|, d_n)` or a pair of them *(optional)*, edge
          shifts :math:`(|\mathcal{E}|, 3)` in the unit of the positions
          *(optional)*; of any floating dtype
        - **output:** node features :math:`(|\mathcal{V}|, d_{out})` or
          :math:`(|\mathcal{V_t}|, d_{out})` if bipartite, in the dtype of
          the weights

    Raises:
        ValueError: If types belong to different groups, an aggregation does
            not commute with the group, nothing leads from the input type to
            the output type, or shapes, indices or devices do not fit.
        TypeError: If an argument is no tensor, or of another kind of numbers.

    Warns:
        UserWarning: If nothing leads to a field of the output type, which
            stays zero; at the first batch of training, if its neighbours are
            too far or too close for the radius of the basis.
    """
    kernel: SteerableKernel
    propagate_type = {
        'x': OptPairTensor,
        'pos': PairTensor,
        'edge_attr': OptTensor,
        'edge_weight': OptTensor,
        'node_attr': Optional[PairTensor],
        'edge_shift': OptTensor,
    }

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 basis: SteerableBasis | BasisSpec | str,
                 edge_type: FieldType | None = None,
                 node_type: FieldType | None = None, *, aggr: str = 'sum',
                 root_weight: bool = True, bias: bool = True,
                 num_neighbors: float = 16., order: str = 'auto',
                 backend: str = 'auto', validate: bool = False,
                 group: Group | str | None = None, **kwargs):
        if not isinstance(aggr, str) or aggr not in ('sum', 'add', 'mean'):
            raise ValueError(
                f"Expected 'aggr' to be 'sum' or 'mean' (got "
                f"{checks.show(aggr)}): the group mixes the components of a "
                f"field, and no other aggregation commutes with that")
        if kwargs.get('decomposed_layers', 1) != 1:
            raise ValueError(
                f"Expected 'decomposed_layers' to be 1 (got "
                f"{kwargs['decomposed_layers']}): it would cut fields apart")
        checks.choice('flow', kwargs.get('flow', 'source_to_target'),
                      ('source_to_target', 'target_to_source'))
        num_neighbors = checks.scale('num_neighbors', num_neighbors)
        super().__init__(aggr='sum' if aggr == 'add' else aggr, **kwargs)
        self._set_types(read_type('in_type', in_type, group),
                        read_type('out_type', out_type, group), root_weight)
        none = FieldType([], self.in_type.group)
        self.edge_type = (none if edge_type is None else
                          read_type('edge_type', edge_type, group))
        self.node_type = (none if node_type is None else
                          read_type('node_type', node_type, group))
        attr_type = self.edge_type + self.node_type + self.node_type
        built: SteerableBasis
        groups: int | str = 1
        if isinstance(basis, SteerableBasis):
            built = basis
        else:
            spec = read_spec(basis)
            built = spec.for_types(self.in_type, self.out_type, attr_type)
            groups = spec.groups
        check_same_group(self.in_type, self.edge_type, self.node_type,
                         built.field_type)
        if built.attr_type != attr_type:
            raise ValueError(
                f"Expected a basis with attributes of type {attr_type}: "
                f"'edge_type' and twice 'node_type' (got {built.attr_type})")
        self.order = check_order(order)
        self.backend = check_backend(backend)
        self.validate = checks.flag('validate', validate)
        self._seen = False  # a batch of training
        gain = self._share * (num_neighbors if aggr == 'mean' else 1.)
        self._set_maps(SteerableKernel(built, self.in_type, self.out_type,
                                       num_neighbors, gain, groups), bias)

    def reset_parameters(self):
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        self._seen = False

    def forward(
        self,
        x: Union[Tensor, OptPairTensor],
        pos: Union[Tensor, PairTensor],
        edge_index: Adj,
        edge_attr: OptTensor = None,
        edge_weight: OptTensor = None,
        size: Size = None,
        node_attr: Optional[Union[Tensor, PairTensor]] = None,
        edge_shift: OptTensor = None,
    ) -> Tensor:
        j, i = (0, 1) if self.flow == 'source_to_target' else (1, 0)
        alone = isinstance(x, Tensor)
        x, pos = as_pair('x', x), as_pair('pos', pos)
        if alone and pos[0] is not pos[1]:  # features of the sources
            x = (x[j], None) if j == 0 else (None, x[j])
        if node_attr is not None:
            node_attr = as_pair('node_attr', node_attr)
        self._check_nodes(x, pos, node_attr, size)
        edges, edge_attr, edge_weight = read_edges(
            edge_index, edge_attr, edge_weight, edge_shift, pos, self.flow)
        self._check_attr('edge_attr', edge_attr, self.edge_type, 'edge_type')
        check_edges(edges, pos, edge_attr, edge_weight, edge_shift,
                    self.validate)
        checks.same_device(
            x=x[j], pos=pos[i], edge_index=edges, edge_attr=edge_attr,
            edge_weight=edge_weight, edge_shift=edge_shift,
            node_attr=None if node_attr is None else node_attr[i],
            weights=self.kernel.scale)
        dtype = self.dtype
        x = tuple(None if v is None else v.to(dtype) for v in x)
        graph = (x, pos, edges, edge_attr, edge_weight, node_attr, edge_shift)
        if self._wants_messages:
            out = self._sum_messages(*graph)
        else:
            out = self._convolve(*graph)
        root = x[i]
        if root is None or not self.root_weight:
            root = x[j].new_zeros(pos[i].shape[0], self.lin.in_type.dim)
        return (out + self.lin(root)).to(dtype)

    def _sum_messages(self, x, pos, edges, edge_attr, edge_weight,
                      node_attr, edge_shift) -> Tensor:
        size = (pos[0].shape[0], pos[1].shape[0])
        if self.flow == 'source_to_target':
            return self._propagate(edges, x=x, pos=pos, edge_attr=edge_attr,
                                  edge_weight=edge_weight,
                                  node_attr=node_attr, edge_shift=edge_shift,
                                  size=size)
        # PyG's templates take the first of a pair for the sources whatever
        # the flow: here all nodes are put into one set, targets first.
        x = torch.cat([
            x[1].new_zeros(size[0], x[1].shape[1]) if x[0] is None else x[0],
            x[1]])
        pos = torch.cat(pos)
        node_attr = None if node_attr is None else 2 * (torch.cat(node_attr),)
        out = self._propagate(
            torch.stack([edges[0], edges[1] + size[0]]), x=(x, x),
            pos=(pos, pos), edge_attr=edge_attr, edge_weight=edge_weight,
            node_attr=node_attr, edge_shift=edge_shift,
            size=2 * (sum(size), ))
        return out[:size[0]]

    def _convolve(self, x, pos, edges, edge_attr, edge_weight,
                  node_attr, edge_shift) -> Tensor:
        j, i = (0, 1) if self.flow == 'source_to_target' else (1, 0)
        src, dst = edges[j], edges[i]
        num_dst = pos[i].shape[0]
        with full_precision(pos[i]):
            h = self.kernel.basis(
                self._relative(pos[j][src], pos[i][dst], edge_shift),
                self._attributes(
                    edge_attr, None if node_attr is None else
                    node_attr[i][dst],
                    None if node_attr is None else node_attr[j][src]))
            if edge_weight is not None:
                h = h * edge_weight.to(h.dtype).view(-1, 1)
            out = self.kernel.convolve(h, x[j].to(h.dtype), src, dst,
                                       num_dst, self.order, self.backend)
            if self.aggr == 'mean':
                count = out.new_zeros(num_dst).index_add(
                    0, dst, out.new_ones(1).expand(dst.shape[0]))
                out = out / count.clamp(min=1).view(-1, 1)
        return out

    def example(self, generator: torch.Generator) -> Example:
        """A random graph, with attributes if the layer takes them."""
        edge_index = torch.randint(ROWS, (2, 4 * ROWS), generator=generator,
                                   device='cpu')
        positions = random_positions(generator)
        edge_type, node_type = (t if t.dim else None
                                for t in (self.edge_type, self.node_type))
        edge_attr = edge_type and random_fields(edge_type, generator,
                                                edge_index.shape[1])
        node_attr = node_type and random_fields(node_type, generator)
        return Example(
            (random_fields(self.in_type, generator),
             float(self.kernel.basis.radius) / 2 * positions, edge_index,
             edge_attr, None, None, node_attr),
            (self.in_type, 'pos', None, edge_type, None, None, node_type),
            (self.out_type, ))

    @property
    def _full(self) -> torch.dtype:
        """The dtype of geometry, basis and sums."""
        return at_least_float32(self.lin.maps)

    def _relative(self, pos_j: Tensor, pos_i: Tensor, edge_shift: OptTensor
                  ) -> Tensor:
        full = at_least_float32(pos_j)
        relative = pos_j.to(full) - pos_i.to(full)
        if edge_shift is not None:
            relative = relative + edge_shift
        relative = relative.to(self._full)
        if self.training and not self._seen:
            self._look(relative)
        return relative

    def _attributes(self, edge_attr: OptTensor, attr_i: OptTensor,
                    attr_j: OptTensor) -> OptTensor:
        parts = []
        if self.edge_type.dim:
            parts.append(edge_attr)
        if self.node_type.dim:
            parts += [attr_i, attr_j]
        if not parts:
            return None
        return torch.cat(parts, dim=-1).to(self._full)

    def message(self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor,
                edge_attr: OptTensor, edge_weight: OptTensor,
                node_attr_i: OptTensor, node_attr_j: OptTensor,
                edge_shift: OptTensor) -> Tensor:
        with full_precision(x_j):
            kernel = self.kernel(
                self._relative(pos_j, pos_i, edge_shift),
                self._attributes(edge_attr, node_attr_i, node_attr_j))
            out = (kernel @ x_j.to(kernel.dtype).unsqueeze(-1)).squeeze(-1)
            if edge_weight is not None:
                out = out * edge_weight.to(out.dtype).view(-1, 1)
        return out

    def _check_nodes(self, x, pos, node_attr, size) -> None:
        j = 0 if self.flow == 'source_to_target' else 1
        if x[j] is None:
            raise ValueError(f"Expected features of the source nodes, 'x"
                             f"[{j}]' (got None)")
        for k in range(2):
            if pos[k] is None:
                raise ValueError("Expected 'pos' of shape [N, 3], one for "
                                 "each set of nodes (got None)")
            checks.positions('pos', pos[k])
            if x[k] is None:
                continue
            checks.tensor('x', x[k])
            self.in_type.check(x[k], 'x')
            if x[k].dim() != 2 or x[k].shape[0] != pos[k].shape[0]:
                raise ValueError(
                    f"Expected 'x' and 'pos' to have one row per node (got "
                    f"{list(x[k].shape)} and {list(pos[k].shape)})")
        for attr in (None, ) if node_attr is None else node_attr:
            self._check_attr('node_attr', attr, self.node_type, 'node_type')
        for k in range(2 if node_attr is not None else 0):
            if node_attr[k].shape[0] != pos[k].shape[0]:
                raise ValueError(
                    f"Expected 'node_attr' to have one row for each of the "
                    f"{pos[k].shape[0]} nodes (got "
                    f"{list(node_attr[k].shape)})")
        expected = (pos[0].shape[0], pos[1].shape[0])
        if size is not None and (not isinstance(size, (tuple, list)) or any(
                n is not None and n != m for n, m in zip(size, expected))
                or len(size) != 2):
            raise ValueError(f"Expected 'size' to be the numbers of "
                             f"positions, {expected} (got "
                             f"{checks.show(size)}). It can be left out")

    @staticmethod
    def _check_attr(name: str, attr: OptTensor, field_type: FieldType,
                    argument: str) -> None:
        if attr is None:
            if field_type.dim:
                raise ValueError(
                    f"Expected '{name}' of type {field_type}, i.e. shape "
                    f"[*, {field_type.dim}] (got None). Pass it, or build "
                    f"the layer without '{argument}'")
            return
        checks.tensor(name, attr)
        if field_type.dim == 0:
            raise ValueError(
                f"Expected no '{name}' (got shape {list(attr.shape)}). Name "
                f"its type with '{argument}' when building the layer")
        field_type.check(attr, name)

    def _look(self, relative: Tensor) -> None:
        """Warns, once, if the kernel does not see the neighbours."""
        if (torch.compiler.is_compiling() or torch.jit.is_tracing()
                or relative.is_meta or checks.is_traced(relative)):
            return
        distance = relative.detach().norm(dim=1)
        distance = distance[distance > 0]
        if not len(distance):
            return
        self._seen = True
        basis = self.kernel.basis
        extent, seen = basis.extent(), basis.within(distance)
        far = int((distance >= extent).sum()) / len(distance)
        if not len(seen) or (far > 0.5 and extent == basis.cutoff_radius):
            checks.warn(
                f'In the first batch that {self} is trained on, '
                f'{100 * far:.0f}% of the neighbours are beyond the cutoff of '
                f'its kernels, {float(extent):.3g}. Build it with a larger '
                f"'cutoff_radius', or leave these edges out")
            return
        if far > 0.5:
            what = (f'{100 * far:.0f}% of the neighbours are beyond its '
                    f'kernels, which vanish from a distance of about '
                    f'{float(extent):.3g} on')
        elif distance.max() < basis.radius / 20:
            what = (f'no neighbour is farther than '
                    f'{float(distance.max()):.3g}, where its kernels, of '
                    f'radius {float(basis.radius):.3g}, hardly tell distances '
                    f'apart')
        else:
            return
        checks.warn(
            f'In the first batch that {self} is trained on, {what}. Build it '
            f"with 'radius={float(basis.fit_radius(seen)):.3g}', or set "
            f"all radii of a network with 'pyg_steerable.nn.calibrate'")
