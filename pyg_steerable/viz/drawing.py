"""What pictures share."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import checks


def new_figure(width: float, height: float, **kwargs) -> Any:
    """A figure without a window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Expected the package 'matplotlib', which draws "
                          "pictures (got none). Install it with 'pip install "
                          "matplotlib'") from error
    return Figure(figsize=(width, height), layout='constrained', **kwargs)


def show_image(ax, values: Tensor, limit: Tensor, extent: float,
               cmap: str = 'RdBu_r', least: float = -1.) -> Any:
    """A plane of numbers as colours, from :obj:`least` times the limit to the
    limit.
    """
    most = max(float(limit), 1e-12)
    image = ax.imshow(values.numpy(), origin='lower',
                      extent=2 * (-extent, extent), cmap=cmap,
                      vmin=least * most, vmax=most, interpolation='nearest')
    ax.set(xticks=[], yticks=[])
    return image


def call_user(name: str, function: Callable, what: str, *args) -> Any:
    """What a user's callable makes of something, or an error that says what
    that was.
    """
    try:
        return function(*args)
    except (RuntimeError, AttributeError, LookupError) as error:
        raise TypeError(f"Expected '{name}' to take {what} (got "
                        f"{checks.show(function)}, which does not)"
                        ) from error


def read_vector(name: str, value) -> Tensor:
    """Three numbers."""
    try:
        numbers = list(value)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"Expected '{name}' to be three numbers (got "
                        f"{checks.show(value)})") from error
    vector = torch.tensor([checks.real(name, v) for v in numbers],
                          dtype=torch.get_default_dtype())
    return checks.shaped(name, vector, (3, ), '[3]')
