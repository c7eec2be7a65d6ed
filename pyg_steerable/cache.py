"""A memory of results that forgets the oldest ones."""
from __future__ import annotations

from collections import OrderedDict
from functools import wraps
from threading import Lock
from typing import Any

from torch import Tensor


def remember(megabytes: float):
    """Decorates a function of hashable arguments that returns a tensor, or a
    tuple of them: results are kept until they take more than this together,
    then those used longest ago are dropped. They must not be written to.
    """
    limit = megabytes * 2**20

    def decorate(function):
        kept: OrderedDict = OrderedDict()  # arguments -> result, bytes
        lock, total = Lock(), 0

        @wraps(function)
        def remembered(*args):
            nonlocal total
            with lock:
                if args in kept:
                    kept.move_to_end(args)
                    return kept[args][0]
            result = function(*args)  # may call itself: not under the lock
            size = _bytes(result)
            with lock:
                if args not in kept:
                    kept[args] = result, size
                    total += size
                while total > limit and len(kept) > 1:
                    total -= kept.popitem(last=False)[1][1]
            return result

        def clear():
            nonlocal total
            with lock:
                kept.clear()
                total = 0

        wrapper: Any = remembered
        wrapper.kept, wrapper.cache_clear = kept, clear
        return wrapper

    return decorate


def _bytes(result) -> int:
    # An entry takes some memory whatever it holds.
    tensors = result if isinstance(result, tuple) else (result, )
    return 1024 + sum(t.numel() * t.itemsize for t in tensors
                      if isinstance(t, Tensor))
