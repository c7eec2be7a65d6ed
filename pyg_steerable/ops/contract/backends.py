"""What can evaluate a contraction: one registry, by name.

A backend is a function of :obj:`(h, x, src, dst, num_dst, weight, couplings,
order)`, where all but the indices are of one dtype, at least float32, and
have been checked; it returns the sums in that dtype. To add one, write its
file and put its line into :obj:`BACKENDS`, or hand it to :func:`register`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ... import checks
from .eager import contract_eager
from .portable import contract_portable
from .reference import contract_reference

# PyTorch says so from 2.7 on; before, exported programs hold the operators.
_is_exporting = getattr(torch.compiler, 'is_exporting', torch.jit.is_tracing)


def _everywhere(device: torch.device, dtype: torch.dtype) -> bool:
    return True


class Backend(NamedTuple):
    """One way to evaluate a contraction.

    Args:
        name (str): What :obj:`backend` arguments call it.
        function (callable): What evaluates.
        available (callable, optional): Whether it runs, given a device and
            a dtype. (default: everywhere)
    """
    name: str
    function: Callable[..., Tensor]
    available: Callable[[torch.device, torch.dtype], bool] = _everywhere


#: By name. :obj:`"auto"` is the first one that is available.
BACKENDS = {backend.name: backend for backend in (
    Backend('torch', contract_eager),
    Backend('portable', contract_portable),
    Backend('reference', contract_reference),
)}


def register(backend: Backend) -> None:
    """Adds a backend, which is used where it is asked for by its name.

    Raises:
        TypeError: If it is no :class:`Backend`.
        ValueError: If the name is taken.
    """
    if not isinstance(backend, Backend):
        raise TypeError(f"Expected 'backend' to be a Backend (got "
                        f"{checks.show(backend)})")
    if backend.name in ('auto', *BACKENDS):
        raise ValueError(f"Expected 'backend' of a new name (got "
                         f"'{backend.name}')")
    BACKENDS[backend.name] = backend


def check_backend(name: str) -> str:
    """The name of a backend, or 'auto'."""
    return checks.choice('backend', name, ('auto', *BACKENDS))


def choose(name: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend of a name, if it is available; the best for 'auto'."""
    if name == 'auto':
        if _travels():
            return BACKENDS['portable']
        for backend in BACKENDS.values():
            if backend.available(device, dtype):
                return backend
    backend = BACKENDS[check_backend(name)]
    if not backend.available(device, dtype):
        raise ValueError(f"Expected 'backend' to be available for {dtype} on "
                         f"{device} (got '{name}'). Pass backend='auto'")
    return backend


def _travels() -> bool:
    """Whether a program is being recorded that may run where this package,
    and so its operators, are not; or torch.func is being compiled, which does
    not know derivatives of operators.
    """
    return (_is_exporting() or torch.jit.is_tracing()
            or (torch.compiler.is_compiling()
                and torch._C._are_functorch_transforms_active()))
