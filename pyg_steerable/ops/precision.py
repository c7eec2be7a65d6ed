"""Where half precision is not enough: squares, norms, sums, statistics."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(*tensors: Tensor) -> torch.dtype:
    """The dtype to calculate in: the widest of the tensors', and no half
    precision, which holds numbers up to 65504 only (float16) or three digits
    of them (bfloat16).
    """
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def full_precision(x: Tensor) -> AbstractContextManager:
    """A context in which autocast, if it is on for the device of
    :obj:`x`, does not lower products.
    """
    device = x.device.type
    # The meta device has no autocast, and entering it takes a while.
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
