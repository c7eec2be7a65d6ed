"""Constants of representation theory inside modules."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter


class ConstantModule(torch.nn.Module):
    """A module whose constants stay exact.

    A constant is a buffer (it follows the module's device and dtype, and is
    not in the state dict: it can be computed again) with a float64 original.
    After every :obj:`.to(...)`, :obj:`.double()`, :obj:`.to_empty(...)` the
    buffer is taken from the original, so that a float32 model turned into
    float64 is equivariant to float64 precision.

    Buffers kept in full are left in float32 by :obj:`.half()` and its like:
    statistics, as squares of what half precision holds do not fit into it,
    and lengths.
    """
    def __init__(self):
        super().__init__()
        self._exact: dict[str, Tensor] = {}
        self._kept: list[str] = []

    def register_constant(self, name: str, value: Tensor,
                          persistent: bool = False) -> None:
        """Adds a constant from its float64 (or integer) original."""
        self._exact[name] = value = value.detach()
        dtype = (torch.get_default_dtype() if value.is_floating_point() else
                 value.dtype)
        # In PyTorch 2.5 get_default_device() does not know of
        # 'with torch.device(...)'.
        device = torch.empty(0).device
        self.register_buffer(
            name, value.to(device, self._dtype(name, dtype), copy=True),
            persistent=persistent)

    def keep_in_full(self, *names: str) -> None:
        """Buffers, also those of children ('child.name'), that are not to be
        lowered to half precision.
        """
        self._kept += names

    def _dtype(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """The dtype of a buffer in a module of a dtype."""
        lowered = name in self._kept and dtype.itemsize < 4
        return torch.float32 if lowered else dtype

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
        constants = {name: self.get_buffer(name) for name in self._exact}
        kept = {n: self.get_buffer(n) for n in self._kept
                if n not in constants}
        # Constants do not go through fn, which may suit features only: a
        # memory format of five dimensions, say.
        self._buffers.update(dict.fromkeys(constants))
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers.update(constants)
        for name, old in constants.items():
            like = fn(old.new_empty(0))
            dtype = self._dtype(name, like.dtype)
            if (like.device, dtype) != (old.device, old.dtype):
                self._buffers[name] = self._exact[name].to(like.device, dtype,
                                                           copy=True)
        for name, old in kept.items():
            new = self.get_buffer(name)
            dtype = self._dtype(name, new.dtype)
            if dtype != new.dtype:
                module, _, last = name.rpartition('.')
                self.get_submodule(module)._buffers[last] = old.to(new.device,
                                                                   dtype)
        return self
