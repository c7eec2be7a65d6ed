import importlib.util
import inspect
import itertools
import math
import os
import time
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch_geometric.nn.pool as pyg_pool
from scipy.spatial import cKDTree
from torch._dynamo.testing import CompileCounter
from torch_geometric.nn import MessagePassing

from pyg_steerable import Group
from pyg_steerable.graph import (
    fps,
    knn,
    knn_graph,
    nearest,
    radius,
    radius_graph,
)
from pyg_steerable.graph.points import engines, search

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*fewer than k:UserWarning'),
    pytest.mark.filterwarnings('ignore:.*torch_cluster.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*are about as far apart:UserWarning'),
]

ENGINES = [
    'scipy', 'torch',
    pytest.param('torch_cluster', marks=pytest.mark.cluster),
    'pyg_lib',
]
DTYPES = [torch.float64, torch.float32]
#: Random clouds for each engine; more with NEIGHBOR_CLOUDS=1000.
CLOUDS = int(os.environ.get('NEIGHBOR_CLOUDS', 48))


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param in ('torch_cluster', 'pyg_lib'):
        pytest.importorskip(request.param)
    return request.param


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


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dim', [1, 2, 3])
@pytest.mark.parametrize('dtype', DTYPES)
def test_against_the_oracle(kind, dim, dtype, engine):
    x, y = inputs(kind, dim, dtype)
    assert rows(knn(x, y, 4, engine=engine)) == oracle(x, y, k=4)
    assert rows(radius(x, y, 1., engine=engine)) == oracle(x, y, r=1.)
    for loop in (True, False):
        known = {'skip': not loop}
        expected = oracle(x, x, k=4, **known), oracle(x, x, r=1., **known)
        for flow in ('source_to_target', 'target_to_source'):
            given = {'loop': loop, 'flow': flow, 'engine': engine}
            out = knn_graph(x, 4, **given), radius_graph(x, 1., **given)
            if flow == 'source_to_target':
                out = [e.flip(0) for e in out]
            assert tuple(map(rows, out)) == expected


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('ordered', [True, False])
def test_batches(dtype, ordered, engine):
    # Cloud 1 has no sources, cloud 2 no targets, cloud 4 neither.
    x, y = inputs('random', 3, dtype, 40, 30)
    batch_x = torch.tensor([0, 2, 3, 5])[torch.randint(4, (40, ))]
    batch_y = torch.tensor([0, 1, 3, 5])[torch.randint(4, (30, ))]
    if ordered:
        batch_x, batch_y = batch_x.sort().values, batch_y.sort().values
    for size in (None, 6, 8):
        out = knn(x, y, 3, batch_x, batch_y, batch_size=size, engine=engine)
        assert rows(out) == oracle(x, y, batch_x, batch_y, k=3)
        out = radius(x, y, 1.2, batch_x, batch_y, batch_size=size,
                     engine=engine)
        assert rows(out) == oracle(x, y, batch_x, batch_y, r=1.2)
        out = knn_graph(x, 5, batch_x, batch_size=size, engine=engine)
        expected = oracle(x, x, batch_x, batch_x, k=5, skip=True)
        assert rows(out.flip(0)) == expected
        out = radius_graph(x, 1., batch_x.int(), engine=engine)
        expected = oracle(x, x, batch_x, batch_x, r=1., skip=True)
        assert rows(out.flip(0)) == expected


CELLS = {
    'cubic': torch.eye(3) * 2.2,
    'skew': torch.tensor([[2., 0, 0], [1.3, 1.8, 0], [-.9, .7, 2.5]]),
    'left-handed': torch.tensor([[0, 2., 0], [2.3, 0, 0], [.1, .2, 1.9]]),
}
PBC = [(True, True, True), (True, False, True), (False, False, True),
       (False, False, False)]


@pytest.mark.parametrize('name', CELLS)
@pytest.mark.parametrize('pbc', PBC)
@pytest.mark.parametrize('dtype', DTYPES)
def test_periodic(name, pbc, dtype, engine):
    cell = CELLS[name].to(dtype)
    # Far outside of the cell too; and a radius larger than the cell.
    x = 1.2 * torch.randn(5, 3, dtype=dtype)
    y = 1.2 * torch.randn(3, 3, dtype=dtype)
    given = {'cell': cell, 'pbc': pbc, 'engine': engine}
    known = {'cell': cell, 'pbc': pbc, 'reach': 6}
    assert rows(radius(x, y, 2.5, **given)) == oracle(x, y, r=2.5, **known)
    assert rows(knn(x, y, 12, **given)) == oracle(x, y, k=12, **known)
    for loop in (True, False):
        index, offset = radius_graph(x, 2.5, loop=loop, **given)
        expected = oracle(x, x, r=2.5, skip=not loop, **known)
        assert rows((index.flip(0), offset)) == expected
        # As the user will compute it.
        vector = x[index[0]] + offset.to(dtype) @ cell - x[index[1]]
        assert (vector.norm(dim=1) <= 2.5 + 1e-4).all()
        index, offset = knn_graph(x, 9, loop=loop, **given)
        expected = oracle(x, x, k=9, skip=not loop, **known)
        assert rows((index.flip(0), offset)) == expected


@pytest.mark.parametrize('kind', [k for k in KINDS if k != 'far away'])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('batched', [False, True])
def test_periodic_inputs_of_all_kinds(kind, dtype, batched, engine):
    """Unsorted batches, and clouds without sources or targets, included."""
    cell = CELLS['skew'].to(dtype)
    x, y = inputs(kind, 3, dtype, 8, 4)
    batch = (torch.randint(3, (len(x), )), torch.randint(3, (len(y), )))
    batch = batch if batched else (None, None)
    given = {'cell': cell, 'pbc': PBC[1], 'engine': engine}
    known = {'cell': cell, 'pbc': PBC[1], 'reach': 6}
    out = radius(x, y, 1.7, *batch, **given)
    assert rows(out) == oracle(x, y, *batch, r=1.7, **known)
    out = knn(x, y, 7, *batch, **given)
    assert rows(out) == oracle(x, y, *batch, k=7, **known)
    index, offset = radius_graph(x, 1.7, batch[0], **given)
    assert rows((index.flip(0), offset)) == oracle(
        x, x, batch[0], batch[0], r=1.7, skip=True, **known)
    index, offset = knn_graph(x, 7, batch[0], **given)
    assert rows((index.flip(0), offset)) == oracle(
        x, x, batch[0], batch[0], k=7, skip=True, **known)


