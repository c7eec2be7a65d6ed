"""What finds neighbours: compiled libraries, scipy's trees, or plain torch.

An engine is built on the source points. It answers with pairs
:obj:`(target, source)`, grouped by target. They are candidates, which
:mod:`.search` puts in order. All work on the given numbers in float64, with
differences of positions: squares and products of them would lose digits.
"""
from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from itertools import chain

import numpy as np
import torch
import torch_geometric.typing
from scipy.spatial import cKDTree
from torch import Tensor

from ... import checks
from .clouds import Clouds

#: Distances that brute force holds at a time.
TABLE_SIZE = {'cpu': 2**20, 'cuda': 2**25}
#: Trees lose to brute force beyond about this many dimensions.
TREE_DIM = 12

Pairs = tuple[Tensor, Tensor]


class BruteForce:
    """All distances, a bounded number at a time, on any device."""
    def __init__(self, source: Clouds, workers: int):
        self.source = source

    def knn(self, target: Clouds, k: int) -> Pairs:
        def nearest(dist, first):
            width = min(k, dist.shape[1])
            col = dist.topk(width, largest=False).indices
            row = torch.arange(len(dist), device=col.device)
            return row.repeat_interleave(width), col.flatten()

        return self._collect(target, nearest)

    def radius(self, target: Clouds, r: Tensor) -> Pairs:
        def within(dist, first):
            inside = dist <= r[first:first + len(dist), None]
            return inside.nonzero(as_tuple=True)

        return self._collect(target, within)

    def _collect(self, target: Clouds, find) -> Pairs:
        table = TABLE_SIZE.get(target.pos.device.type, TABLE_SIZE['cuda'])
        rows, cols = [], []
        both = self.source.shared(target)
        for s, t in zip(self.source.slices(both), target.slices(both)):
            step = max(1, table // (s.stop - s.start))
            for first in range(t.start, t.stop, step):
                y = target.pos[first:min(first + step, t.stop)]
                dist = torch.cdist(
                    y, self.source.pos[s],
                    compute_mode='donot_use_mm_for_euclid_dist')
                row, col = find(dist, first)
                rows.append(row + first)
                cols.append(col + s.start)
        return _cat(rows, target), _cat(cols, target)


class Trees:
    """A k-d tree of scipy for each cloud."""
    def __init__(self, source: Clouds, workers: int):
        self.source, self.workers = source, workers
        clouds, pos = source.shared(source), source.pos.cpu().numpy()
        self.trees = {cloud: cKDTree(pos[s]) for cloud, s in zip(
            clouds.tolist(), source.slices(clouds))}

    def knn(self, target: Clouds, k: int) -> Pairs:
        def nearest(tree, y, part):
            width = min(k, tree.n)
            _, col = tree.query(y, range(1, width + 1), workers=self.workers)
            return np.full(len(y), width), col.ravel()

        return self._collect(target, nearest)

    def radius(self, target: Clouds, r: Tensor) -> Pairs:
        length = r.cpu().numpy()

        def within(tree, y, part):
            found = tree.query_ball_point(
                y, length[part], workers=self.workers, return_sorted=False)
            degree = np.fromiter(map(len, found), np.int64, len(found))
            return degree, np.fromiter(chain.from_iterable(found), np.int64,
                                       degree.sum())

        return self._collect(target, within)

    def _collect(self, target: Clouds, find) -> Pairs:
        pos = target.pos.cpu().numpy()
        rows, cols = [], []
        both = self.source.shared(target)
        for cloud, place, part in zip(both.tolist(),
                                      self.source.slices(both),
                                      target.slices(both)):
            degree, col = find(self.trees[cloud], pos[part], part)
            rows.append(np.repeat(np.arange(part.start, part.stop), degree))
            cols.append(col + place.start)
        row, col = (_cat([torch.from_numpy(a) for a in parts], target)
                    for parts in (rows, cols))
        return row, col


class Compiled(ABC):
    """The operators of pyg-lib or torch_cluster, which are of one origin."""
    def __init__(self, source: Clouds, workers: int):
        self.source, self.workers = source, workers

    @staticmethod
    @abstractmethod
    def ops():
        """The operators."""

    @classmethod
    @abstractmethod
    def missing(cls, device: torch.device) -> str | None:
        """What they need and lack on a device, if anything."""

    @abstractmethod
    def within(self, target: Clouds, r: float, cap: int) -> Pairs:
        """At most so many sources within a distance of each target."""

    def knn(self, target: Clouds, k: int) -> Pairs:
        source = self.source
        on_gpu = target.pos.device.type != 'cpu'
        if not (on_gpu and k > 100):  # which is all that their kernels hold
            row, col = self.ops().knn(source.pos, target.pos, source.ptr,
                                      target.ptr, k, False, self.workers)
            # They leave out points that are 1e5 away and more.
            if len(row) == int((source.count.clamp(max=k) *
                                target.count).sum()):
                return row, col
        return BruteForce(source, self.workers).knn(target, k)

    def radius(self, target: Clouds, r: Tensor,
               cap: int | None = None) -> Pairs:
        if not len(target):
            return target.batch, target.batch
        largest = int(self.source.count.max())
        # On a GPU a table of this width is stored: it starts narrow, and is
        # widened for the targets that fill it.
        narrow = 64 if target.pos.device.type != 'cpu' else largest
        cap = min(cap or narrow, largest)
        row, col = self.within(target, float(r.max()), cap)
        degree = torch.bincount(row, minlength=len(target))
        full = (degree == cap) & (cap < largest)
        if not bool(full.any()):
            return row, col
        rows = full.nonzero()[:, 0]
        more, more_col = self.radius(target.take(rows), r[rows], 4 * cap)
        keep = ~full[row]
        row = torch.cat([row[keep], rows[more]])
        row, order = row.sort(stable=True)
        return row, torch.cat([col[keep], more_col])[order]


class PygLib(Compiled):
    """The library that PyG itself asks for."""
    @staticmethod
    def ops():
        return torch.ops.pyg

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        if not getattr(torch_geometric.typing, 'WITH_KNN', False):
            return ("'pyg-lib>=0.6' is not installed. Install it from "
                    "https://data.pyg.org")
        return None

    def within(self, target, r, cap):
        return self.ops().radius(self.source.pos, target.pos, self.source.ptr,
                                 target.ptr, r, cap, self.workers, False)

    @classmethod
    def fps(cls, pos, ptr, ratio, random_start):
        return cls.ops().fps(pos, ptr, ratio, random_start)


class TorchCluster(Compiled):
    """Its predecessor, which PyG no longer uses."""
    @staticmethod
    def ops():
        import torch_cluster  # noqa: F401
        return torch.ops.torch_cluster

    @classmethod
    def missing(cls, device: torch.device) -> str | None:
        if importlib.util.find_spec('torch_cluster') is None:
            return ("'torch_cluster' is not installed. Install it with 'pip "
                    "install torch_cluster'")
        if device.type == 'cuda' and cls.ops().cuda_version() == -1:
            return ("'torch_cluster' was built without CUDA. Build it where "
                    "the CUDA toolkit is installed")
        return None

    def within(self, target, r, cap):
        return self.ops().radius(self.source.pos, target.pos, self.source.ptr,
                                 target.ptr, r, cap, self.workers)

    @classmethod
    def fps(cls, pos, ptr, ratio, random_start):
        return cls.ops().fps(pos, ptr, pos.new_tensor(ratio), random_start)


#: Engines by name, in the order that 'auto' prefers them on a GPU.
ENGINES: dict[str, type] = {
    'pyg_lib': PygLib,
    'torch_cluster': TorchCluster,
    'torch': BruteForce,
    'scipy': Trees,
}


def choose_engine(name: str, device: torch.device, dim: int):
    """The class of the engine that has this name, or suits the points."""
    checks.choice('engine', name, ('auto', *ENGINES))
    if name == 'auto' and device.type == 'cpu':
        return Trees if dim <= TREE_DIM else BruteForce
    for candidate, engine in ENGINES.items():
        if name in ('auto', candidate):
            problem = (engine.missing(device)
                       if issubclass(engine, Compiled) else None)
            if problem is None:
                return engine
            if name != 'auto':
                raise ImportError(f"Engine {name!r} cannot be used: "
                                  f"{problem}, or leave engine='auto'")


def _cat(parts: list[Tensor], like: Clouds) -> Tensor:
    empty = like.batch.new_empty(0)
    return torch.cat([empty, *(p.to(empty.device) for p in parts)])
