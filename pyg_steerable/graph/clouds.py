"""Point clouds of a batch, those of one cloud behind each other."""
from __future__ import annotations

import torch
from torch import Tensor


class Clouds:
    r"""Points sorted by cloud: :obj:`pos [N, D]`, :obj:`batch [N]`, and of
    each of the :obj:`size` clouds its :obj:`count` and where it starts.
    """
    def __init__(self, pos: Tensor, batch: Tensor, size: int):
        self.pos, self.batch, self.size = pos, batch, size
        self.count = torch.bincount(batch, minlength=size)
        self.ptr = torch.nn.functional.pad(self.count.cumsum(0), (1, 0))

    def __len__(self) -> int:
        return len(self.pos)

    def take(self, rows: Tensor) -> Clouds:
        """Some of the points; :obj:`rows` must be increasing."""
        return Clouds(self.pos[rows], self.batch[rows], self.size)

    def replace(self, pos: Tensor) -> Clouds:
        """Other positions for the same points."""
        return Clouds(pos, self.batch, self.size)

    def slices(self) -> list[slice]:
        ptr = self.ptr.tolist()
        return [slice(a, b) for a, b in zip(ptr, ptr[1:])]


def read_clouds(name: str, batch_name: str, x: Tensor, batch: Tensor | None,
                size: int | None) -> tuple[Clouds, Tensor | None]:
    """Points and batch of a user, checked, detached and sorted by cloud; with
    the index of each sorted point, if that is another than its place.
    """
    x = _read_points(name, x)
    if size is not None:
        size = read_count('batch_size', size)
    if batch is None:
        batch = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return Clouds(x, batch, size or 1), None
    batch = _read_batch(batch_name, batch, len(x)).to(x.device)
    low, high = map(int, batch.aminmax()) if len(x) else (0, 0)
    if low < 0 or size is not None and high >= size:
        raise ValueError(f"Expected '{batch_name}' in [0, "
                         f"{'B' if size is None else size}), the cloud of "
                         f"each point (got values from {low} to {high})")
    order = None
    if bool((batch[1:] < batch[:-1]).any()):
        # Stable: within a cloud the points keep their order.
        order = batch.argsort(stable=True)
        x, batch = x[order], batch[order]
    return Clouds(x, batch, size or high + 1), order


def _read_points(name: str, x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"Expected '{name}' to be a tensor of positions (got "
                        f"{type(x).__name__})")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"Expected '{name}' in float32 or float64 (got "
                        f"{x.dtype}). Convert it with '.float()'")
    if x.dim() == 1:
        x = x[:, None]
    if x.dim() != 2 or x.shape[1] == 0:
        raise ValueError(f"Expected '{name}' of shape [N, D] (got "
                         f"{list(x.shape)})")
    x = x.detach().contiguous()
    if not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"Expected finite positions '{name}' (got "
                         f"{x[bad].tolist()} at point {bad})")
    return x


def _read_batch(name: str, batch: Tensor, num_points: int) -> Tensor:
    if (not isinstance(batch, Tensor) or batch.dtype == torch.bool
            or batch.is_floating_point() or batch.is_complex()):
        got = getattr(batch, 'dtype', type(batch).__name__)
        raise TypeError(f"Expected '{name}' to be a tensor of integers (got "
                        f"{got}). Convert it with '.long()'")
    if list(batch.shape) != [num_points]:
        raise ValueError(f"Expected '{name}' of shape [{num_points}], one "
                         f"entry for each point (got {list(batch.shape)})")
    return batch.long()


def read_count(name: str, value) -> int:
    """A positive integer of a user."""
    if (isinstance(value, bool) or not hasattr(value, '__index__')
            or int(value) < 1):
        raise ValueError(f"Expected '{name}' to be a positive integer (got "
                         f"{value!r})")
    return int(value)