@pytest.mark.parametrize('pbc', [[True], [True, True], [False, True]],
                         ids=str)
@pytest.mark.parametrize('dtype', DTYPES)
def test_periodic_in_other_dimensions(pbc, dtype, engine):
    dim = len(pbc)
    cell = torch.tensor([[1.4, .6], [-.3, 1.7]], dtype=dtype)[:dim, :dim]
    x, y = (1.2 * torch.randn(n, dim, dtype=dtype) for n in (6, 3))
    given = {'cell': cell, 'pbc': pbc, 'engine': engine}
    known = {'cell': cell, 'pbc': pbc, 'reach': 14}
    assert rows(radius(x, y, 2.5, **given)) == oracle(x, y, r=2.5, **known)
    assert rows(knn(x, y, 9, **given)) == oracle(x, y, k=9, **known)
    index, offset = knn_graph(x, 9, **given)
    expected = oracle(x, x, k=9, skip=True, **known)
    assert rows((index.flip(0), offset)) == expected


def test_a_point_is_the_neighbor_of_its_images(engine):
    x = torch.rand(1, 3)
    index, offset = radius_graph(x, 1., cell=torch.eye(3), engine=engine)
    assert not index.any()
    axes = torch.eye(3).long()
    assert {*rows(offset.t())} == {*rows(axes), *rows(-axes)}
    index, offset = knn_graph(x, 26, cell=torch.eye(3), engine=engine)
    assert offset.abs().max() == 1 and len(offset.unique(dim=0)) == 26


def test_a_crowd_behind_the_boundary(engine):
    """Where points are crowded, neighbours are farther than on average."""
    x = .55 + .01 * torch.rand(60, 3)
    y, cell = torch.zeros(1, 3), torch.eye(3)
    index, offset = knn(x, y, 1, cell=cell, engine=engine)
    assert rows((index, offset)) == oracle(x, y, k=1, cell=cell)
    assert offset.tolist() == [[-1, -1, -1]]


def test_the_last_source_is_tied(engine):
    """Beside an empty place, which the other target needs not."""
    x = torch.tensor([0., 10, 12, 12, 0])
    y = torch.tensor([0., 11])
    out = radius(x, y, 1.5, engine=engine)
    assert rows(out) == [(0, 0), (0, 4), (1, 1), (1, 2), (1, 3)]


def test_a_cell_for_each_cloud(engine):
    cells = torch.stack([*CELLS.values()]).double()
    pbc = torch.tensor(PBC[:3])
    x = 2 * torch.rand(15, 3, dtype=torch.double)
    batch = torch.randint(3, (15, ))
    given = {'cell': cells, 'pbc': pbc, 'engine': engine}
    for function, name in ((knn_graph, 'k'), (radius_graph, 'r')):
        index, offset = function(x, 3, batch, **given)
        found = set(rows((index, offset)))
        assert len(found) == index.shape[1]
        expected = set()
        for b in range(3):
            own = (batch == b).nonzero()[:, 0]
            edges = oracle(x[own], x[own], skip=True, cell=cells[b],
                           pbc=pbc[b].tolist(), reach=5, **{name: 3})
            expected |= {(int(own[j]), int(own[i]), *m)
                         for i, j, *m in edges}
        assert found == expected


def lattice(dtype):
    side = torch.arange(5.)
    x = torch.cartesian_prod(side, side, side)[torch.randperm(125)].to(dtype)
    return x - x.mean(0)


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_turned_lattice_has_the_same_graph(dtype, engine):
    """Where turns are exact, also in the middle of a shell."""
    x, cell = lattice(dtype), 5 * torch.eye(3, dtype=dtype)
    sample = fps(x, random_start=False)
    radial = radius_graph(x, 2., engine=engine)
    assert (radial[1] == (x == 0).all(1).nonzero()).sum() == 32
    periodic = knn_graph(x, 10, cell=cell, engine=engine)
    near = {k: knn_graph(x, k, engine=engine) for k in (1, 4, 10)}
    for g in Group('OxInv').sample(6).round().to(dtype):
        y = x @ g.t()
        assert radius_graph(y, 2., engine=engine).equal(radial)
        for k, expected in near.items():
            assert knn_graph(y, k, engine=engine).equal(expected)
        turned = knn_graph(y, 10, cell=cell @ g.t(), engine=engine)
        assert all(a.equal(b) for a, b in zip(turned, periodic))
        assert fps(y, random_start=False).equal(sample)


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_rotated_lattice_has_the_same_shells(dtype, engine):
    """Rounding orders the neighbours of a shell, but moves none out of it."""
    x, cell = lattice(dtype), 5 * torch.eye(3, dtype=dtype)
    for g in Group('O(3)').sample(4).to(dtype):
        y = x @ g.t()
        assert {*rows(radius_graph(y, 2.1, engine=engine))} == {
            *rows(radius_graph(x, 2.1, engine=engine))}
        # 6 neighbours, 12 along diagonals.
        assert {*rows(knn_graph(y, 18, cell=cell @ g.t(), engine=engine))
                } == {*rows(knn_graph(x, 18, cell=cell, engine=engine))}


def test_a_rotated_cloud_has_the_same_graph(engine):
    x = torch.randn(300, 3)
    expected = [set(rows(f)) for f in (knn_graph(x, 8, engine=engine),
                                       radius_graph(x, .8, engine=engine))]
    for g in Group('SO(3)').sample(3).float():
        turned = x @ g.t()
        assert [set(rows(f)) for f in
                (knn_graph(turned, 8, engine=engine),
                 radius_graph(turned, .8, engine=engine))] == expected


