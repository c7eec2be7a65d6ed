"""Blocks of lattice networks: norm, convolution, activation, dropout."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from ..fields import FieldType
from ..graph.lattice import LatticeData, check_lattice
from ..layers import FieldBatchNorm, FieldDropout, Gate
from ..layers.activation import build_activation
from ..ops.precision import at_least_float32, full_precision
from ..queries import block_kinds
from .lattice_conv import LatticeSteerableConv
from .lattice_pool import LatticeLowPass


def _check_second(x: Tensor, field_type: FieldType) -> None:
    checks.tensor('x', x, what='a tensor of voxels or of features')
    if x.dim() < 2 or x.shape[1] != field_type.dim:
        raise ValueError(f'Expected voxels or nodes with fields of type '
                         f'{field_type}, i.e. {field_type.dim} numbers in '
                         f'the second dimension (got shape {list(x.shape)})')


class LatticeGate(Gate):
    r"""The gated non-linearity of the `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_ paper, section 4.3: invariant
    scalars go through ReLU, every other field is multiplied by the sigmoid
    of a scalar of its own,

    .. math::
        y_s = \mathrm{ReLU}(x_s), \qquad
        \mathbf{y}_f = \sigma(g_f) \, \mathbf{x}_f.

    It differs from :class:`~pyg_steerable.nn.Gate` in the ReLU, in having no
    constants for unit variance, and in that fields lie along the *second*
    dimension.

    Args:
        field_type (FieldType): The type of the output. The input is of
            :obj:`gate.in_type`: the gates and then the fields.

    Shapes:
        - **input:** :math:`(B, n_g + d, D, H, W)` or
          :math:`(|\mathcal{V}|, n_g + d)`
        - **output:** :math:`(B, d, D, H, W)` or :math:`(|\mathcal{V}|, d)`

    Raises:
        ValueError: If the input has another width.
    """
    def __init__(self, field_type: FieldType):
        super().__init__(field_type)
        self._blocks = block_kinds(self.out_type)

    def forward(self, x: Tensor) -> Tensor:
        _check_second(x, self.in_type)
        sizes = [mul * dim for mul, dim, _ in self._blocks]
        gates, *fields = x.split([self.num_gates, *sizes], dim=1)
        gates, first, out = gates.sigmoid().unsqueeze(2), 0, []
        for (mul, dim, is_scalar), f in zip(self._blocks, fields):
            if is_scalar:
                out.append(f.relu())
                continue
            f = f.unflatten(1, (mul, dim)) * gates[:, first:first + mul]
            out.append(f.flatten(1, 2))
            first += mul
        return torch.cat(out, dim=1) if out else x  # no fields


class LatticeDropout(FieldDropout):
    r"""Dropout of whole fields, the same at all voxels of a grid: each field
    of each example is either set to zero everywhere or scaled by
    :math:`1 / (1 - p)`.

    Args:
        field_type (FieldType): The type of input and output.
        p (float, optional): (default: :obj:`0.5`)

    Shapes:
        - **input:** voxels :math:`(B, d, D, H, W)`, or features of the
          lattice's output :math:`(|\mathcal{V_t}|, d)` and the lattice
        - **output:** as the input

    Raises:
        ValueError: If :obj:`p` is no probability or the width differs.
    """
    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        _check_second(x, self.field_type)
        if not self.training or self.p == 0:
            return x
        if lattice is not None:
            check_lattice(lattice)
        size = x.shape[0] if lattice is None else lattice.num_lattices
        keep = super().forward(x.new_ones(size, self.field_type.dim))
        if lattice is None:
            return x * keep[..., None, None, None]
        batch = lattice.edges.batch_dst
        checks.shaped('x', x, (batch.shape[0], None),
                      f"[{batch.shape[0]}, d], one row for each voxel of the "
                      f"lattice's output")
        return x * keep[batch]


class LatticeNormConv(LatticeSteerableConv):
    r"""Batch normalisation of fields, and the convolution behind it as one
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
                 kernel_size: int = 5, *, momentum: float = 0.1,
                 normalization: str = 'component', **kwargs):
        super().__init__(in_type, out_type, kernel_size, **kwargs)
        self.norm = FieldBatchNorm(self.in_type, momentum=momentum,
                                   affine=False, normalization=normalization)
        self._folded = None  # kernel and bias, while forward runs

    def reset_parameters(self):
        r"""Resets all learnable parameters and the statistics."""
        super().reset_parameters()
        self.norm.reset_parameters()

    def dense_weight(self) -> Tensor:
        return (self._folded or self._fold())[0]

    def dense_bias(self) -> Tensor:
        return (self._folded or self._fold())[1]

    def _fold(self, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Kernel and bias for the statistics of x, or the running ones."""
        norm = self.norm
        with full_precision(norm.running_var):
            weight, bias = super().dense_weight(), super().dense_bias()
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

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        if self._folded is not None:  # a graph on its way to conv3d
            return super().forward(x, lattice)
        if lattice is None:
            self._check_voxels(x)
        else:
            # Before the statistics take anything from it.
            self._check_lattice(lattice)
            self._check_rows(x, lattice.coord.shape[0])
        try:
            self._folded = self._fold(x)
            return super().forward(x, lattice)
        finally:
            self._folded = None


class _ChannelsFirst(torch.nn.Module):
    """A layer of the last dimension, applied to the second one."""
    def __init__(self, layer: torch.nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


class LatticeBlock(torch.nn.Module):
    r"""One layer of a network on voxels: batch norm *(optional)*,
    convolution, activation, dropout *(optional)*. The convolution also makes
    the gates, where the activation has any.

    .. code-block:: python

        block = LatticeBlock(in_type, out_type, norm=True, dropout=0.1)
        out = block(voxels)                    # [B, C, D, H, W] in and out
        out = block(data.x, data)              # the graph of VoxelToGraph

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        kernel_size (int, optional): (default: :obj:`5`)
        activation (callable, optional): Builds an activation from
            :obj:`out_type`: :class:`LatticeGate` or any layer of the last
            dimension, such as :class:`~pyg_steerable.nn.NormActivation` or
            :class:`~pyg_steerable.nn.TensorProductActivation`; :obj:`None`
            for none, and no bias. (default: :class:`LatticeGate`)
        norm (bool, optional): If set to :obj:`True`, the input is
            normalised, see :class:`LatticeNormConv`.
            (default: :obj:`False`)
        dropout (float, optional): The probability for each field to be left
            out, see :class:`LatticeDropout`. (default: :obj:`0.0`)
        **kwargs (optional): Further arguments of the convolution, such as
            :obj:`stride`, :obj:`padding`, :obj:`spacing`, or, with
            :obj:`norm`, :obj:`momentum` and :obj:`normalization`.

    Shapes:
        - See :class:`LatticeSteerableConv`.
    """
    def __init__(self, in_type: FieldType, out_type: FieldType,
                 kernel_size: int = 5, *, activation=LatticeGate,
                 norm: bool = False, dropout: float = 0., **kwargs):
        super().__init__()
        self.in_type = FieldType.wrap(in_type)
        self.out_type = conv_type = FieldType.wrap(out_type)
        self.act = None
        if activation is not None:
            self.act = build_activation(activation, self.out_type)
            conv_type = getattr(self.act, 'in_type', self.out_type)
            if not isinstance(self.act, LatticeGate):
                self.act = _ChannelsFirst(self.act)
        kwargs.setdefault('bias', activation is not None)
        norm = checks.flag('norm', norm)
        build = LatticeNormConv if norm else LatticeSteerableConv
        self.conv = build(self.in_type, conv_type, kernel_size, **kwargs)
        self.dropout = LatticeDropout(self.out_type, dropout)

    def reset_parameters(self):
        r"""Resets all learnable parameters of the block."""
        for module in (self.conv, getattr(self.act, 'layer', None)):
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        out = self.conv(x, lattice)
        if self.act is not None:
            out = self.act(out)
        return self.dropout(out, lattice)


def lattice_stack(types: Sequence[FieldType], strides: Sequence[int], *,
                  smooth: bool = False, **kwargs) -> torch.nn.Sequential:
    r"""Blocks one after the other, for voxels.

    Args:
        types (list[FieldType]): The types of the input and of the output of
            each block.
        strides (list[int]): The stride of each block.
        smooth (bool, optional): If set to :obj:`True`, a stride is not that
            of the convolution but of a
            :class:`~pyg_steerable.nn.LatticeLowPass` behind the block.
            (default: :obj:`False`)
        **kwargs (optional): Further arguments of :class:`LatticeBlock`.

    Raises:
        ValueError: If there is not one stride for each block.
    """
    if not all(isinstance(a, Sequence) for a in (types, strides)):
        raise TypeError(f"Expected 'types' and 'strides' to be sequences "
                        f"(got {checks.show(types)} and "
                        f"{checks.show(strides)})")
    checks.flag('smooth', smooth)
    if len(strides) != len(types) - 1:
        raise ValueError(f"Expected 'strides' to hold {len(types) - 1} "
                         f"numbers, one for each block (got {strides})")
    layers = []
    for in_type, out_type, stride in zip(types, types[1:], strides):
        stride = checks.integer('strides', stride)
        layers.append(LatticeBlock(in_type, out_type,
                                   stride=1 if smooth else stride, **kwargs))
        if smooth and stride > 1:
            layers.append(LatticeLowPass(stride, stride))
    return torch.nn.Sequential(*layers)
