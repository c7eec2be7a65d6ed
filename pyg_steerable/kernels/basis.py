"""What a steerable basis is."""
from __future__ import annotations

import torch
from torch import Tensor

from .. import checks
from ..fields import FieldType
from ..layers.constants import ConstantModule
from ..representations import MAX_DEGREE


class SteerableBasis(ConstantModule):
    r"""A map from relative positions and attributes to fields,

    .. math::
        h(g \mathbf{x}, \rho_z(g) \mathbf{z}) = \rho_h(g) \,
        h(\mathbf{x}, \mathbf{z}), \quad g \in G.

    Subclasses set :obj:`field_type` (:math:`\rho_h`), :obj:`attr_type`
    (:math:`\rho_z`, of width 0 without attributes) and :obj:`radius` (the
    unit of length, a typical distance of neighbours) and define
    :meth:`forward`.
    """
    field_type: FieldType
    attr_type: FieldType
    radius: float

    def reset_parameters(self):
        """Draws learned parts again."""

    def calibrate(self, positions: Tensor, attr: Tensor) -> None:
        """Takes statistics, if any, from typical inputs."""

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        r"""The basis at relative positions.

        Shapes:
            - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
              **output:** :math:`[E, d_h]`
        """
        raise TypeError(f"Expected a subclass of SteerableBasis to define "
                        f"'forward' (got {type(self).__name__})")

    def check_attr(self, attr: Tensor | None, num_edges: int) -> None:
        """Raises a ValueError unless the attributes fit."""
        if attr is None and self.attr_type.dim:
            raise ValueError(
                f"Expected attributes of type {self.attr_type}, i.e. shape "
                f"[{num_edges}, {self.attr_type.dim}] (got None). Pass "
                f"'edge_attr' (and 'node_attr'), or build the layer without "
                f"'edge_type' and 'node_type'")
        if attr is not None and attr.shape[-1] != self.attr_type.dim:
            raise ValueError(
                f'Expected attributes of type {self.attr_type}, i.e. shape '
                f'[{num_edges}, {self.attr_type.dim}] (got '
                f'{list(attr.shape)})')


def degree(name: str, value: int, least: int = 0) -> int:
    """A degree that there are harmonics of."""
    return checks.integer(name, value, least, MAX_DEGREE)


def typical_inputs(basis: SteerableBasis, n: int = 1000):
    """Normal positions, of root mean square distance :obj:`radius`, and
    normal attributes, the same at every call.
    """
    generator = torch.Generator('cpu').manual_seed(0)
    sample = torch.randn(n, 3 + basis.attr_type.dim, generator=generator,
                         dtype=torch.float64, device='cpu')
    return basis.radius / 3**0.5 * sample[:, :3], sample[:, 3:]
