"""Checks of arguments: one function for each kind, one wording.

Each takes the name of the argument and its value, returns the value in its
plain Python or torch form, and raises a TypeError (another kind of thing) or
a ValueError (the right kind, but not this one) that says what was expected,
what was got and, where it is not plain, the fix.
"""
from __future__ import annotations

import math
import numbers
import operator
import os
import reprlib
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data.data import BaseData

#: What fields, positions and attributes may be made of.
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
#: What voxels may be made of.
NUMBERS = FLOATING + INTEGERS + (torch.bool, )
#: The largest number of classes, and of numbers that are made in one call.
MAX_CLASSES, MAX_NUMBERS = 2**16, 2**28


def show(value) -> str:
    """A value in an error message: short, and without a tensor's numbers."""
    if isinstance(value, Tensor):
        return f'a tensor of {value.dtype} and shape {list(value.shape)}'
    if type(value).__repr__ is object.__repr__:
        return type(value).__name__
    try:
        text = reprlib.repr(value)
    except Exception:  # of somebody else's __repr__
        return type(value).__name__
    return text if isinstance(value, (str, numbers.Number, type(None))) else \
        f'{type(value).__name__} {text}'


# Numbers ###################################################################


def integer(name: str, value, least: int | None = 1,
            most: int | None = None) -> int:
    """A Python integer from anything that is one: NumPy's too, no bool."""
    try:
        if _is_bool(value):
            raise ValueError
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:
        # 2.5 and True are numbers, but not these; 'a' is none.
        kind = ValueError if isinstance(value, numbers.Real) else TypeError
        raise kind(f"Expected '{name}' to be {_integers(least, most)} (got "
                   f"{show(value)})") from error
    if (least is not None and number < least
            or most is not None and number > most):
        raise ValueError(f"Expected '{name}' to be {_integers(least, most)} "
                         f"(got {number})")
    return number


def real(name: str, value, least: float = -math.inf, most: float = math.inf,
         *, above: float = -math.inf, below: float = math.inf) -> float:
    """A finite number in [least, most] and in (above, below)."""
    number = _real(name, value)
    if not (math.isfinite(number) and least <= number <= most
            and above < number < below):
        low = (f' above {above:g}' if above > -math.inf else
               f' >= {least:g}' if least > -math.inf else '')
        high = (f' below {below:g}' if below < math.inf else
                f' <= {most:g}' if most < math.inf else '')
        both = ' and' if low and high else ''
        raise ValueError(f"Expected '{name}' to be a finite number{low}{both}"
                         f"{high} (got {show(value)})")
    return number


def positive(name: str, value) -> float:
    """A finite number above zero."""
    number = _real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"Expected '{name}' to be a positive number (got "
                         f"{show(value)})")
    return number


def scale(name: str, value) -> float:
    """A positive number whose square float32 holds: a length or a factor."""
    return real(name, positive(name, value), 1e-18, 1e15)


def _real(name: str, value) -> float:
    is_number = isinstance(value, numbers.Real) or (
        isinstance(value, Tensor) and value.dim() == 0
        and value.dtype in FLOATING + INTEGERS and not value.is_meta)
    if not is_number or _is_bool(value):
        raise TypeError(f"Expected '{name}' to be a number (got "
                        f"{show(value)})")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _is_bool(value) -> bool:
    """Whether it is a truth value of Python, NumPy or torch."""
    return isinstance(value, bool) or str(getattr(value, 'dtype', '')) in (
        'bool', 'torch.bool')


def _integers(least, most) -> str:
    what = 'a non-negative integer' if least == 0 else 'an integer'
    if most is not None:
        return f'{what}, >= {least} and <= {most}'
    return f'{what} >= {least}' if least else what


# Options ###################################################################


def choice(name: str, value, choices: Sequence):
    """One of some values, which are few."""
    if not any(type(value) is type(c) and value == c for c in choices):
        raise ValueError(
            f"Expected '{name}' to be one of {', '.join(map(repr, choices))} "
            f"(got {show(value)})")
    return value


def flag(name: str, value) -> bool:
    """True or False, NumPy's too."""
    if not _is_bool(value) or getattr(value, 'shape', ()) != ():
        raise TypeError(f"Expected '{name}' to be True or False (got "
                        f"{show(value)})")
    return bool(value)


