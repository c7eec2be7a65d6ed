"""Some of the points."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import select

from ... import checks

#: More points to draw are a mistake.
MOST = 2**27


@functional_transform('random_point_subset')
class RandomPointSubset(BaseTransform):
    r"""Keeps a random subset of the points, in random order (functional
    name: :obj:`random_point_subset`). All attributes that PyG takes for
    node-level (one row per point) keep the same points.

    Args:
        num (int): The number of points to keep.
        replace (bool, optional): Draw each point independently, so that
            points repeat. Otherwise all are different, and clouds of fewer
            than :obj:`num` points are an error. (default: :obj:`False`)

    Raises:
        ValueError: If a cloud is empty or has too few points, or has edges
            or faces, which would point to removed points.
    """
    def __init__(self, num: int, replace: bool = False):
        self.num = checks.integer('num', num, 1, MOST)
        self.replace = checks.flag('replace', replace)

    def forward(self, data: Data) -> Data:
        for name in ('edge_index', 'adj_t', 'face'):
            if checks.data('data', data).get(name) is not None:
                raise ValueError(f"Expected a point cloud (got data with "
                                 f"'{name}'). Draw points before building a "
                                 f"graph of them")
        n = data.num_nodes or 0
        least = 1 if self.replace else self.num
        if n < least:
            raise ValueError(f"Expected a cloud of at least {least} points "
                             f"(got {n}). With 'replace' fewer will do, but "
                             f"not none")
        if self.replace:
            keep = torch.randint(n, (self.num, ), device='cpu')
        else:
            keep = torch.randperm(n, device='cpu')[:self.num]
        # Their number is read off the attributes: first find, then change.
        # (PyG takes a cell for three points.)
        for name in [key for key in data.keys() if key not in
                     ('cell', 'pbc') and data.is_node_attr(key)]:
            value = data[name]
            data[name] = _rows(value, keep, data.__cat_dim__(name, value))
        if 'num_nodes' in data:
            data.num_nodes = self.num
        return data

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.num}, '
                f'replace={self.replace})')


def _rows(value, index: Tensor, dim: int):
    if isinstance(value, np.ndarray):
        return value.take(index.numpy(), axis=dim)
    if isinstance(value, Tensor):
        index = index.to(value.device)
    return select(value, index, dim)
