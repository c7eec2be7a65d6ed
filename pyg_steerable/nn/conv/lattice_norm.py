"""Batch norm folded into a convolution of voxels."""
from __future__ import annotations

from torch import Tensor

from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType
from ..pointwise import FieldBatchNorm
from .lattice import LatticeSteerableConv


class LatticeNormConv(LatticeSteerableConv):
    r"""Batch normalisation of fields, and the convolution after it as one
    layer (`"3D Steerable CNNs" <https://arxiv.org/abs/1807.02547>`_),

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)}
        k(\mathbf{p}_j - \mathbf{p}_i) \, \mathbf{S}
        (\mathbf{x}_j - \bar{\mathbf{x}}) + \mathbf{b}

    with the scales :math:`\mathbf{S}` and, for scalars, means
    :math:`\bar{\mathbf{x}}` of :class:`~pyg_steerable.nn.FieldBatchNorm`
    over all voxels, without learned scales. The scales are multiplied into
    the kernel and the means become part of the bias: features are never
    copied for it, :meth:`to_conv3d` holds both, and voxels outside of the
    grid count as zero *before* the normalisation.

    Args:
        in_type, out_type, kernel_size, **kwargs: See
            :class:`LatticeSteerableConv`.
        momentum, normalization (optional): Of the statistics, see
            :class:`~pyg_steerable.nn.FieldBatchNorm`.

    Shapes:
        - See :class:`LatticeSteerableConv`.
    """
    def __init__(self, in_type: FieldType, out_type: FieldType,
                 kernel_size=5, *, momentum: float = 0.1,
                 normalization: str = 'component', **kwargs):
        super().__init__(in_type, out_type, kernel_size, **kwargs)
        self.norm = FieldBatchNorm(self.in_type, momentum=momentum,
                                   affine=False, normalization=normalization)

    def reset_parameters(self):
        r"""Resets all learnable parameters and the statistics."""
        super().reset_parameters()
        self.norm.reset_parameters()

    def _dense_maps(self, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Kernel and bias for the statistics of :obj:`x` in training, and
        else for the running ones.
        """
        norm = self.norm
        with full_precision(norm.running_var):
            weight, bias = super()._dense_maps()
            mean, var = norm.running_mean, norm.running_var
            if x is not None and self.training:
                # (Occupancies may be whole numbers.)
                x = x if x.is_floating_point() else x.to(weight.dtype)
                mean, var = norm._statistics(x.to(at_least_float32(x)))
            dtype, wide = weight.dtype, at_least_float32(weight)
            scale = (var.to(wide) + norm.eps).rsqrt()[norm.index]
            weight = weight * scale[:, None, None, None]
            centre = norm.invariant.to(wide) @ mean.to(wide)
            shift = weight.sum((2, 3, 4)) @ centre
            bias = -shift if bias is None else bias - shift
            return weight.to(dtype), bias.to(dtype)
