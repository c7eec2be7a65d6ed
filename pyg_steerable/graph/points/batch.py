"""The cloud of each point."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks

#: More clouds than these, or than so many for each point, are a mistake that
#: would fill the memory.
MOST, MOST_EACH = 2**20, 2**10


def read_batch(index, x: Tensor, size: int | None, name: str = 'batch'
               ) -> tuple[Tensor, int]:
    """The cloud of each row of x, and the number of clouds."""
    argument = 'batch_size' if name == 'batch' else 'size'
    if size is not None:
        size = _read_size(argument, size, x)
    if index is None:
        return x.new_zeros(x.shape[0], dtype=torch.long), (
            1 if size is None else size)
    checks.tensor(name, index, checks.INTEGERS, 'a tensor of integers')
    checks.shaped(name, index, (x.shape[0], ),
                  '[N], the cloud of each point')
    checks.same_device(points=x, **{name: index})
    if size is None:
        checks.has_values(name, index, 'the number of clouds')
        size = int(index.max()) + 1 if len(index) else 0
        if size > 0:
            _read_size(f'{name}.max() + 1', size, x)
    return checks.indices(name, index, size), size


def _read_size(name: str, size, x: Tensor) -> int:
    if torch.compiler.is_compiling():  # sizes may be symbols
        return size
    return checks.integer(name, size, 0, max(MOST, MOST_EACH * x.shape[0]))
