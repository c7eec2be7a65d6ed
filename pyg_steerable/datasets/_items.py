"""Checks that the data sets here share: items, labels, transforms."""
from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_steerable import checks

NUMBERS = checks.FLOATING + checks.INTEGERS + (torch.bool, )
#: The largest number of numbers that are made in one call.
MAX_NUMBERS = 2**28


def transform(value: Any) -> Callable | None:
    """Something to call with every item, or nothing."""
    if value is not None and not callable(value):
        raise TypeError(f"Expected 'transform' to be callable or None (got "
                        f"{checks.show(value)})")
    return value


def names(name: str, value: Any) -> list[str]:
    """A list of strings."""
    return [checks.text(name, item) for item in checks.sequence(name, value)]


def index(i: Any, num: int) -> int:
    """The place of an item from 0, if there is one."""
    try:
        return range(num)[operator.index(i)]
    except IndexError:
        raise IndexError(f'Expected an item in [{-num}, {num}) (got {i})'
                         ) from None
    except Exception as error:
        raise TypeError(f"Expected the number of an item (got "
                        f"{checks.show(i)}). Fix: take several by 'subset' "
                        f"or 'torch.utils.data.Subset'") from error


def subset(value: Any, num: int) -> Tensor:
    """The places of some items, from numbers or a mask."""
    if isinstance(value, range):
        value = list(value)
    try:
        value = torch.as_tensor(value)
    except Exception as error:
        raise TypeError(f"Expected 'index' to be a list or a tensor of "
                        f"integers, or a mask (got {checks.show(value)})"
                        ) from error
    if not value.numel():
        return torch.empty(0, dtype=torch.long)
    if value.dtype == torch.bool:
        return checks.shaped('index', value, (num, ), f'[{num}] as mask'
                             ).nonzero().flatten()
    checks.tensor('index', value, checks.INTEGERS, 'integers or a mask')
    checks.shaped('index', value, (None, ), '[M]')
    value = checks.has_values('index', value, 'which items').long()
    if not bool(((value >= -num) & (value < num)).all()):
        raise ValueError(f"Expected 'index' in [{-num}, {num}) (got values "
                         f"from {int(value.min())} to {int(value.max())})")
    return value % num


def bounded(what: str, *sizes: int) -> None:
    """Raises a ValueError for more numbers than are made at once."""
    total = 1
    for size in sizes:
        total *= size
    if total > MAX_NUMBERS:
        raise ValueError(f'Expected {what} of at most {MAX_NUMBERS} numbers '
                         f'in all (got {total})')


def attributes(data: Any, *keys: str) -> list[Tensor]:
    """Those of a graph that a transform needs."""
    if not isinstance(data, Data):
        raise TypeError(f"Expected 'data' to be a torch_geometric.data.Data "
                        f"(got {checks.show(data)})")
    missing = [key for key in keys if getattr(data, key, None) is None]
    if missing:
        raise ValueError(f"Expected 'data' with {', '.join(keys)} (got no "
                         f"{missing})")
    return [getattr(data, key) for key in keys]
