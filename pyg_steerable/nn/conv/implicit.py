"""The steerable convolution with implicit kernels."""
from __future__ import annotations

from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.groups import Group
from ..kernel import ImplicitBasis
from ..pointwise import NormGate
from .steerable import SteerableConv, read_type


class ImplicitSteerableConv(SteerableConv):
    r"""The steerable convolution with implicit kernels from the `"Implicit
    Neural Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_ paper,

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{L} \mathbf{x}_i +
        \sum_{j \in \mathcal{N}(i)}
        \mathrm{MLP}(\mathbf{p}_j - \mathbf{p}_i, \mathbf{z}_{ij}) \,
        \mathbf{x}_j

    where :math:`\mathrm{MLP}` is a G-equivariant network of the relative
    position and of attributes of any type
    (:class:`~pyg_steerable.kernels.ImplicitBasis`), for any closed subgroup
    G of O(3). See :class:`SteerableConv` for the guarantee and for
    :meth:`forward`.

    The kernel network starts with a batch norm over the edges. In training,
    kernels so depend on all edges of the batch, and the output for one graph
    on the others; in evaluation they do not.

    .. code-block:: python

        in_type = FieldType('8x0e + 4x1o', group='SO(2)')
        out_type = FieldType('16x0e + 8x1o', group='SO(2)')
        conv = ImplicitSteerableConv(in_type, out_type)
        out = conv(x, pos, edge_index)

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        edge_type (FieldType, optional): The type of :obj:`edge_attr`: any,
            e.g. scalars or vectors. (default: :obj:`None`)
        node_type (FieldType, optional): The type of :obj:`node_attr`, taken
            from both ends of an edge. (default: :obj:`None`)
        hidden (int, optional): Spherical channels of the kernel network.
            (default: :obj:`16`)
        num_layers (int, optional): Linear layers of the kernel network.
            (default: :obj:`2`)
        max_degree (int, optional): Band-limit of its channels. (default: the
            highest degree of the two types, at least 1)
        radius (float, optional): The root mean square distance of
            neighbours. Kernels vanish beyond about three times as far;
            :func:`~pyg_steerable.nn.calibrate` sets it from data.
            (default: :obj:`1.0`)
        activation (callable, optional): See
            :class:`~pyg_steerable.kernels.ImplicitBasis`.
            (default: :class:`NormGate`)
        aggr (str, optional): :obj:`"sum"` or :obj:`"mean"`.
            (default: :obj:`"sum"`)
        group (Group or str, optional): The group of types that are given as
            text. (default: :obj:`None`)
        **kwargs (optional): Additional arguments of :class:`SteerableConv`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, d_{in})` or
          :math:`((|\mathcal{V_s}|, d_{in}), (|\mathcal{V_t}|, d_{in}))` if
          bipartite, positions :math:`(|\mathcal{V}|, 3)` or a pair of them,
          edge indices :math:`(2, |\mathcal{E}|)`, edge attributes
          :math:`(|\mathcal{E}|, d_z)` *(optional)*
        - **output:** node features :math:`(|\mathcal{V}|, d_{out})` or
          :math:`(|\mathcal{V_t}|, d_{out})` if bipartite
    """
    def __init__(self, in_type: FieldType, out_type: FieldType,
                 edge_type: FieldType | None = None,
                 node_type: FieldType | None = None, *, hidden: int = 16,
                 num_layers: int = 2, max_degree: int | None = None,
                 radius: float = 1.0, activation=NormGate, aggr: str = 'sum',
                 group: Group | str | None = None, **kwargs):
        in_type = read_type('in_type', in_type, group)
        out_type = read_type('out_type', out_type, group)
        check_same_group(in_type, out_type)
        if max_degree is None:
            max_degree = max(in_type.max_degree, out_type.max_degree, 1)
        attr_type = FieldType([], in_type.group)
        for part in (edge_type, node_type, node_type):
            if part is not None:
                attr_type = attr_type + read_type('edge_type', part, group)
        basis = ImplicitBasis(in_type.group, hidden, max_degree, num_layers,
                              attr_type, radius, activation)
        super().__init__(in_type, out_type, basis, edge_type, node_type,
                         aggr=aggr, group=group, **kwargs)