def text(name: str, value) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"Expected '{name}' to be a string (got "
                        f"{show(value)})")
    return value


def path(name: str, value) -> str:
    """A path as string, whether or not something is there."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"Expected '{name}' to be a path, a string (got "
                        f"{show(value)})")
    value = os.fspath(value)
    if not isinstance(value, str) or '\0' in value:
        raise ValueError(f"Expected '{name}' to be a path, a string without "
                         f"null characters (got {show(value)})")
    return value


def function(name: str, value, what: str = 'a callable'):
    """Anything that can be called."""
    if not callable(value):
        raise TypeError(f"Expected '{name}' to be {what} (got "
                        f"{show(value)})")
    return value


def integers(name: str, values, length: int | None = None, least: int = 1,
             most: int | None = None) -> tuple[int, ...]:
    """A sequence of integers, so many of them, or one or more."""
    if isinstance(values, (str, bytes, dict)):
        values = None
    try:
        values = tuple(values)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise TypeError(f"Expected '{name}' to be a sequence of integers "
                        f"(got {show(values)})") from error
    if not values or length is not None and len(values) != length:
        raise ValueError(f"Expected '{name}' to hold "
                         f"{'one or more' if length is None else length} "
                         f"positive numbers (got {show(values)})")
    return tuple(integer(name, n, least, most) for n in values)


def generator(name: str, value) -> torch.Generator | None:
    """A source of random numbers, or torch's own."""
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(f"Expected '{name}' to be a torch.Generator (got "
                        f"{show(value)})")
    return value


# Tensors ###################################################################


def tensor(name: str, value, dtypes: Sequence[torch.dtype] = FLOATING,
           what: str = 'a tensor') -> Tensor:
    """A dense tensor of one of some dtypes. :obj:`what` is what to call it
    in the message.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected '{name}' to be {what} (got {show(value)}). "
                        f"Make one with 'torch.as_tensor'")
    if value.layout != torch.strided:
        raise TypeError(f"Expected '{name}' to be {what} that is dense (got "
                        f"layout {value.layout}). Convert it with "
                        f"'.to_dense()'")
    if value.dtype not in dtypes:
        one = 'torch.long' if dtypes[0] is torch.int64 else dtypes[0]
        names = ', '.join(str(d).removeprefix('torch.') for d in dtypes)
        raise TypeError(f"Expected '{name}' to be {what} of {names} (got "
                        f"{value.dtype}). Convert it with '.to({one})'")
    return value


def shaped(name: str, value: Tensor, shape: Sequence[int | None],
           what: str) -> Tensor:
    """Raises a ValueError unless the tensor has this shape, where
    :obj:`None` is any length. :obj:`what` starts with the shape in symbols,
    as in '[N, 3], one for each node': only an error puts numbers in, which
    while compiling would be fixed.
    """
    if value.dim() != len(shape) or any(
            n is not None and m != n for m, n in zip(value.shape, shape)):
        symbols, bracket, words = what[1:].partition(']')
        here = ', '.join(symbol if n is None else str(n) for symbol, n in
                         zip(symbols.split(', '), shape))
        raise ValueError(f"Expected '{name}' of shape [{here}{bracket}{words} "
                         f"(got {list(value.shape)})")
    return value


def positions(name: str, value, dtypes: Sequence[torch.dtype] = FLOATING
              ) -> Tensor:
    """Points in space, [N, 3]."""
    tensor(name, value, dtypes, 'a tensor of positions')
    return shaped(name, value, (None, 3), '[N, 3]')


def has_values(name: str, value: Tensor, why: str) -> Tensor:
    """Raises a ValueError for a tensor without values (on the meta device),
    where the result depends on them.
    """
    if value.is_meta:
        raise ValueError(f"Expected '{name}' on a device with values (got a "
                         f"tensor on 'meta'): {why} depends on them")
    return value


def finite(name: str, value: Tensor, row: str = 'row') -> Tensor:
    """Raises a ValueError that names the first row that holds NaN or inf."""
    good = value.isfinite()
    if not bool(good.all()):
        if value.dim() == 0:
            raise ValueError(f"Expected '{name}' to be finite (got "
                             f"{float(value)})")
        bad = int((~good).flatten(1).any(1).nonzero()[0]) \
            if value.dim() > 1 else int((~good).nonzero()[0])
        raise ValueError(f"Expected '{name}' to be finite (got "
                         f"{value[bad].tolist()} at {row} {bad})")
    return value


def indices(name: str, value, size: int | None = None,
            length: int | None = None, what: str = '[N]') -> Tensor:
    """A vector of integers in [0, size), as long; values are looked at only
    on the CPU, where that does not wait, and never while compiling.
    """
    tensor(name, value, INTEGERS, 'a tensor of integers')
    shaped(name, value, (length, ), what)
    if (value.device.type == 'cpu' and not torch.compiler.is_compiling()
            and not is_traced(value) and value.numel()):
        low, high = (int(t) for t in value.aminmax())
        if low < 0 or size is not None and high >= size:
            raise ValueError(
                f"Expected '{name}' in [0, {'N' if size is None else size}) "
                f"(got values from {low} to {high})")
    return value.long()


def is_traced(value: Tensor) -> bool:
    """Whether the tensor's values may not be looked at: a fake tensor, any
    tensor beside fake ones, or one inside a transform of :mod:`torch.func` or
    a tracer.
    """
    from torch._guards import detect_fake_mode
    modes = torch._C._TorchDispatchModeKey
    return bool(torch._C._are_functorch_transforms_active()
                or torch._C._get_dispatch_mode(modes.PROXY) is not None
                or torch.jit.is_tracing()
                or detect_fake_mode(value) is not None)


def same_device(**tensors: Tensor | None) -> None:
    """Raises a ValueError unless the tensors are on one device."""
    found = {name: t.device for name, t in tensors.items() if t is not None}
    if len(set(found.values())) > 1:
        places = ', '.join(f"'{n}' on {d}" for n, d in found.items())
        raise ValueError(f"Expected all tensors on one device (got "
                         f"{places}). Move them with '.to(device)'")


# Warnings ##################################################################


def warn(message: str) -> None:
    """Warns at the line of the user's that leads here."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    inside = ('pyg_steerable', 'torch', 'torch_geometric')
    while frame is not None and str(frame.f_globals.get(
            '__name__')).split('.')[0] in inside:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


