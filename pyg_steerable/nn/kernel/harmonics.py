"""Solid harmonics of e3nn, also inside of compiled code."""
from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

# PyTorch before 2.7 does not trace how e3nn builds its types (subclasses of
# tuples). There, traced code calls the polynomials without them.
_TRACES_TYPES = torch.__version__ >= '2.7'
if not _TRACES_TYPES:
    from e3nn.o3._spherical_harmonics import _spherical_harmonics


def solid_harmonics(degrees: list[int], x: Tensor) -> Tensor:
    """The harmonic polynomials of successive degrees, with components of
    variance one on the sphere.
    """
    if not _TRACES_TYPES and torch.compiler.is_compiling():
        Y = _spherical_harmonics(degrees[-1], x[..., 0], x[..., 1], x[..., 2])
        return Y[..., degrees[0]**2:]
    return o3.spherical_harmonics(degrees, x, normalize=False,
                                  normalization='component')
