"""Blocks of lattice networks: norm, convolution, activation, dropout."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import checks
from ..graph.lattice.data import LatticeData
from ..graph.lattice.stencil import Stencil
from ..symmetry.fields import FieldType
from .conv.lattice import LatticeSteerableConv
from .conv.lattice_norm import LatticeNormConv
from .field import FieldModule, Grid
from .pointwise.activation import activation_input, build_activation
from .pointwise.axis import on_axis
from .pointwise.dropout import LatticeDropout
from .pointwise.gates import LatticeGate
from .pool.lattice import LatticeLowPass


class LatticeBlock(FieldModule):
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
        kernel_size (int or tuple[int], optional): (default: :obj:`5`)
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
    in_type: FieldType
    out_type: FieldType
    channel_axis = 1

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 kernel_size=5, *, activation=LatticeGate,
                 norm: bool = False, dropout: float = 0., **kwargs):
        super().__init__()
        self.set_types(in_type, out_type)
        conv_type = self.out_type
        self.act: torch.nn.Module | None = None
        if activation is not None:
            act = build_activation(activation, self.out_type)
            conv_type = activation_input(act, self.out_type)
            self.act = on_axis(act, self.channel_axis)
        kwargs.setdefault('bias', activation is not None)
        norm = checks.flag('norm', norm)
        build = LatticeNormConv if norm else LatticeSteerableConv
        self.conv = build(self.in_type, conv_type, kernel_size, **kwargs)
        self.dropout = LatticeDropout(self.out_type, dropout)

    def reset_parameters(self):
        r"""Resets all learnable parameters of the block."""
        self.conv.reset_parameters()
        reset = getattr(self.act, 'reset_parameters', None)
        if reset is not None:
            reset()

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        out = self.conv(x, lattice)
        if self.act is not None:
            out = self.act(out)
        return self.dropout(out, lattice)

    def grid_after(self, grid: Grid) -> Grid | None:
        return self.conv.grid_after(grid)

    def symmetries(self) -> Tensor:
        return self.conv.symmetries()


def lattice_stack(types: Sequence[FieldType], strides: Sequence[int], *,
                  smooth: bool = False, **kwargs) -> torch.nn.Sequential:
    r"""Blocks one after the other, for voxels.

    Args:
        types (list[FieldType]): The types of the input and of the output of
            each block.
        strides (list[int]): The stride of each block.
        smooth (bool, optional): If set to :obj:`True`, a stride is not that
            of the convolution but of a
            :class:`~pyg_steerable.nn.LatticeLowPass` after the block.
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
    layers: list[torch.nn.Module] = []
    for in_type, out_type, stride in zip(types, types[1:], strides):
        stride = checks.integer('strides', stride)
        block = LatticeBlock(in_type, out_type, stride=1 if smooth else stride,
                             **kwargs)
        layers.append(block)
        if smooth and stride > 1:  # along the axes of the convolution
            steps = Stencil(block.conv.stencil.kernel_size, stride).stride
            layers.append(LatticeLowPass(steps, steps))
    return torch.nn.Sequential(*layers)
