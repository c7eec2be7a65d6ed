"""What tests of neighbors share."""
import itertools
import math
import os
import time

import pytest
import torch

ENGINES = [
    'scipy', 'torch',
    pytest.param('torch_cluster', marks=pytest.mark.cluster),
    'pyg_lib',
]
DTYPES = [torch.float64, torch.float32]
#: Random clouds for each engine; more with NEIGHBOR_CLOUDS=1000.
CLOUDS = int(os.environ.get('NEIGHBOR_CLOUDS', 48))


def oracle(x, y, batch_x=None, batch_y=None, k=None, r=None, skip=False,
           cell=None, pbc=(True, True, True), reach=2):
    """Every pair looked at: rows (i, j, offset) by i, distance and index."""
    eps = 8 * torch.finfo(torch.double).eps
    x, y = x.double(), y.double()
    images, shift = torch.zeros(1, 0).long(), torch.zeros(1, x.shape[1])
    if cell is not None:
        images = torch.tensor([*itertools.product(
            *(range(-reach, reach + 1) if p else [0] for p in pbc))])
        shift = images.double() @ cell.double()
    assert k is None or k < 100
    edges = []
    for i, p in enumerate(y):
        dist = (x[:, None] - p + shift).norm(dim=2)
        if batch_x is not None:
            dist[batch_x != batch_y[i]] = math.inf
        if skip:
            dist[i, (images == 0).all(1)] = math.inf
        dist = dist.flatten()
        dist, near = dist.topk(min(150, len(dist)), largest=False)
        found = [(d, n // len(images), images[n % len(images)].tolist())
                 for d, n in zip(dist.tolist(), near.tolist())
                 if d < math.inf]
        found.sort()
        order, begin = [], -1.
        for d, j, m in found:
            if d > begin * (1 + eps):
                begin = d
            if r is None or d <= r * (1 + eps):
                order.append((begin, j, m))
        order.sort()
        edges += [(i, j, *m) for _, j, m in order[:k]]
    return edges


def rows(result):
    """The edges as the oracle writes them."""
    if isinstance(result, tuple):
        result = torch.cat([result[0], result[1].t()])
    return [tuple(e) for e in result.t().tolist()]


def inputs(kind, dim, dtype, n=25, m=13):
    x, y = torch.randn(n, dim).to(dtype), torch.randn(m, dim).to(dtype)
    if kind == 'duplicated':
        x, y = x[torch.randint(4, (n, ))], x[torch.randint(4, (m, ))]
    if kind == 'identical':
        x, y = x[:1].repeat(n, 1), x[:1].repeat(m, 1)
    if kind == 'collinear':
        x, y = (t[:, :1] * torch.ones(dim, dtype=dtype) for t in (x, y))
    if kind == 'lattice':
        x, y = x.mul(1.5).round(), y.mul(1.5).round()
    if kind == 'far away':
        x, y = x + 3000, y + 3000
    if kind == 'empty':
        x = x[:0]
    if kind == 'no targets':
        y = y[:0]
    return x, y


KINDS = ['random', 'duplicated', 'identical', 'collinear', 'lattice',
         'far away', 'empty', 'no targets']


def lattice(dtype):
    side = torch.arange(5.)
    x = torch.cartesian_prod(side, side, side)[torch.randperm(125)].to(dtype)
    return x - x.mean(0)


def seconds(function):
    start = time.process_time()
    out = function()
    return out, time.process_time() - start
