"""A G-equivariant MLP of relative position and attributes."""
from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import Parameter

from ... import checks
from ...ops.precision import at_least_float32, full_precision
from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.groups import Group
from ..pointwise import Linear, NormGate
from ..pointwise.activation import activation_input, build_activation
from .basis import SteerableBasis, check_types, count, degree
from .harmonics import solid_harmonics
from .norm import EdgeNorm
from .radial import RadialFunctions, build_radial

#: What is normalised: beside the positions, the attributes, the features
#: inside of the network, or both.
NORMALIZE = ('positions', 'inputs', 'features', 'all')
#: Distances, in units of the largest, below which radial functions are flat.
_SOFTENING = 0.01


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
    takes its place.) Options put more into it, all of them together make

    .. math::
        h(\mathbf{x}, \mathbf{z}) = \big( 1 \oplus
        (\mathrm{BN} \circ \alpha \circ \mathbf{L}_{n-1} \circ \ldots \circ
        \mathrm{BN} \circ \alpha \circ \mathbf{L}_1) \, \mathrm{BN}(
        |\mathbf{x}|^2 \oplus |\mathbf{x}|^l Y^l(\mathbf{x}) \oplus
        f(|\mathbf{x}|) \oplus \mathbf{z}) \big) \;
        e^{-s^2 |\mathbf{x}|^2 / 2}

    with the paper's norm over attributes, too, normalised features, a
    constant, which gives *B* a part that is the same for all attributes, and
    functions of the distance :math:`f`. (The constant comes after the scalars
    among the features.)

    In training the statistics are those of all edges of the
    batch, so that the output of one graph depends on the others there, as
    with any batch norm; :obj:`eval()` takes the running ones, which start
    from those of typical edges, and from the first batch as they are there.

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
        normalize (str, optional): What goes through a batch norm:
            :obj:`"positions"`, the polynomials and functions of the distance;
            :obj:`"inputs"`, these and the attributes; :obj:`"features"`,
            these and the features after each :math:`\alpha`, but not the
            attributes; or :obj:`"all"` of them. A batch norm makes rare
            one-hots large: one in a thousand becomes 30.
            (default: :obj:`"positions"`)
        constant (bool, optional): A constant beside the features.
            (default: :obj:`False`)
        radial (str or type, optional): The functions :math:`f` of the
            distance, which end where the basis does (:meth:`extent`):
            :obj:`"gaussian"`, :obj:`"bessel"`, :obj:`"learned_gaussian"`,
            :obj:`"learned_bessel"`, or a
            :class:`~pyg_steerable.kernels.RadialFunctions`.
            (default: :obj:`None`: none)
        num_radial (int, optional): The number of these functions.
            (default: :obj:`8`)

    Shapes:
        - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
          **output:** :math:`[E, d_h]`

    Raises:
        ValueError: If a size is not positive, an option has no meaning, or
            :obj:`attr_type` is of another group.
        TypeError: If an option is of another kind.
    """
    norm: EdgeNorm

    def __init__(self, group: Group | str, hidden: int = 16,
                 max_degree: int = 1, num_layers: int = 2,
                 attr_type: FieldType | None = None, radius: float = 1.0,
                 activation=NormGate, normalize: str = 'positions',
                 constant: bool = False,
                 radial: str | type[RadialFunctions] | None = None,
                 num_radial: int = 8):
        super().__init__()
        group = Group.wrap(group)
        count('hidden', hidden)
        self.num_layers = count('num_layers', num_layers, 2)
        self.max_degree = degree('max_degree', max_degree, 1)
        self.set_radius(radius)
        self.attr_type = (FieldType([], group) if attr_type is None else
                          FieldType.wrap(attr_type))
        self.normalize = checks.choice('normalize', normalize, NORMALIZE)
        self.constant = checks.flag('constant', constant)
        self.radial = build_radial(radial, num_radial)
        features = FieldType.sphere(hidden, max_degree, group)
        check_same_group(features, self.attr_type)
        self._degrees = list(range(1, max_degree + 1))
        inputs = FieldType.sphere(1, max_degree, group)
        if self.radial is not None:
            inputs = inputs + FieldType([(self.radial.num, '0e')], group)
        in_type = inputs + self.attr_type
        self._norms_attr = normalize in ('inputs', 'all')
        self.norm = EdgeNorm(in_type if self._norms_attr else inputs)
        self.layers = torch.nn.Sequential()
        for _ in range(num_layers - 1):
            act = build_activation(activation, features)
            self.layers.append(
                Linear(in_type, activation_input(act, features)))
            self.layers.append(act)
            if normalize in ('features', 'all'):
                self.layers.append(EdgeNorm(features, affine=False))
            in_type = features
        self.field_type = features
        if self.constant:
            (_, scalar), *rest = features.blocks
            self.field_type = FieldType([(hidden + 1, scalar), *rest], group)
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
        for module in [self.norm, self.radial, *self.layers]:
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()

    @torch.no_grad()
    def calibrate(self, positions: Tensor, attr: Tensor) -> None:
        """Sets the statistics of all batch norms from typical edges."""
        super().calibrate(positions, attr)
        training = self.training
        handles = [module.register_forward_pre_hook(
            lambda norm, inputs: norm.calibrate(*inputs))
            for module in self.modules() if isinstance(module, EdgeNorm)]
        try:
            self.eval().forward(positions, attr)
        finally:
            self.train(training)
            for handle in handles:
                handle.remove()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Once it had no dimension, which sharding does not take.
        value = state_dict.get(prefix + 'sharpness')
        if value is not None and value.dim() == 0:
            state_dict[prefix + 'sharpness'] = value.view(1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _inputs(self, x: Tensor, attr: Tensor | None) -> Tensor:
        """What the first layer takes."""
        square = x.square().sum(-1, keepdim=True)
        parts = [square, solid_harmonics(self._degrees, x)]
        if self.radial is not None:
            scale = (self.radius / self.extent()).to(x.dtype)
            parts.append(self.radial(
                (square * scale.square() + _SOFTENING**2).sqrt()))
        h = torch.cat(parts, dim=-1)
        if attr is None or not self.attr_type.dim:
            return self.norm(h)
        if self._norms_attr:
            return self.norm(torch.cat([h, attr], dim=-1))
        return torch.cat([self.norm(h), attr], dim=-1)

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        self.check_inputs(positions, attr)
        with full_precision(positions):
            x = positions.to(at_least_float32(positions)) / self.radius
            h = _in_full(self.layers, self._inputs(x, attr))
            if self.constant:
                n = self.field_type.blocks[0][0] - 1
                h = torch.cat([h[:, :n], torch.ones_like(h[:, :1]), h[:, n:]],
                              dim=-1)
            square = (self.sharpness * x).square().sum(-1, keepdim=True)
            return h * torch.exp(-0.5 * square)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.field_type}, '
                f'attr={self.attr_type}, layers={self.num_layers})')


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
