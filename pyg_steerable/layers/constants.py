"""Constants of representation theory inside modules."""
from __future__ import annotations

import torch
from torch import Tensor


class ConstantModule(torch.nn.Module):
    """A module whose constants stay exact.

    A constant is a buffer (it follows the module's device and dtype, and is
    not in the state dict: it can be computed again) with a float64 original.
    After every :obj:`.to(...)`, :obj:`.double()`, ... the buffer is taken
    from the original, so that a float32 model turned into float64 is
    equivariant to float64 precision.
    """
    def __init__(self):
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    def register_constant(self, name: str, value: Tensor) -> None:
        """Adds a constant from its float64 (or integer) original."""
        self._exact[name] = value
        if value.is_floating_point():
            value = value.to(torch.get_default_dtype())
        self.register_buffer(name, value.clone(), persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            buffer = getattr(self, name)
            setattr(self, name, value.to(buffer.device, buffer.dtype,
                                         copy=True))
        return self
