"""Target nodes a bounded number at a time."""
from __future__ import annotations

import torch
from torch import Tensor

from ..limits import limits_of


class Chunks:
    """Target nodes in chunks of like degree, with their edges as a table.

    Yields :obj:`(nodes [n], edges [n, D])`; the empty places of a table
    point to the row :math:`E`, which callers keep at zero.
    """
    def __init__(self, dst: Tensor, num_nodes: int, kernel, itemsize: int):
        U, V, _ = kernel.dims
        self.num_edges = dst.numel()
        self.by_node = torch.argsort(dst, stable=True)
        degree = torch.bincount(dst, minlength=num_nodes)
        self.start = degree.cumsum(0) - degree
        degree, self.nodes = degree.sort(descending=True, stable=True)
        self.degree = degree
        self.bounds = self._bounds(degree.tolist(),
                                   int(U * V * kernel.working_size), U + V,
                                   itemsize, dst.device)

    @staticmethod
    def _bounds(degree, outer_dim, edge_dim, itemsize, device):
        budget = limits_of(device).chunk_bytes // itemsize
        bounds, first = [], 0
        end = len(degree)
        while end and degree[end - 1] == 0:
            end -= 1
        while first < end:
            width = degree[first]
            size = max(1, budget // (outer_dim + width * edge_dim))
            last = min(first + size, end)
            bounds.append((first, last, width, degree[last - 1]))
            first = last
        return bounds

    def __iter__(self):
        for first, last, width, least in self.bounds:
            nodes = self.nodes[first:last]
            column = torch.arange(width, device=nodes.device)
            table = self.start[nodes][:, None] + column
            if least == width:
                yield nodes, self.by_node[table]
                continue
            inside = column < self.degree[first:last, None]
            edges = self.by_node[table.where(inside, 0)]
            yield nodes, edges.where(inside, self.num_edges)
