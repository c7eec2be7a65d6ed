import inspect
import math
import time
import warnings

import numpy as np
import pytest
import torch
import torch_geometric.nn.pool as pyg_pool
from helpers.neighbors import (
    CLOUDS,
    DTYPES,
    KINDS,
    inputs,
    lattice,
    oracle,
    rows,
    seconds,
)
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

    class Lossy(engines.PygLib):
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


def test_large_cloud_is_fast():
    x = torch.rand(20_000, 3)
    knn_graph(x[:100], 16)
    start = time.process_time()
    assert knn_graph(x, 16).shape == (2, 320_000)
    assert time.process_time() - start < 2  # brute force takes far longer
