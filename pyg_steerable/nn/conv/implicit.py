"""The steerable convolution with implicit kernels."""
from __future__ import annotations

from ...symmetry.fields import FieldType
from ..kernel import ImplicitBasis
from ..kernel.spec import takes_options_of
from .steerable import SteerableConv


@takes_options_of(ImplicitBasis)
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
        **kwargs (optional): The options of the kernel network, see
            :class:`~pyg_steerable.kernels.ImplicitBasis`: :obj:`hidden`,
            :obj:`num_layers`, :obj:`radius`, :obj:`activation`,
            :obj:`max_degree` (default: the highest degree of the two types,
            at least 1)...; :obj:`groups`, for kernels that keep channels
            apart (:class:`~pyg_steerable.kernels.SteerableKernel`); and
            additional arguments of :class:`SteerableConv`.

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
                 node_type: FieldType | None = None, **kwargs):
        own = {k: kwargs.pop(k) for k in ImplicitBasis.options()
               if k in kwargs}
        super().__init__(in_type, out_type, ImplicitBasis.spec(**own),
                         edge_type, node_type, **kwargs)
