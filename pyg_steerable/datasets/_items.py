"""Checks that the data sets here share: items, labels, transforms."""
from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_steerable import checks

NUMBERS = checks.FLOATING + checks.INTEGERS + (torch.bool, )
#: The largest number of classes, and of numbers that are made in one call.
MAX_CLASSES, MAX_NUMBERS = 2**16, 2**28


def transform(value: Any) -> Callable | None:
    """Something to call with every item, or nothing."""
    if value is not None and not callable(value):
        raise TypeError(f"Expected 'transform' to be callable or None (got "
                        f"{checks.show(value)})")
    return value


def sequence(name: str, value: Any) -> list:
    """A list or something else to go through, but no string."""
    try:
        if isinstance(value, (str, bytes, dict)):
            raise TypeError
        return list(value)
    except Exception as error:  # of tensors without dimensions, too
        raise TypeError(f"Expected '{name}' to be a list (got "
                        f"{checks.show(value)})") from error


def names(name: str, value: Any) -> list[str]:
    """A list of strings."""
    return [checks.text(name, item) for item in sequence(name, value)]


def labels(name: str, value: Any, num: int, classes: Sequence) -> Tensor:
    """One class for each of the items, as numbers."""
    value = checks.tensor(name, value, NUMBERS, 'a tensor of classes')
    value = checks.has_values(name, value, 'the class of each item')
    if value.shape != (num, ):
        raise ValueError(f"Expected '{name}' of shape [{num}], one for each "
                         f"item (got {list(value.shape)})")
    number = value.long()
    bad = (number < 0) | (number >= len(classes)) | (number != value)
    if bad.any():
        raise ValueError(f"Expected '{name}' in 0 ... {len(classes) - 1} "
                         f"(got {value[bad][0].item()}): there are "
                         f"{len(classes)} classes")
    return number


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
