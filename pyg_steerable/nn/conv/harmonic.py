"""The steerable convolution with analytic kernels."""
from __future__ import annotations

from ...symmetry.fields import FieldType
from ..kernel import HarmonicBasis
from ..kernel.spec import takes_options_of
from .steerable import SteerableConv


@takes_options_of(HarmonicBasis)
class HarmonicSteerableConv(SteerableConv):
    r"""The steerable convolution with the analytic kernel basis of the `"3D
    Steerable CNNs: Learning Rotationally Equivariant Features in Volumetric
    Data" <https://arxiv.org/abs/1807.02547>`_ paper,

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{L} \mathbf{x}_i +
        \sum_{j \in \mathcal{N}(i)} \sum_{m, J} \mathbf{B}_{m J}
        \big( \varphi_m(r_{ij}) Y^J(\hat{\mathbf{r}}_{ij}) \otimes
        \mathbf{x}_j \big)

    with Gaussian shells :math:`\varphi_m` and spherical harmonics
    :math:`Y^J` (:class:`~pyg_steerable.kernels.HarmonicBasis`). For other
    groups than SO(3) and O(3) it is the baseline of the implicit-kernels
    paper: the O(3) basis restricted to the group. See :class:`SteerableConv`
    for the guarantee and for :meth:`forward`.

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        **kwargs (optional): The options of the basis, see
            :class:`~pyg_steerable.kernels.HarmonicBasis`: :obj:`radius`,
            :obj:`shells`, :obj:`sigma`, :obj:`band_limit`,
            :obj:`softening`, :obj:`max_degree` (default: the sum of the
            highest degrees of the two types: every kernel that these shells
            allow); :obj:`groups`, for kernels that keep channels apart
            (:class:`~pyg_steerable.kernels.SteerableKernel`); and additional
            arguments of :class:`SteerableConv`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, d_{in})` or
          :math:`((|\mathcal{V_s}|, d_{in}), (|\mathcal{V_t}|, d_{in}))` if
          bipartite, positions :math:`(|\mathcal{V}|, 3)` or a pair of them,
          edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** node features :math:`(|\mathcal{V}|, d_{out})` or
          :math:`(|\mathcal{V_t}|, d_{out})` if bipartite
    """
    def __init__(self, in_type: FieldType, out_type: FieldType, **kwargs):
        own = {k: kwargs.pop(k) for k in HarmonicBasis.options()
               if k in kwargs}
        super().__init__(in_type, out_type, HarmonicBasis.spec(**own),
                         **kwargs)
