"""Constants of representation theory inside modules."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter

from ..ops.precision import at_least_float32


class ConstantModule(torch.nn.Module):
    """A module whose constants stay exact, and its statistics safe.

    A constant is a buffer (it follows the module's device and dtype, and is
    not in the state dict: it can be computed again) with a float64 original.
    After every :obj:`.to(...)`, :obj:`.double()`, :obj:`.to_empty(...)` the
    buffer is taken from the original, so that a float32 model turned into
    float64 is equivariant to float64 precision.

    A statistic is a buffer that :obj:`.half()` and its like leave in
    float32: squares of what half precision holds do not fit into it.
    """
    def __init__(self):
        super().__init__()
        self._exact: dict[str, Tensor] = {}
        self._kept: list[str] = []

    def register_constant(self, name: str, value: Tensor) -> None:
        """Adds a constant from its float64 (or integer) original."""
        self._exact[name] = value
        dtype = (torch.get_default_dtype() if value.is_floating_point() else
                 value.dtype)
        self.register_buffer(name, value.to(torch.get_default_device(), dtype,
                                            copy=True), persistent=False)

    def keep_in_full(self, *names: str) -> None:
        """Buffers, also those of children ('child.name'), that are not to be
        lowered to half precision.
        """
        self._kept += names

    def register_weights(self, name: str, size: int) -> None:
        """Adds a parameter of that many numbers, or :obj:`None` if there are
        none: a parameter that is never used stops distributed training.
        """
        self.register_parameter(
            name, Parameter(torch.empty(size)) if size else None)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Parameters of no numbers, which once were saved.
        for name, parameter in self._parameters.items():
            value = state_dict.get(prefix + name)
            if parameter is None and value is not None and not value.numel():
                del state_dict[prefix + name]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _apply(self, fn, recurse=True):
        constants = {name: self._buffers[name] for name in self._exact}
        statistics = {n: self.get_buffer(n) for n in self._kept}
        # Constants do not go through fn, which may suit features only: a
        # memory format of five dimensions, say.
        self._buffers.update(dict.fromkeys(constants))
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers.update(constants)
        for name, old in constants.items():
            like = fn(old.new_empty(0))
            if (like.device, like.dtype) != (old.device, old.dtype):
                self._buffers[name] = self._exact[name].to(
                    like.device, like.dtype, copy=True)
        for name, old in statistics.items():
            new = self.get_buffer(name)
            if new.dtype != at_least_float32(new):
                module, _, last = name.rpartition('.')
                self.get_submodule(module)._buffers[last] = old.to(
                    new.device, torch.float32)
        return self
