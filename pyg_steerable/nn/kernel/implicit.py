"""A G-equivariant MLP of relative position and attributes."""
from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import Parameter

from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.groups import Group
from ..pointwise import FieldBatchNorm, Linear, NormGate
from ..pointwise.activation import activation_input, build_activation
from .basis import SteerableBasis, check_types, count, degree
from .harmonics import solid_harmonics


class ImplicitBasis(SteerableBasis, name='implicit'):
    r"""The learned basis: the kernel network of `"Implicit Neural
    Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_ without its last linear layer, which
    is the map *B* of :class:`SteerableKernel`,

    .. math::
        h(\mathbf{x}, \mathbf{z}) = \big(\alpha \circ \mathbf{L}_{n-1} \circ
        \ldots \circ \alpha \circ \mathbf{L}_1\big) \big(
        \mathrm{BN}(|\mathbf{x}|^2 \oplus |\mathbf{x}|^l Y^l(\mathbf{x}))
        \oplus \mathbf{z} \big) \; e^{-s^2 |\mathbf{x}|^2 / 2}

    with solid harmonics of degree :math:`1 \leq l \leq L`, equivariant
    linear maps :math:`\mathbf{L}`, and a learned :math:`s`. Lengths are in
    units of :obj:`radius`. All of it are polynomials: the basis is smooth at
    :math:`\mathbf{x} = 0`. (The batch norm takes the mean off the constant
    harmonic, of which nothing would be left; the next scalar polynomial
    takes its place.) In training the statistics are those of all edges of the
    batch, so that the output of one graph depends on the others there, as
    with any batch norm; :obj:`eval()` takes the running ones.

    All of it is evaluated in at least float32, also where the weights are
    half precision.

    Args:
        group (Group or str): The group.
        hidden (int, optional): Spherical channels of each layer.
            (default: :obj:`16`)
        max_degree (int, optional): The band-limit :math:`L` of the channels
            and the input. (default: :obj:`1`)
        num_layers (int, optional): Linear layers of the kernel network, the
            last one (*B*) counted. (default: :obj:`2`)
        attr_type (FieldType, optional): The type of :math:`\mathbf{z}`.
            (default: :obj:`None`)
        radius (float, optional): The unit of length, a typical distance of
            neighbours. (default: :obj:`1.0`)
        activation (callable, optional): Builds :math:`\alpha` from a
            :class:`FieldType`. :class:`NormGate` is equivariant to rounding
            for every group; :class:`QuotientELU`, the paper's, for finite
            groups. (default: :class:`NormGate`)

    Shapes:
        - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
          **output:** :math:`[E, d_h]`
    """
    norm: FieldBatchNorm

    def __init__(self, group: Group | str, hidden: int = 16,
                 max_degree: int = 1, num_layers: int = 2,
                 attr_type: FieldType | None = None, radius: float = 1.0,
                 activation=NormGate):
        super().__init__()
        group = Group.wrap(group)
        count('hidden', hidden)
        count('num_layers', num_layers, 2)
        self.max_degree = degree('max_degree', max_degree, 1)
        self.set_radius(radius)
        self.attr_type = (FieldType([], group) if attr_type is None else
                          FieldType.wrap(attr_type))
        self.field_type = FieldType.sphere(hidden, max_degree, group)
        check_same_group(self.field_type, self.attr_type)
        self._degrees = list(range(1, max_degree + 1))
        solid = FieldType.sphere(1, max_degree, group)
        self.norm = FieldBatchNorm(solid)
        self.layers = torch.nn.Sequential()
        in_type = solid + self.attr_type
        for _ in range(num_layers - 1):
            act = build_activation(activation, self.field_type)
            self.layers.append(
                Linear(in_type, activation_input(act, self.field_type)))
            self.layers.append(act)
            in_type = self.field_type
        self.sharpness = Parameter(torch.empty(1))
        self.reset_parameters()

    @classmethod
    def for_types(cls, in_type: FieldType, out_type: FieldType,
                  attr_type: FieldType | None = None, *,
                  max_degree: int | None = None, **options) -> ImplicitBasis:
        """The basis up to the higher degree of the two types, the paper's
        choice, and at least one.
        """
        in_type, out_type = check_types(in_type, out_type)
        if max_degree is None:
            max_degree = max(in_type.max_degree, out_type.max_degree, 1)
        return super().for_types(in_type, out_type, attr_type,
                                 max_degree=max_degree, **options)

    def reset_parameters(self):
        """Draws the network again and forgets the statistics."""
        torch.nn.init.ones_(self.sharpness)
        for module in [self.norm, *self.layers]:
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()

    @torch.no_grad()
    def calibrate(self, positions: Tensor, attr: Tensor) -> None:
        """Sets the statistics of the batch norm from typical positions."""
        super().calibrate(positions, attr)
        self.norm.calibrate(self._solid(positions / self.radius))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Once it had no dimension, which sharding does not take.
        value = state_dict.get(prefix + 'sharpness')
        if value is not None and value.dim() == 0:
            state_dict[prefix + 'sharpness'] = value.view(1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _solid(self, x: Tensor) -> Tensor:
        Y = solid_harmonics(self._degrees, x)
        return torch.cat([x.square().sum(-1, keepdim=True), Y], dim=-1)

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        self.check_inputs(positions, attr)
        with full_precision(positions):
            x = positions.to(at_least_float32(positions)) / self.radius
            h = self.norm(self._solid(x))
            if attr is not None and self.attr_type.dim:
                h = torch.cat([h, attr], dim=-1)
            h = _in_full(self.layers, h)
            square = (self.sharpness * x).square().sum(-1, keepdim=True)
            return h * torch.exp(-0.5 * square)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.field_type}, '
                f'attr={self.attr_type}, layers={len(self.layers) // 2 + 1})')


def _in_full(layers: torch.nn.Sequential, h: Tensor) -> Tensor:
    """Weights in half precision are read as float32: the window is small
    where polynomials are large, but not before they overflow.
    """
    tensors = {name: t.float() for name, t in
               (*layers.named_parameters(), *layers.named_buffers())
               if t.is_floating_point() and t.dtype.itemsize < 4} \
        if cast(Linear, layers[0]).dtype.itemsize < 4 else {}
    if not tensors:
        return layers(h)
    return torch.func.functional_call(layers, tensors, (h, ))
