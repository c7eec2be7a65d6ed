"""Constants of representation theory inside modules."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter


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
        super()._apply(fn, recurse)
        for name, value in self._exact.items():
            buffer = getattr(self, name)
            setattr(self, name, value.to(buffer.device, buffer.dtype,
                                         copy=True))
        return self
