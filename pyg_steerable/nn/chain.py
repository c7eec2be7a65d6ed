"""Layers one after the other, as one."""
from __future__ import annotations

import torch
from torch import Tensor

from ..symmetry.grid import Voxels, cube_symmetries
from .field import Example, FieldModule, Grid


class Chain(torch.nn.Sequential, FieldModule):
    """A :class:`torch.nn.Sequential` that knows its types: those of the first
    and the last of its layers that have any.
    """
    def __init__(self, *layers):
        super().__init__(*layers)
        fields = self._fields()
        known = [(layer.in_type, layer.out_type) for layer in fields
                 if layer.in_type is not None]
        if known:
            self.set_types(known[0][0], known[-1][1])
        if fields:
            self.channel_axis = fields[0].channel_axis

    def _fields(self) -> list[FieldModule]:
        """The layers that know their types, also those of sequences inside."""
        return [layer for layer in _flat(self)
                if isinstance(layer, FieldModule)]

    def grid_after(self, grid: Grid) -> Grid | None:
        out: Grid | None = grid
        for layer in self._fields():
            if out is not None:
                out = layer.grid_after(out)
        return out

    def symmetries(self) -> Tensor:
        common = cube_symmetries()
        for layer in self._fields():
            same = common[:, None] == layer.symmetries()
            common = common[same.all(-1).all(-1).any(1)]
        return common

    def example(self, generator: torch.Generator) -> Example:
        found = super().example(generator)
        last = self._fields()[-1].example(generator).out_types[-1]
        kind = found.out_types[0]
        if isinstance(kind, Voxels) and not isinstance(last, Voxels):
            found = found._replace(out_types=(kind.field_type, ))
        return found


def _flat(layers: torch.nn.Sequential) -> list[torch.nn.Module]:
    out: list[torch.nn.Module] = []
    for layer in layers:
        if (isinstance(layer, torch.nn.Sequential)
                and not isinstance(layer, FieldModule)):
            out += _flat(layer)
        else:
            out.append(layer)
    return out


def as_field_module(module: torch.nn.Module) -> FieldModule:
    """The module itself, or a chain of the layers of a
    :class:`torch.nn.Sequential`.

    Raises:
        TypeError: If it is neither a field module nor a sequence that starts
            and ends with one.
    """
    if isinstance(module, FieldModule):
        return module
    if isinstance(module, torch.nn.Sequential):
        layers = _flat(module)
        if layers and all(isinstance(layers[i], FieldModule)
                          for i in (0, -1)):
            return Chain(*layers)
    raise TypeError(
        f"Expected a FieldModule, or a torch.nn.Sequential that starts and "
        f"ends with one (got {type(module).__name__}). Name its 'in_types' "
        f"and 'out_types'")
