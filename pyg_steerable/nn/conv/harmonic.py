"""The steerable convolution with analytic kernels."""
from __future__ import annotations

from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.groups import Group
from ..kernel import HarmonicBasis
from .steerable import SteerableConv, read_type


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
        max_degree (int, optional): The highest harmonic. (default: the sum
            of the highest degrees of the two types: every kernel that these
            shells allow)
        radius (float, optional): The radius of the last shell, the largest
            distance of neighbours. Kernels vanish beyond about twice as far;
            :func:`~pyg_steerable.nn.calibrate` sets it from data.
            (default: :obj:`1.0`)
        shells (int, optional): The number of shells. (default: :obj:`3`)
        sigma (float, optional): Their width, in units of their spacing.
            (default: :obj:`0.6`)
        band_limit (list[int], optional): The highest harmonic of each shell.
            (default: :obj:`None`)
        softening (float, optional): See
            :class:`~pyg_steerable.kernels.HarmonicBasis`.
            (default: :obj:`0.05`)
        aggr (str, optional): :obj:`"sum"` or :obj:`"mean"`.
            (default: :obj:`"sum"`)
        group (Group or str, optional): The group of types that are given as
            text. (default: :obj:`None`)
        **kwargs (optional): Additional arguments of :class:`SteerableConv`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, d_{in})` or
          :math:`((|\mathcal{V_s}|, d_{in}), (|\mathcal{V_t}|, d_{in}))` if
          bipartite, positions :math:`(|\mathcal{V}|, 3)` or a pair of them,
          edge indices :math:`(2, |\mathcal{E}|)`
        - **output:** node features :math:`(|\mathcal{V}|, d_{out})` or
          :math:`(|\mathcal{V_t}|, d_{out})` if bipartite
    """
    def __init__(self, in_type: FieldType, out_type: FieldType, *,
                 max_degree: int | None = None, radius: float = 1.0,
                 shells: int = 3, sigma: float = 0.6, band_limit=None,
                 softening: float = 0.05, aggr: str = 'sum',
                 group: Group | str | None = None, **kwargs):
        in_type = read_type('in_type', in_type, group)
        out_type = read_type('out_type', out_type, group)
        check_same_group(in_type, out_type)
        if max_degree is None:
            max_degree = in_type.max_degree + out_type.max_degree
        basis = HarmonicBasis(in_type.group, max_degree, radius, shells,
                              sigma, band_limit, softening)
        super().__init__(in_type, out_type, basis, aggr=aggr, group=group,
                         **kwargs)
