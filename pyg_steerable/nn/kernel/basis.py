"""What a steerable basis is."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from ...symmetry.fields import FieldType
from ...symmetry.representations import MAX_DEGREE
from ..field import Example, FieldModule, random_fields

#: More channels, layers or shells than this are a mistake.
MAX_COUNT = 1000


class SteerableBasis(FieldModule):
    r"""A map from relative positions and attributes to fields,

    .. math::
        h(g \mathbf{x}, \rho_z(g) \mathbf{z}) = \rho_h(g) \,
        h(\mathbf{x}, \mathbf{z}), \quad g \in G.

    Subclasses set :obj:`field_type` (:math:`\rho_h`), :obj:`attr_type`
    (:math:`\rho_z`, of width 0 without attributes), call :meth:`set_radius`
    (the unit of length, a typical distance of neighbours: a buffer that is
    saved, :obj:`radius`) and define :meth:`forward`.
    """
    field_type: FieldType
    attr_type: FieldType
    radius: Tensor
    #: Distances, in units of the radius, beyond which little is left.
    reach: float = 3.

    @property
    def in_type(self) -> FieldType:
        """Vectors: the relative positions."""
        return FieldType('1o', self.field_type.group)

    @property
    def out_type(self) -> FieldType:
        """That of the basis, :obj:`field_type`."""
        return self.field_type

    def set_radius(self, radius: float) -> None:
        """Sets the unit of length, in the unit of the positions."""
        value = torch.tensor(checks.scale('radius', radius),
                             dtype=torch.float64, device='cpu')
        if 'radius' in self._buffers:
            self._exact['radius'] = value
            self.radius.fill_(value.item())
        else:
            self.__dict__.pop('radius', None)  # a plain number
            self.keep_in_full('radius')
            self.register_constant('radius', value, persistent=True)

    def fit_radius(self, distance: Tensor) -> Tensor:
        """The radius that suits some distances of neighbours: their root
        mean square.
        """
        checks.tensor('distance', distance)
        checks.shaped('distance', distance, (None, ), '[E]')
        return distance.square().mean().sqrt()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        saved = prefix + 'radius' in state_dict  # once it was not
        if 'radius' in self._buffers and not saved:
            state_dict[prefix + 'radius'] = self._exact['radius']
        super()._load_from_state_dict(state_dict, prefix, *args)
        if saved and not self.radius.is_meta:
            loaded = self.radius.detach().to('cpu', torch.float64)
            known = self._exact['radius']
            # What a file of float32 says may be this number, rounded.
            if known.to(self.radius.dtype).double() != loaded:
                self._exact['radius'] = loaded

    def reset_parameters(self):
        """Draws learned parts again."""

    def calibrate(self, positions: Tensor, attr: Tensor) -> None:
        """Takes statistics, if any, from typical inputs."""
        self.check_inputs(positions, attr)

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        r"""The basis at relative positions, in at least float32.

        Shapes:
            - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
              **output:** :math:`[E, d_h]`
        """
        raise TypeError(f"Expected a subclass of SteerableBasis to define "
                        f"'forward' (got {type(self).__name__})")

    def example(self, generator: torch.Generator) -> Example:
        """Relative positions of about the radius, and attributes."""
        positions = float(self.radius) * random_fields(self.in_type,
                                                       generator)
        if not self.attr_type.dim:
            return Example((positions, ), (self.in_type, ), (self.out_type, ))
        attr = random_fields(self.attr_type, generator)
        return Example((positions, attr), (self.in_type, self.attr_type),
                       (self.out_type, ))

    def check_inputs(self, positions: Tensor, attr: Tensor | None) -> None:
        """Raises an error unless positions and attributes fit."""
        checks.positions('positions', positions)
        checks.same_device(positions=positions, radius=self.radius)
        self.check_attr(attr, positions.shape[0])

    def check_attr(self, attr: Tensor | None, num_edges: int) -> None:
        """Raises an error unless the attributes fit."""
        if attr is None and self.attr_type.dim:
            raise ValueError(
                f"Expected attributes of type {self.attr_type}, i.e. shape "
                f"[{num_edges}, {self.attr_type.dim}] (got None). Pass "
                f"'edge_attr' (and 'node_attr'), or build the layer without "
                f"'edge_type' and 'node_type'")
        if attr is not None:
            checks.tensor('attr', attr)
            checks.same_device(attr=attr, radius=self.radius)
            checks.shaped('attr', attr, (num_edges, self.attr_type.dim),
                          "[E, d], the width of 'attr_type'")


def degree(name: str, value: int, least: int = 0) -> int:
    """A degree that there are harmonics of."""
    return checks.integer(name, value, least, MAX_DEGREE)


def count(name: str, value: int, least: int = 1) -> int:
    """A number of channels, layers or shells that is no mistake."""
    return checks.integer(name, value, least, MAX_COUNT)


def typical_inputs(basis: SteerableBasis, n: int = 1000):
    """Normal positions, of root mean square distance :obj:`radius`, and
    normal attributes, the same at every call.
    """
    generator = torch.Generator('cpu').manual_seed(0)
    sample = torch.randn(n, 3 + basis.attr_type.dim, generator=generator,
                         dtype=torch.float64, device='cpu')
    return float(basis.radius) / 3**0.5 * sample[:, :3], sample[:, 3:]
