"""The one reader of batches: the cloud of each point."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks

#: More clouds than these, and than points, are a mistake that would fill the
#: memory.
MOST = 2**20


def read_batch(index, x: Tensor, size: int | None, name: str = 'batch'
               ) -> tuple[Tensor, int]:
    """The cloud of each row of x, and the number of clouds.

    Raises:
        ValueError: If a shape or a device does not fit, or a cloud is not
            there. (Where a size is given, values on a GPU are not looked at,
            which would wait for them: :func:`largest_index` does.)
    """
    if size is not None:
        size = _read_size('batch_size' if name.startswith('batch') else
                          'size', size, x)
    if index is None:
        return x.new_zeros(x.shape[0], dtype=torch.long), (
            1 if size is None else size)
    index = checks.indices(name, index, size, x.shape[0],
                           '[N], the cloud of each point')
    checks.same_device(points=x, **{name: index})
    if size is None:
        size = largest_index(name, index, _limit(x)) + 1
    return index, size


def largest_index(name: str, index: Tensor, size: int | None) -> int:
    """The largest cloud, -1 if there is none; all must be in [0, size)."""
    checks.has_values(name, index, 'the number of clouds')
    if not len(index):
        return -1
    ends = torch.stack(index.aminmax()).cpu()
    return int(checks.indices(name, ends, size)[1])


def _read_size(name: str, size, x: Tensor) -> int:
    if torch.compiler.is_compiling():  # sizes may be symbols
        return size
    return checks.integer(name, size, min(1, x.shape[0]), _limit(x))


def _limit(x: Tensor) -> int | None:
    return None if torch.compiler.is_compiling() else max(MOST, x.shape[0])