def draw(seed):
    """A cloud, its targets, their batches and the spacing of points."""
    gen = torch.Generator().manual_seed(seed)

    def pick(*values):
        return values[int(torch.randint(len(values), (), generator=gen))]

    dim, dtype = pick(1, 2, 3, 3, 3, 5), pick(*DTYPES)
    scale, offset = 10.**pick(*range(-6, 7)), pick(0., 1., 1e3, 5e5, 1e7)
    n, m = 50, 20
    x = torch.rand(n, dim, generator=gen).double()
    kind = pick('uniform', 'clusters', 'duplicates', 'grid', 'line')
    if kind == 'clusters':
        x = x[torch.randint(4, (n, ), generator=gen)] + 1e-5 * x
    if kind == 'duplicates':
        x = x[torch.randint(n // 4, (n, ), generator=gen)]
    if kind == 'grid':
        x = x.mul(4).round()
    if kind == 'line':
        x = x[:, :1] * torch.ones(dim)
    y = x[torch.randint(n, (m, ), generator=gen)]
    if pick(True, False):
        y = y + .2 * torch.rand(m, dim, generator=gen)
    x, y = ((t * scale + offset).to(dtype) for t in (x, y))
    batch = torch.randint(pick(1, 3), (n + m, ), generator=gen)
    return kind, x, y, batch[:n], batch[n:], scale * n**(-1 / dim)


def tree_oracle(x, y, k, r):
    """As a k-d tree sees points without their center: the k distances, and
    the pairs that are certainly and perhaps within the radius.
    """
    center = torch.cat([x, y]).double().mean(0)
    tree, y = cKDTree((x.double() - center).numpy()), y.double() - center
    dist = tree.query(y.numpy(), range(1, k + 1))[0]
    pairs = [{(i, j) for i, near in enumerate(tree.query_ball_point(
        y.numpy(), r * (1 + sign * 1e-8))) for j in near} for sign in (-1, 1)]
    return dist, *pairs


@pytest.mark.parametrize('seed', range(CLOUDS))
def test_random_clouds_anywhere(seed, engine):
    kind, x, y, batch_x, batch_y, r = draw(seed)
    out = knn(x, y, 6, batch_x, batch_y, engine=engine)
    assert rows(out) == oracle(x, y, batch_x, batch_y, k=6)
    out = radius(x, y, r, batch_x, batch_y, engine=engine)
    assert rows(out) == oracle(x, y, batch_x, batch_y, r=r)
    out = knn_graph(x, 6, batch_x, engine=engine)
    assert rows(out.flip(0)) == oracle(x, x, batch_x, batch_x, k=6, skip=True)
    out = radius_graph(x, r, batch_x, engine=engine)
    assert rows(out.flip(0)) == oracle(x, x, batch_x, batch_x, r=r, skip=True)
    dist, sure, perhaps = tree_oracle(x, y, 6, r)
    i, j = knn(x, y, 6, engine=engine)
    found = (x[j].double() - y[i].double()).norm(dim=1).view(-1, 6)
    # In float64 taking the center away rounds too.
    rounding = 1e-15 * float(x.abs().max())
    assert np.allclose(found, dist, rtol=1e-12, atol=rounding)
    if rounding < 1e-9 * r:
        found = {*rows(radius(x, y, r, engine=engine))}
        assert sure <= found <= perhaps


def crystal_oracle(x, cell, pbc, k=None, r=None, reach=2):
    """Distances by exact fractions, images around the closest ones."""
    exact = [[Fraction(v) for v in row] for row in x.double().tolist()]
    sides = [[Fraction(v) for v in row] for row in cell.double().tolist()]
    images = torch.tensor([*itertools.product(
        *(range(-reach, reach + 1) if p else [0] for p in pbc))])
    near = images.double() @ cell.double()
    inverse = cell.double().inverse()
    edges = []
    for i, p in enumerate(exact):
        found = []
        for j, q in enumerate(exact):
            step = [a - b for a, b in zip(q, p)]
            first = [0] * 3
            for _ in range(3):  # the quotients are rounded
                way = torch.tensor([[*map(float, step)]], dtype=torch.double)
                moved = [-round(v) if p else 0 for v, p in zip(
                    (way @ inverse)[0].tolist(), pbc)]
                first = [a + b for a, b in zip(first, moved)]
                step = [s + sum(m * v[c] for m, v in zip(moved, sides))
                        for c, s in enumerate(step)]
            way = torch.tensor([*map(float, step)], dtype=torch.double)
            dist = (way + near).norm(dim=1).tolist()
            found += [(d, j, *(a + b for a, b in zip(first, m)))
                      for d, m in zip(dist, images.tolist())
                      if d > 0 or i != j]
        found.sort()
        order, begin = [], -1.
        for d, *rest in found[:800]:
            begin = d if d > begin * (1 + 1e-14) else begin
            if r is None or d <= r:
                order.append((begin, *rest))
        edges += [(i, *rest) for _, *rest in sorted(order)[:k]]
    return edges


@pytest.mark.parametrize('seed', range(max(8, CLOUDS // 4)))
def test_random_crystals_anywhere(seed, engine):
    gen = torch.Generator().manual_seed(seed)
    dtype = DTYPES[seed % 2]
    scale = 10.**int(torch.randint(-6, 7, (), generator=gen))
    offset = (0., 1., 1e3, 5e5, 1e7)[int(torch.randint(5, (), generator=gen))]
    pbc = torch.rand(3, generator=gen) < .75
    cell = (torch.eye(3) + .3 * torch.randn(3, 3, generator=gen)).to(dtype)
    x = torch.rand(3, 3, generator=gen).to(dtype) @ cell
    cell, x = cell * scale, x * scale + offset
    index, offset = knn_graph(x, 8, cell=cell, pbc=pbc, engine=engine) \
        if pbc.any() else (knn_graph(x, 2, engine=engine), x.new_zeros(6, 3))
    assert rows((index.flip(0), offset.long())) == crystal_oracle(
        x, cell, pbc.tolist(), k=8 if pbc.any() else 2, reach=9)
    r = float(cell.det().abs()**(1 / 3))
    index, offset = radius_graph(x, r, cell=cell, pbc=pbc, engine=engine)
    assert rows((index.flip(0), offset)) == crystal_oracle(
        x, cell, pbc.tolist(), r=r, reach=9)


def test_far_from_the_origin(engine):
    p = torch.zeros(40, 3)
    p[:, 0] = 5e5 + .25 * torch.arange(40, 0, -1)
    assert nearest(p[:1] * 0 + torch.tensor([5e5, 0, 0]), p,
                   engine=engine).tolist() == [39]
    # As coordinates on a map are: a metre, a kilometre away from others.
    x = torch.rand(1024, 3) * 10 + torch.tensor([5e5, 5e6, 100.])
    known = cKDTree(x.double().numpy()).query_pairs(1.)
    assert radius_graph(x, 1., engine=engine).shape == (2, 2 * len(known))


def test_shifting_a_cloud_exactly_changes_nothing(engine):
    """Numbers of a few digits, so that sums are not rounded."""
    x = torch.randn(300, 3).mul(1024).round().div(1024)
    for g in (torch.eye(3), -torch.eye(3).flip(0)):
        y = x @ g + torch.tensor([4096., -8192., 1024.])
        assert knn_graph(y, 8, engine=engine).equal(
            knn_graph(x, 8, engine=engine))
        assert radius_graph(y, .5, engine=engine).equal(
            radius_graph(x, .5, engine=engine))
        assert fps(y, random_start=False).equal(fps(x, random_start=False))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype, engine):
    """The numbers are what they are, and distances between them exact."""
    x, y = torch.randn(60, 3).to(dtype), torch.randn(20, 3).to(dtype)
    cell = 3 * torch.eye(3, dtype=dtype)
    for convert in (torch.Tensor.float, torch.Tensor.double):
        u, v = convert(x), convert(y)
        assert knn(x, y, 5, engine=engine).equal(knn(u, v, 5, engine=engine))
        assert radius_graph(x, 1., engine=engine).equal(
            radius_graph(u, 1., engine=engine))
        assert all(a.equal(b) for a, b in zip(
            knn_graph(x, 5, cell=cell, engine=engine),
            knn_graph(u, 5, cell=convert(cell), engine=engine)))
        assert fps(x, random_start=False).equal(fps(u, random_start=False))
        assert nearest(x, v, engine=engine).equal(
            nearest(u, v, engine=engine))


@pytest.mark.parametrize('scale', [2.**-120, 2.**66, 2.**-1000, 2.**990],
                         ids=math.log2)
def test_numbers_of_any_size(scale, engine):
    """Whose squares no float holds."""
    dtype = torch.float32 if 1e-37 < scale < 1e37 else torch.float64
    # In 16 bits: the smallest scale would round the last ones away.
    x = torch.randn(40, 3).mul(2**8).round().div(2**8).to(dtype)
    cell = 2 * torch.eye(3, dtype=dtype)
    y = x * scale
    assert (y / scale).equal(x)
    assert knn_graph(y, 5, engine=engine).equal(knn_graph(x, 5))
    assert radius_graph(y, scale, engine=engine).equal(radius_graph(x, 1.))
    assert fps(y, random_start=False).equal(fps(x, random_start=False))
    for name, out in (('k', knn_graph(y, 9, cell=scale * cell)),
                      ('r', radius_graph(y, scale, cell=scale * cell))):
        expected = (knn_graph(x, 9, cell=cell) if name == 'k' else
                    radius_graph(x, 1., cell=cell))
        assert all(a.equal(b) for a, b in zip(out, expected))
    batch = torch.arange(40) % 2
    y = torch.where(batch[:, None] == 1, x, y)
    assert knn_graph(y, 5, batch, engine=engine).equal(
        knn_graph(x, 5, batch, engine=engine))


def seconds(function):
    start = time.process_time()
    out = function()
    return out, time.process_time() - start


CROWDS = {
    'one place': lambda n: torch.zeros(n, 3),
    'few places': lambda n: torch.rand(9, 3)[torch.randint(9, (n, ))],
    'far away': lambda n: torch.rand(n, 3) + 5e5,
    'line': lambda n: torch.rand(n, 1) * torch.ones(3),
    'whole numbers': lambda n: torch.rand(n, 3).mul(20).round(),
    'clusters': lambda n: (torch.rand(9, 3)[torch.randint(9, (n, ))] +
                           1e-9 * torch.randn(n, 3)).double(),
}


@pytest.mark.filterwarnings('ignore:.*max_num_neighbors')
@pytest.mark.parametrize('kind', CROWDS)
def test_crowds_take_no_longer(kind):
    x = CROWDS[kind](10_000)
    out, time_taken = seconds(lambda: knn_graph(x, 16))
    assert out.shape == (2, 160_000) and time_taken < 4
    out, time_taken = seconds(lambda: radius_graph(
        x, 1e-4, max_num_neighbors=4))
    assert time_taken < 4


def test_distant_points_of_a_crystal(engine):
    x, cell = torch.tensor([[3e6, 0, 0]]), 3 * torch.eye(3)
    index, offset = knn_graph(x, 6, cell=cell, engine=engine)
    assert not index.any() and len(offset.unique(dim=0)) == 6
    assert offset.abs().sum(1).tolist() == [1] * 6
    # A point in the cell and one a million cells away are 1 apart.
    i, offset = knn(x + torch.tensor([1., 0, 0]), 0 * x, 1, cell=cell,
                    engine=engine)
    assert offset.tolist() == [[-1_000_000, 0, 0]]


@pytest.mark.parametrize('sides', [(1, 1, 1e4), (1, 1e6, 1e6),
                                   (1e-3, 1, 1e3), (1e-6, 1, 1)], ids=str)
def test_cells_of_any_shape(sides, engine):
    cell = torch.diag(torch.tensor(sides)).double()
    (index, offset), time_taken = seconds(lambda: knn(
        torch.zeros(1, 3), cell[2:] / 2, 6, cell=cell, engine=engine))
    assert time_taken < 4
    dist = (offset.double() @ cell - cell[2] / 2).norm(dim=1)
    grid = torch.cartesian_prod(*[torch.arange(-4., 5)] * 3).double()
    expected = (grid @ cell - cell[2] / 2).norm(dim=1).sort().values[:6]
    assert torch.allclose(dist, expected, rtol=1e-12)


def test_all_cells_of_a_lattice_have_the_same_neighbors(engine):
    cell = torch.tensor([[1., 0, 0], [.3, 1.2, 0], [-.2, .1, .9]]).double()
    turn = torch.tensor([[1, 0, 0], [1000, 1, 0], [-3000, 500, 1]])
    x = torch.rand(7, 3, dtype=torch.double) @ cell
    given = {'engine': engine}
    for function, value in ((knn_graph, 9), (radius_graph, 1.3)):
        index, offset = function(x, value, cell=cell, **given)
        skew = function(x, value, cell=turn.double() @ cell, **given)
        assert {*rows((skew[0], (skew[1][:, :, None] * turn).sum(1)))} == {
            *rows((index, offset))}
        two = torch.cat([x, x + cell[0]])
        double = cell * torch.tensor([2., 1, 1])[:, None]
        twice = function(two, value, cell=double, **given)[0]
        degree = torch.bincount(index[1], minlength=7)
        assert torch.bincount(twice[1]).equal(degree.repeat(2))


def test_too_many_images():
    x, cell = torch.rand(4, 3), torch.eye(3)
    for call in (lambda: radius_graph(x, 1e6, cell=cell),
                 lambda: radius_graph(x, 1e300, cell=cell),
                 lambda: knn_graph(x, 2**40, cell=cell)):
        with pytest.raises(ValueError, match='periodic images .*Lower'):
            call()
    for value in (1e20, 1e300):
        with pytest.raises(ValueError, match="'x' to be less than"):
            knn_graph(x.double() * value, 3, cell=cell)


def test_axes_that_do_not_repeat_need_no_vector(engine):
    x, cell = torch.rand(20, 3), torch.diag(torch.tensor([1., 1, 0]))
    pbc = (True, True, False)
    out = knn_graph(x, 8, cell=cell, pbc=pbc, engine=engine)
    cell[2] = torch.tensor([7., 8, 9])
    expected = knn_graph(x, 8, cell=cell, pbc=pbc, engine=engine)
    assert all(a.equal(b) for a, b in zip(out, expected))


def test_ties_do_not_chain():
    """Steps of less than a rounding lead from 1 to 2: the nearest are the
    nearest, whatever their index.
    """
    step = 4 * torch.finfo(torch.double).eps
    x = 1 + step * torch.arange(1000, 0, -1, dtype=torch.double)
    out = knn(x, torch.zeros(1).double(), 4, engine='torch')[1]
    assert x[out].max() <= 1 + 12 * step
    assert rows(knn(x[-90:], torch.zeros(1).double(), 20)) == oracle(
        x[-90:, None], torch.zeros(1, 1), k=20)


def test_a_warning_where_numbers_are_too_coarse():
    x = torch.rand(200, 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('default')
        knn_graph(x, 4)
        knn_graph(x[torch.randint(200, (300, ))], 4)
        radius_graph(x.double() + 5e6, .3)
        assert not seen
        for _ in range(2):
            knn_graph(x + 5e6, 4)
        assert len(seen) == 1 and 'about as far apart' in str(seen[0].message)
        assert seen[0].filename == __file__
        radius_graph(x + 5e6, .6, batch=torch.arange(200) % 3)
        assert len(seen) == 2


@pytest.mark.parametrize('budget', [1, 50, 1000])
def test_chunks(budget, monkeypatch, engine):
    x, y = inputs('lattice', 3, torch.float32)
    batch_x, batch_y = torch.randint(3, (25, )), torch.randint(3, (13, ))
    monkeypatch.setattr(search, 'BUDGET', budget)
    monkeypatch.setattr(engines, 'TABLE_SIZE', {'cpu': budget, 'cuda': 0})
    out = knn(x, y, 4, batch_x, batch_y, engine=engine)
    assert rows(out) == oracle(x, y, batch_x, batch_y, k=4)
    out = radius(x, y, 2., batch_x, batch_y, engine=engine)
    assert rows(out) == oracle(x, y, batch_x, batch_y, r=2.)


@pytest.mark.cluster
def test_narrow_tables_are_widened(monkeypatch):
    pytest.importorskip('torch_cluster')
    x = torch.rand(500, 3)
    expected = radius_graph(x, .4, engine='torch')
    calls = []

    class Narrow(engines.TorchCluster):
        def radius(self, target, r, cap=None):
            calls.append((len(target), cap))
            return super().radius(target, r, cap or 4)

    monkeypatch.setitem(engines.ENGINES, 'torch_cluster', Narrow)
    assert radius_graph(x, .4, engine='torch_cluster').equal(expected)
    assert [cap for _, cap in calls] == [None, 16, 64, 256]
    assert calls[0][0] >= calls[1][0] > calls[3][0]


def test_an_incomplete_answer_is_not_taken(monkeypatch):
    """Kernels for GPUs leave out points that are very far away."""
    class Ops:
        @staticmethod
        def knn(*args):
            return torch.zeros(2, 1, dtype=torch.long)

    class Lossy(engines.Compiled):
        missing = staticmethod(lambda device: None)
        ops = Ops

    monkeypatch.setitem(engines.ENGINES, 'pyg_lib', Lossy)
    x = torch.randn(20, 3)
    assert knn_graph(x, 3, engine='pyg_lib').equal(knn_graph(x, 3))


def test_nearest(engine):
    for kind in KINDS[:-2]:
        x, y = inputs(kind, 3, torch.float64)
        out = nearest(x, y, engine=engine)
        assert list(enumerate(out.tolist())) == oracle(y, x, k=1)
    batch_x, batch_y = torch.randint(3, (25, )), torch.randint(3, (13, ))
    x, y = inputs('random', 2, torch.float32)
    out = nearest(x, y, batch_x, batch_y, engine=engine)
    assert list(enumerate(out.tolist())) == oracle(y, x, batch_y, batch_x,
                                                   k=1)
    with pytest.raises(ValueError, match="a point in 'y' for each cloud"):
        nearest(x, y[:1], batch_x, batch_y[:1] * 0 + 1)


def test_cosine(engine):
    x, y = torch.randn(40, 5), torch.randn(9, 5)
    row, col = knn(x, y, 3, cosine=True, engine=engine)
    cos = torch.cosine_similarity(x[None], y[:, None], dim=2)
    assert col.view(9, 3).equal(cos.topk(3, dim=1).indices)
    assert row.equal(torch.arange(9).repeat_interleave(3))
    with pytest.raises(ValueError, match='zero vectors'):
        knn_graph(torch.zeros(3, 3), 1, cosine=True)


@pytest.mark.parametrize('function', [knn, knn_graph, radius, radius_graph,
                                      fps, nearest],
                         ids=lambda f: f.__name__)
def test_signatures_of_pyg(function):
    """Positional arguments in the same order, with the same defaults but for
    two: no cap, and as many threads as torch has.
    """
    def arguments(f):
        return [p for p in inspect.signature(f).parameters.values()
                if p.kind is not p.KEYWORD_ONLY]

    ours = arguments(function)
    theirs = arguments(getattr(pyg_pool, function.__name__))
    assert [p.name for p in ours] == [p.name for p in theirs]
    for a, b in zip(ours, theirs):
        if a.name in ('max_num_neighbors', 'num_workers'):
            assert a.default is None
        else:
            assert a.default == b.default


@pytest.mark.cluster
def test_same_as_torch_cluster():
    cluster = pytest.importorskip('torch_cluster')
    x, y = torch.randn(200, 3).double(), torch.randn(50, 3).double()
    batch_x = torch.randint(4, (200, )).sort().values
    batch_y = torch.randint(4, (50, )).sort().values
    # Even in the order of the edges of k nearest neighbours.
    assert knn(x, y, 6, batch_x, batch_y).equal(
        cluster.knn(x, y, 6, batch_x, batch_y))
    for flow in ('source_to_target', 'target_to_source'):
        assert knn_graph(x, 6, batch_x, flow=flow).equal(
            cluster.knn_graph(x, 6, batch_x, flow=flow))
        assert set(rows(radius_graph(x, .7, batch_x, flow=flow))) == set(
            rows(cluster.radius_graph(x, .7, batch_x, flow=flow,
                                      max_num_neighbors=200)))
    assert set(rows(radius(x, y, .7, batch_x, batch_y))) == set(
        rows(cluster.radius(x, y, .7, batch_x, batch_y, 200)))
    assert nearest(x, y, batch_x, batch_y).equal(
        cluster.nearest(x, y, batch_x, batch_y))
    # In binary .3 * 10 may be more than 3, and is for them.
    assert fps(x, batch_x, .25, random_start=False).equal(
        cluster.fps(x, batch_x, .25, random_start=False))


def fps_oracle(x, batch, ratio, first):
    out = []
    for b in range(int(batch.max()) + 1):
        own = (batch == b).nonzero()[:, 0]
        chosen = [first[b]] if len(own) else []
        while len(chosen) < math.ceil(ratio * len(own) - 1e-6):
            far = (x[own][:, None] - x[chosen]).norm(dim=2).amin(1)
            chosen.append(int(own[far.argmax()]))
        out += chosen
    return out


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('ratio', [.1, .5, 1.])
@pytest.mark.parametrize('engine_name', [
    'auto', pytest.param('torch_cluster', marks=pytest.mark.cluster)])
def test_fps(dtype, ratio, engine_name):
    if engine_name == 'torch_cluster':
        pytest.importorskip('torch_cluster')
    x = torch.randn(90, 3, dtype=dtype)
    batch = torch.tensor([0, 1, 1, 1, 1, 3, 4, 4])[torch.randint(8, (90, ))]
    for _ in range(2):
        first = {int(b): int((batch == b).nonzero()[0])
                 for b in batch.unique()}
        out = fps(x, batch, ratio, random_start=False, engine=engine_name)
        assert out.tolist() == fps_oracle(x, batch, ratio, first)
        batch = batch.sort().values
    out = fps(x, batch, ratio, engine=engine_name)
    counts = torch.bincount(batch)
    ends = (ratio * counts.double() - 1e-6).ceil().long().cumsum(0).tolist()
    starts = [0, *ends]
    first = {b: int(out[starts[b]]) for b in range(5) if counts[b]}
    assert all(batch[i] == b for b, i in first.items())
    assert out.tolist() == fps_oracle(x, batch, ratio, first)
    assert len(fps(x[:0], engine=engine_name)) == 0


def test_fps_starts_anywhere():
    x = torch.randn(4, 3)
    starts = {int(fps(x, ratio=.25)) for _ in range(200)}
    assert starts == {0, 1, 2, 3}
    torch.manual_seed(5)
    a = fps(torch.randn(50, 3))
    torch.manual_seed(5)
    assert fps(torch.randn(50, 3)).equal(a)
    assert len(fps(torch.randn(30, 2), ratio=.1)) == 3  # .1 * 30 > 3
    same = fps(torch.zeros(5, 3), ratio=1., random_start=False)
    assert same[0] == 0


@pytest.mark.parametrize('engine_name', [
    'torch', pytest.param('torch_cluster', marks=pytest.mark.cluster),
    'pyg_lib'])
@pytest.mark.parametrize('dtype', DTYPES)
def test_fps_takes_each_point_once(engine_name, dtype):
    if engine_name != 'torch':
        pytest.importorskip(engine_name)
    given = {'engine': engine_name}
    same = torch.zeros(5, 3, dtype=dtype)
    assert fps(same, ratio=1., random_start=False, **given).tolist() == [
        0, 1, 2, 3, 4]
    # Drawn with replacement, in several clouds, unsorted.
    x = torch.rand(40, 3, dtype=dtype)[torch.randint(40, (300, ))]
    x = torch.cat([x, same])
    batch = torch.cat([torch.randint(3, (300, )), torch.full((5, ), 4)])
    for ratio in (.2, .7, 1.):
        for start in (True, False):
            out = fps(x, batch, ratio, start, **given)
            assert len(out.unique()) == len(out)
            wanted = (ratio * torch.bincount(batch) - 1e-6).ceil().long()
            assert torch.bincount(batch[out], minlength=5).equal(wanted)
        # The distinct ones first.
        for own in (batch == 0, batch == 2):
            out = fps(x[own], ratio=ratio, random_start=False, **given)
            places = len(x[own].unique(dim=0))
            assert len(x[own][out[:places]].unique(dim=0)) == min(
                places, len(out))
    x = torch.randn(50, 3, dtype=dtype) + 5e5
    assert fps(x, random_start=False, **given).equal(
        fps(x.double() - 5e5, random_start=False))


@pytest.mark.parametrize('engine_name', [
    'torch', pytest.param('torch_cluster', marks=pytest.mark.cluster)])
def test_fps_with_a_ratio_for_each_cloud(engine_name):
    if engine_name != 'torch':
        pytest.importorskip(engine_name)
    x, batch = torch.randn(90, 3), torch.randint(3, (90, ))
    ratio = torch.tensor([.1, .5, 1.])
    out = fps(x, batch, ratio, False, engine=engine_name)
    expected = [own[fps(x[own], ratio=float(r), random_start=False)]
                for r, own in ((r, (batch == b).nonzero()[:, 0])
                               for b, r in enumerate(ratio))]
    assert out.equal(torch.cat(expected))
    for one in (.5, np.float32(.5), np.float64(.5), torch.tensor(.5),
                torch.tensor([.5])):
        assert fps(x, batch, one, False).equal(fps(x, batch, .5, False))
    for bad_ratio in (ratio[:2], torch.tensor([.1, 0., 1.]), ratio * 2,
                      ratio * math.nan):
        with pytest.raises(ValueError, match="'ratio'"):
            fps(x, batch, bad_ratio)
    for bad_ratio in (ratio.cfloat(), 'half', None, [.5], torch.ones(3) > 0):
        with pytest.raises(TypeError, match="'ratio'"):
            fps(x, batch, bad_ratio)


def test_numbers_of_numpy():
    x = torch.randn(20, 3)
    assert knn_graph(x, np.int64(3)).equal(knn_graph(x, 3))
    assert radius_graph(x, np.float32(.5), max_num_neighbors=np.int32(50),
                        num_workers=np.int8(1), batch_size=np.int16(1)).equal(
        radius_graph(x, .5))
    for cell in (np.eye(3), np.eye(3).tolist(), torch.eye(3).int()):
        out = knn_graph(x, 3, cell=cell, pbc=np.array([True, True, False]))
        expected = knn_graph(x, 3, cell=torch.eye(3), pbc=[True, True, False])
        assert all(a.equal(b) for a, b in zip(out, expected))


def test_more_neighbors_than_points(engine):
    x, batch = torch.randn(7, 3), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    with pytest.warns(UserWarning, match='fewer than k=3 neighbors') as seen:
        out = knn_graph(x, 3, batch, engine=engine)
    assert seen[0].filename == __file__ and len(seen) == 1
    assert out.shape == (2, 3 * 2 + 4 * 3)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        knn_graph(x, 2, batch, engine=engine)
        knn_graph(x, 3, batch, loop=True, engine=engine)
        # There are always enough images.
        knn_graph(x, 9, batch, cell=torch.eye(3), engine=engine)


@pytest.mark.parametrize('cell', [None, 3 * torch.eye(3)])
def test_a_cap_keeps_the_nearest_and_warns(cell, engine):
    x = torch.randn(60, 3).double()
    for _ in range(2):
        given = {'cell': cell, 'engine': engine}
        with pytest.warns(UserWarning, match='max_num_neighbors=5') as seen:
            out = radius_graph(x, 1.5, max_num_neighbors=5, **given)
        assert seen[0].filename == __file__
        expected = oracle(x, x, r=1.5, k=5, skip=True, cell=cell, reach=4)
        out = (out[0].flip(0), out[1]) if cell is not None else out.flip(0)
        assert rows(out) == expected
        x = x.round()  # ties
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        given['max_num_neighbors'] = 60 * 200
        radius_graph(x, 1.5, **given)


def test_warnings_come_once():
    x = torch.randn(9, 3)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('default')
        for _ in range(3):
            knn_graph(x, 20)
            radius_graph(x, 9., max_num_neighbors=2)
    assert len(seen) == 2


def test_gradients_pass_by():
    x = torch.randn(20, 3, requires_grad=True)
    cell = torch.eye(3, requires_grad=True)
    index, offset = radius_graph(x, .6, cell=cell)
    assert not index.requires_grad and not offset.requires_grad
    vector = x[index[0]] + offset.float() @ cell - x[index[1]]
    vector.square().sum().backward()
    assert x.grad.isfinite().all() and cell.grad.abs().max() > 0


def test_compile_leaves_the_search_out():
    def edges(x):
        source, target = knn_graph(x.sin(), 3)
        return (x[source] - x[target]).square().sum()

    x = torch.randn(30, 3)
    graphs = CompileCounter()
    torch._dynamo.reset()
    assert torch.compile(edges, backend=graphs)(x).equal(edges(x))
    assert graphs.frame_count == 3  # before, the swap of rows, and after


def test_feeds_a_layer():
    x = torch.randn(12, 3)

    class Mean(MessagePassing):
        def forward(self, x, edge_index, size=None):
            return self.propagate(edge_index, x=x, size=size)

    row, col = knn(x, x[:4], 3)
    out = Mean('mean')((x, x[:4]), torch.stack([col, row]), (12, 4))
    assert torch.allclose(out, x[col].view(4, 3, 3).mean(1), atol=1e-6)


def bad(**changes):
    given = {'x': torch.randn(5, 3), 'y': torch.randn(4, 3)}
    given.update(changes)
    return given


NAN = torch.tensor([[0., 1., 2.], [0., math.nan, 0.]])
FLAT = torch.tensor([[1., 0, 0], [0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize('error, match, given', [
    (ValueError, "'k' to be an integer.*got 0", bad(k=0)),
    (ValueError, "'k' to be an integer.*got 1.5", bad(k=1.5)),
    (ValueError, "'k' to be an integer.*True", bad(k=True)),
    (ValueError, "'r' to be a positive number .*got -1", bad(r=-1)),
    (ValueError, "'r' to be a positive number .*got 0", bad(r=0.)),
    (ValueError, "'r' to be a positive number .*nan", bad(r=math.nan)),
    (TypeError, "'r' to be a number .*far", bad(r='far')),
    (ValueError, "'x' to be finite .*nan.* at point 1", bad(x=NAN)),
    (ValueError, "'y' to be finite", bad(y=1 / torch.zeros(2, 3))),
    (ValueError, 'same width', bad(y=torch.randn(4, 2))),
    (ValueError, r"'x' of shape \[N, D\]", bad(x=torch.randn(2, 3, 3))),
    (TypeError, 'positions of float32', bad(x=torch.ones(3, 3).long())),
    (TypeError, 'positions of float32', bad(x=torch.ones(3, 3).cfloat())),
    (TypeError, "'x' to be .* dense", bad(x=torch.eye(3).to_sparse())),
    (ValueError, "'x' on a device with", bad(x=torch.ones(3, 3).to('meta'))),
    (TypeError, 'a tensor of positions', bad(x=[[0., 0., 0.]])),
    (TypeError, "'y' to be a tensor of positions", bad(y=None)),
    (ValueError, 'or neither', bad(batch_x=torch.zeros(5).long())),
    (ValueError, r"'batch_y' of shape \[4\]", bad(
        batch_x=torch.zeros(5).long(), batch_y=torch.zeros(5).long())),
    (TypeError, "'batch_x' to be a tensor of integers", bad(
        batch_x=torch.zeros(5), batch_y=torch.zeros(4).long())),
    (ValueError, 'values from -1 to -1', bad(
        batch_x=-torch.ones(5).long(), batch_y=torch.zeros(4).long())),
    (ValueError, r"'batch_x' in \[0, 1\)", bad(
        batch_x=torch.ones(5).long(), batch_y=torch.ones(4).long(),
        batch_size=1)),
    (ValueError, "'batch_size' to be an", bad(batch_size=0)),
    (ValueError, "'num_workers' to be an", bad(num_workers=-1)),
    (ValueError, "'max_num_neighbors' to be", bad(r=1., cap=0)),
    (ValueError, "'engine' to be one of", bad(engine='kdtree')),
    (ValueError, "'cell' to have a volume", bad(cell=FLAT)),
    (ValueError, "'cell' to be finite", bad(cell=math.nan * FLAT)),
    (ValueError, "'cell' of shape", bad(cell=torch.eye(2))),
    (ValueError, "'cell' of shape", bad(cell=torch.eye(3).repeat(3, 1))),
    (ValueError, "'pbc' of shape", bad(cell=torch.eye(3),
                                      pbc=[True, False])),
    (ValueError, r"'cell' of shape \[2, 2\]", bad(
        x=torch.rand(3, 2), y=torch.rand(3, 2), cell=torch.eye(3))),
    (ValueError, "'pbc' of shape", bad(
        x=torch.rand(3, 2), y=torch.rand(3, 2), cell=torch.eye(2),
        pbc=[True, False, True])),
    (ValueError, "no 'cell' with 'cosine'", bad(cosine=True,
                                                cell=torch.eye(3))),
])
def test_bad_input(error, match, given):
    with pytest.raises(error, match=match):
        if 'r' in given:
            given['max_num_neighbors'] = given.pop('cap', None)
            radius(**given)
        else:
            knn(**{'k': 2, **given})


def test_bad_flow_and_ratio():
    with pytest.raises(ValueError, match="'flow' to be"):
        knn_graph(torch.randn(5, 3), 2, flow='up')
    for ratio in (0., 1.1, -1, math.nan):
        with pytest.raises(ValueError, match="'ratio' to be a finite"):
            fps(torch.randn(5, 3), ratio=ratio)
    with pytest.raises(ValueError, match="'batch_size' to be an integer"):
        fps(torch.randn(5, 3), batch_size=0)
    with pytest.raises(ValueError, match='does not sample'):
        fps(torch.randn(5, 3), engine='scipy')


def test_nothing_is_not_everything():
    x = torch.randn(5, 3)
    for call in (lambda: nearest(None, x), lambda: nearest(x, None),
                 lambda: knn(x, None, 2), lambda: radius(None, x, 2.)):
        with pytest.raises(TypeError, match='to be a tensor of positions'):
            call()
    for size in (2**31, 2**62):
        with pytest.raises(ValueError, match="'batch_size' to be"):
            knn_graph(x, 2, batch_size=size)
        with pytest.raises(ValueError, match="'batch' in"):
            knn_graph(x, 2, torch.tensor([0, 0, 0, 0, size]))
        assert knn_graph(x, min(size, 2**48)).shape == (2, 20)


def test_auto():
    cpu = torch.device('cpu')
    assert engines.choose_engine('auto', cpu, 3) is engines.Trees
    assert engines.choose_engine('auto', cpu, 64) is engines.BruteForce
    gpu = engines.choose_engine('auto', torch.device('cuda'), 3)
    assert issubclass(gpu, (engines.Compiled, engines.BruteForce))
    x = torch.randn(3000, 3)
    assert knn_graph(x, 16).equal(knn_graph(x, 16, engine='torch'))
    assert radius_graph(x, .4).equal(radius_graph(x, .4, engine='torch'))


@pytest.mark.parametrize('name', ['torch_cluster', 'pyg_lib'])
def test_missing_engine(name):
    if importlib.util.find_spec(name) is not None:
        pytest.skip('it is installed')
    with pytest.raises(ImportError, match='Install it'):
        knn_graph(torch.randn(5, 3), 2, engine=name)


def test_memory_of_brute_force_is_linear():
    """There is no table of all distances."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(t, torch.Tensor):
                    size = t.untyped_storage().nbytes() // t.element_size()
                    self.numel = max(self.numel, size)
            return out

    x = torch.rand(4000, 3)
    with Largest() as largest:
        knn_graph(x, 4, engine='torch')
    assert largest.numel <= engines.TABLE_SIZE['cpu'] < 4000**2 / 10


def test_large_cloud_is_fast():
    x = torch.rand(20_000, 3)
    knn_graph(x[:100], 16)
    start = time.process_time()
    assert knn_graph(x, 16).shape == (2, 320_000)
    assert time.process_time() - start < 2  # brute force takes far longer
