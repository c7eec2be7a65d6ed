"""Activations that users name."""
from __future__ import annotations

import torch

from ... import checks
from ...symmetry.fields import FieldType


def build_activation(activation, field_type: FieldType) -> torch.nn.Module:
    """The layer that a user's class, or another callable, makes for fields of
    a type.
    """
    if isinstance(activation, torch.nn.Module) or not callable(activation):
        raise TypeError(f"Expected 'activation' to be a callable that builds "
                        f"a layer from a FieldType, such as NormGate (got "
                        f"{checks.show(activation)})")
    layer = activation(field_type)
    if not isinstance(layer, torch.nn.Module):
        raise TypeError(f"Expected 'activation' to build a layer, a "
                        f"torch.nn.Module (got {checks.show(layer)})")
    return layer


def activation_input(layer: torch.nn.Module, field_type: FieldType
                     ) -> FieldType:
    """What an activation that makes fields of a type takes: those fields, or
    with gates, which it then names as its :obj:`in_type`.
    """
    in_type = getattr(layer, 'in_type', None)
    return field_type if in_type is None else in_type
