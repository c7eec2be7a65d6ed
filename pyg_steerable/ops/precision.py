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


def lowers(device: str) -> bool:
    """Whether autocast is on for a device: the meta device has none."""
    return device != 'meta' and torch.is_autocast_enabled(device)


def full_precision(x: Tensor) -> AbstractContextManager:
    """A context in which autocast, if it is on for the device of
    :obj:`x`, does not lower products.
    """
    device = x.device.type
    if not lowers(device):  # entering autocast takes a while
        return nullcontext()
    return torch.autocast(device, enabled=False)


def as_weights(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Features in the dtype of a layer's weights; those in half precision
    are left to autocast where that is on.
    """
    if x.dtype == dtype or (x.dtype in (torch.float16, torch.bfloat16)
                            and lowers(x.device.type)):
        return x
    return x.to(dtype)