# Memory ####################################################################


def _physical_memory() -> int:
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):  # not known everywhere
        return 2**40


_MEMORY = _physical_memory()


def memory(what: str, size: int, fix: str) -> None:
    """Raises a MemoryError for more bytes than the machine has."""
    if size > _MEMORY:
        raise MemoryError(f'Expected {what} to fit into the memory of '
                          f'{_MEMORY / 2**30:,.0f} GiB (got '
                          f'{size / 2**30:,.0f} GiB). {fix}')


def amount(what: str, *sizes: int) -> None:
    """Raises a ValueError for more numbers than are made in one call."""
    if math.prod(sizes) > MAX_NUMBERS:
        raise ValueError(f'Expected {what} of at most {MAX_NUMBERS} numbers '
                         f'in all (got {math.prod(sizes)})')


# Data ######################################################################


def sequence(name: str, value: Any) -> list:
    """A list or something else to go through, but no string."""
    try:
        if isinstance(value, (str, bytes, dict)):
            raise TypeError
        return list(value)
    except Exception as error:  # of tensors without dimensions, too
        raise TypeError(f"Expected '{name}' to be a list (got "
                        f"{show(value)})") from error


def texts(name: str, value: Any) -> list[str]:
    """A list of strings."""
    return [text(name, item) for item in sequence(name, value)]


def labels(name: str, value: Any, num: int, classes: Sequence) -> Tensor:
    """One class for each of the items, as numbers."""
    value = tensor(name, value, (*FLOATING, *INTEGERS, torch.bool),
                   'a tensor of classes')
    value = has_values(name, value, 'the class of each item')
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


def data(name: str, value: Any) -> BaseData:
    """A data object of PyG's."""
    if not isinstance(value, BaseData):
        raise TypeError(f"Expected '{name}' to be a Data object (got "
                        f"{show(value)})")
    return value


def attributes(name: str, value: Any, *keys: str) -> list:
    """Those of a data object that are needed."""
    data(name, value)
    missing = [key for key in keys if getattr(value, key, None) is None]
    if missing:
        raise ValueError(f"Expected '{name}' with {', '.join(keys)} (got no "
                         f"{missing})")
    return [getattr(value, key) for key in keys]
