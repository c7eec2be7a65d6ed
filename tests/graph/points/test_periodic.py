import itertools
from fractions import Fraction

import pytest
import torch
from helpers.neighbors import (
    CLOUDS,
    DTYPES,
    KINDS,
    inputs,
    oracle,
    rows,
    seconds,
)

from pyg_steerable.graph import (
    knn,
    knn_graph,
    radius,
    radius_graph,
)

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*fewer than k:UserWarning'),
    pytest.mark.filterwarnings('ignore:.*torch_cluster.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*are about as far apart:UserWarning'),
]


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
