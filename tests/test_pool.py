import math
import pickle

import pytest
import torch
from torch_geometric.nn import global_max_pool, global_mean_pool

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.nn import (
    GlobalPool,
    NormMaxPool,
    farthest_downsample,
    interpolate,
    norm_max_pool,
    random_downsample,
)
from pyg_steerable.testing import assert_equivariant, equivariance_error

GROUPS = ['1', 'Inv', 'M', 'C4', 'D3', 'O', 'IxInv', 'SO(2)', 'SO(2)xMxInv',
          'SO(3)', 'O(3)']

# In no order, with an empty cloud 2 and clouds of 1 and 2 points.
BATCH = torch.tensor([3, 0, 1, 0, 4, 3, 0, 3, 0, 4, 0, 3])
SIZE, POINTS = 6, 12


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def mixed_type(group):
    return FieldType('2x0e + 0o + 2x1o + 1e + 2e + 3o', group)


def regular_type():
    return FieldType([(2, '1o'), (2, Representation.regular('C4'))], 'C4')


def fields(field_type, n=POINTS):
    return torch.randn(n, field_type.dim, dtype=torch.float64)


def points(n=POINTS):
    return torch.randn(n, 3, dtype=torch.float64)


# Fewer points ##############################################################


@pytest.mark.parametrize('downsample', [random_downsample,
                                        farthest_downsample])
@pytest.mark.parametrize('ratio', [0.01, 0.4, 0.5, 1, 1.])
def test_downsampling_keeps_a_share_of_each_cloud(downsample, ratio):
    index = downsample(points(), BATCH, ratio)
    assert index.unique().numel() == index.numel()
    assert BATCH[index].diff().ge(0).all()
    count = BATCH.bincount(minlength=SIZE)
    kept = BATCH[index].bincount(minlength=SIZE)
    assert kept.tolist() == [math.ceil(ratio * int(n)) for n in count]


@pytest.mark.parametrize('downsample', [random_downsample,
                                        farthest_downsample])
def test_downsampling_of_one_cloud_and_of_none(downsample):
    assert downsample(points(9)).shape == (5, )
    assert downsample(points(0)).shape == (0, )
    assert downsample(points(0), BATCH[:0]).shape == (0, )
    for ratio in (1.5, 0, -1, float('nan')):
        with pytest.raises(ValueError, match="'ratio'"):
            downsample(points(), BATCH, ratio)
    with pytest.raises(ValueError, match=r"'batch' of shape \[12\]"):
        downsample(points(), BATCH[1:])
    with pytest.raises(ValueError, match=r"'batch' in \[0, "):
        downsample(points(), BATCH - 2 * (BATCH == 0).long())
    with pytest.raises(TypeError, match="'batch' to .* Convert it with"):
        downsample(points(), BATCH.double())


def test_random_downsampling_is_uniform_and_reproducible():
    pos, hits = points(), torch.zeros(len(BATCH))
    generator = torch.Generator().manual_seed(1)
    first = random_downsample(pos, BATCH, 0.5, generator)
    for _ in range(400):
        hits[random_downsample(pos, BATCH, 0.5, generator)] += 1 / 400
    share = torch.tensor([3 / 5, 1., 0., 2 / 4, 1 / 2])[BATCH]
    assert (hits - share).abs().max() < 0.12  # five standard deviations
    assert torch.equal(first, random_downsample(
        pos, BATCH, 0.5, torch.Generator().manual_seed(1)))
    torch.manual_seed(7)
    first = random_downsample(pos, BATCH)
    torch.manual_seed(7)
    assert torch.equal(first, random_downsample(pos, BATCH))
    assert random_downsample(points(100), None, 0.07).shape == (7, )


def test_farthest_downsampling_spreads_in_every_orientation():
    corners = torch.tensor([[0., 0, 0], [9, 0, 0], [0, 8, 0], [0, 0, 7]])
    pos = (corners[:, None] + 0.1 * torch.rand(4, 10, 3)).view(-1, 3)
    assert sorted((farthest_downsample(pos, None, 0.1) // 10).tolist()) == [
        0, 1, 2, 3]
    pos = points(50)
    index = farthest_downsample(pos, None, 0.3, random_start=False)
    for g in Group('O(3)').sample(3):
        assert torch.equal(index, farthest_downsample(
            pos @ g.T, None, 0.3, random_start=False))


# More points ###############################################################


def reference_interpolation(x, pos_x, pos_y, k, batch_x, batch_y):
    out = x.new_zeros(len(pos_y), x.shape[1])
    for n, y in enumerate(pos_y):
        same = batch_x == batch_y[n]
        square = (pos_x[same] - y).square().sum(-1)
        near = square.argsort()[:k]
        weight = 1 / square[near, None]
        if len(near):
            out[n] = (weight * x[same][near]).sum(0) / weight.sum()
    return out


@pytest.mark.filterwarnings('ignore:Some clouds have fewer')
@pytest.mark.parametrize('k', [1, 3, 20])
def test_interpolation(k):
    x, pos_x, pos_y = fields(mixed_type('1')), points(), points(20)
    batch_y = torch.randint(SIZE, (20, ))  # some of clouds without sources
    out = interpolate(x, pos_x, pos_y, BATCH, batch_y, k)
    expected = reference_interpolation(x, pos_x, pos_y, k, BATCH, batch_y)
    assert torch.allclose(out, expected, rtol=1e-9, atol=1e-12)
    assert (out[batch_y == 2] == 0).all()


@pytest.mark.filterwarnings('ignore:Some clouds have fewer')
@pytest.mark.parametrize('group', GROUPS)
def test_interpolation_is_equivariant(group):
    T = mixed_type(group)
    batch_y = torch.randint(SIZE, (20, ))

    def up(x, pos_x, pos_y):
        return interpolate(x, pos_x, pos_y, BATCH, batch_y)

    assert_equivariant(up, in_types=[T, 'pos', 'pos'], out_types=[T],
                       inputs=[fields(T), points(), points(20)])


@pytest.mark.filterwarnings('ignore:Some clouds have fewer')
def test_interpolation_at_coincident_points():
    x, pos = fields(mixed_type('1')), points()
    assert torch.equal(interpolate(x, pos, pos, BATCH, BATCH), x)
    # The mean where several sources coincide, however small the cloud is.
    pos = 1e-9 * torch.cat([pos[:1], pos])
    x = torch.cat([fields(mixed_type('1'), 1), x])
    out = interpolate(x, pos, pos[1:2])
    assert torch.allclose(out, x[:2].mean(0), rtol=1e-14)
    # Nor is it singular close to one.
    near = pos[5:6] * (1 + 1e-15)
    assert torch.allclose(interpolate(x, pos, near), x[5:6])


@pytest.mark.filterwarnings('ignore:Some clouds have fewer')
def test_derivatives_of_interpolation():
    x, pos_x, pos_y = fields(mixed_type('1'), 5), points(5), points(6)
    pos_y[0] = pos_x[:2].mean(0)  # two nearest
    pos_y[1] = pos_x[2]  # coincident
    pos_y[2] = pos_x[3] + 1e-12
    tensors = [t.requires_grad_() for t in (x, pos_x, pos_y)]
    assert torch.autograd.gradcheck(
        lambda *t: interpolate(*t, k=9)[[0, 1, 3, 4, 5]], tensors)
    out = interpolate(*tensors).square().sum()
    first = torch.autograd.grad(out, tensors, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first),
                                 tensors)
    assert all(g.isfinite().all() for g in (*first, *second))
    assert all(g.abs().max() < 1e4 for g in first)
    # Duplicated sources have no derivative: finite is all that one can ask.
    pos = torch.zeros(4, 3, requires_grad=True)
    interpolate(torch.randn(4, 2), pos, pos).sum().backward()
    assert (pos.grad == 0).all()


@pytest.mark.filterwarnings('ignore:Some clouds have fewer')
def test_interpolation_keeps_precision_and_checks_input():
    x, pos = fields(mixed_type('1')), points()
    assert interpolate(x.float(), pos, pos).dtype == torch.float32
    assert interpolate(x.bfloat16(), pos, pos).dtype == torch.bfloat16
    assert interpolate(x, pos, points(0)).shape == (0, x.shape[1])
    assert interpolate(x[:0], pos[:0], pos).eq(0).all()
    with pytest.raises(ValueError, match=r"'x' of shape \[12, d\]"):
        interpolate(x[1:], pos, pos)
    with pytest.raises(ValueError, match="'k'"):
        interpolate(x, pos, pos, k=0)
    with pytest.raises(ValueError, match='finite'):
        interpolate(x, pos, pos * float('nan'))


# One for each cloud ########################################################


@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('reduce', ['mean', 'sum'])
def test_global_pooling_is_equivariant(group, reduce):
    assert_equivariant(GlobalPool(mixed_type(group), reduce),
                       dtype=torch.float64)


def test_global_pooling():
    T = mixed_type('O(3)')
    x = fields(T)
    pool = GlobalPool(T)
    assert torch.allclose(pool(x, BATCH), global_mean_pool(x, BATCH))
    assert pool(x, BATCH, SIZE)[[2, 5]].eq(0).all()
    assert torch.allclose(pool(x), x.mean(0, keepdim=True))
    assert torch.equal(pool(x[:0], None), torch.zeros_like(x[:1]))
    assert pool(x[:0], BATCH[:0], 2).shape == (2, T.dim)
    scalars = FieldType('8x0e', 'O(3)')
    x = fields(scalars) - 9  # all negative: empty clouds must not be zero'd
    out = GlobalPool(scalars, 'max')(x, BATCH, SIZE)
    assert torch.equal(out[:5], global_max_pool(x, BATCH))
    assert repr(pool) == f"GlobalPool({T}, 'mean')"


@pytest.mark.parametrize('field_type', [
    FieldType('4x0e', 'O(3)'), FieldType('0e + 0o', 'SO(3)'),
    FieldType('3x1o', '1'), FieldType('1e + 2e', 'Inv')], ids=str)
def test_a_maximum_of_what_the_group_leaves_alone(field_type):
    assert_equivariant(GlobalPool(field_type, 'max'), dtype=torch.float64)


@pytest.mark.parametrize('field_type', [
    FieldType('0o', 'O(3)'), FieldType('0e + 1o', 'SO(2)'),
    FieldType('1o', 'Inv'), regular_type()], ids=str)
def test_no_maximum_of_what_the_group_moves(field_type):
    for reduce in ('max', 'min'):
        with pytest.raises(ValueError, match='the group mixes components'):
            GlobalPool(field_type, reduce)


def test_bad_input_of_global_pooling():
    T = mixed_type('O(3)')
    with pytest.raises(ValueError, match="'reduce' to be one of"):
        GlobalPool(T, 'median')
    with pytest.raises(ValueError, match=r"'batch' in \[0, 3\)"):
        GlobalPool(T)(fields(T), BATCH, 3)
    with pytest.raises(ValueError, match="Expected 'x' to hold fields"):
        GlobalPool(T)(fields(T)[:, 1:], BATCH)
    with pytest.raises(ValueError, match=r"'batch' of shape \[12\]"):
        GlobalPool(T)(fields(T), BATCH[None])


# The largest norm ##########################################################


@pytest.mark.parametrize('field_type', [*map(mixed_type, GROUPS),
                                        regular_type()], ids=str)
def test_norm_max_pooling_is_equivariant(field_type):
    def pool(x):
        return norm_max_pool(x, field_type, BATCH, SIZE)

    x = fields(field_type)
    assert_equivariant(pool, in_types=[field_type], out_types=[field_type],
                       inputs=[x])
    # With ties up to rounding, as symmetric clouds have them.
    x = torch.cat([field_type.transform(x, g)
                   for g in field_type.group.sample(3)])

    def pool(x):
        return norm_max_pool(x, field_type, BATCH.repeat(3), SIZE)

    assert_equivariant(pool, in_types=[field_type], out_types=[field_type],
                       inputs=[x])


def test_the_maximum_of_components_is_not_equivariant():
    T = FieldType('1o', 'SO(2)')
    error = equivariance_error(lambda x: x.amax(0, keepdim=True),
                               in_types=[T], out_types=[T])
    assert error > 0.05


def test_norm_max_pooling_keeps_the_largest():
    T = mixed_type('O(3)')
    x = fields(T).requires_grad_()
    out = norm_max_pool(x, T, BATCH, SIZE)
    starts = 0
    for mul, rep in T.blocks:
        for _ in range(mul):
            s = slice(starts, starts + rep.dim)
            for c in range(SIZE):
                rows = x[BATCH == c][:, s]
                best = (rows[rows.norm(dim=1).argmax()] if len(rows) else
                        torch.zeros(rep.dim).to(x))
                assert torch.equal(out[c, s], best)
            starts = s.stop
    out.sum().backward()
    assert x.grad.sum() == T.dim * len(BATCH.unique())
    assert set(x.grad.unique().tolist()) == {0., 1.}
    assert torch.equal(norm_max_pool(x, T, None), norm_max_pool(
        x, T, torch.zeros_like(BATCH)))


def test_norm_max_pooling_of_nothing_and_of_bad_input():
    T = mixed_type('O(3)')
    x = fields(T)
    assert norm_max_pool(x[:0], T, BATCH[:0], 3).eq(0).all()
    assert norm_max_pool(x[:0], T, None).shape == (1, T.dim)
    x[1, 0] = float('nan')
    out = norm_max_pool(x, T, BATCH)
    assert out.isnan().sum() == 1 and out[0, 0].isnan()
    with pytest.raises(ValueError, match=r"'index' in \[0, 3\)"):
        norm_max_pool(x, T, BATCH, 3)
    with pytest.raises(ValueError, match="Expected 'x' to hold fields"):
        norm_max_pool(x[:, 1:], T, BATCH)
    with pytest.raises(TypeError, match='Expected a FieldType'):
        norm_max_pool(x, '1o', BATCH)


@pytest.mark.parametrize('make', [GlobalPool, NormMaxPool])
def test_modules_compile_and_travel(make):
    T = mixed_type('SO(2)')
    pool, x = make(T), fields(T)
    out = pool(x, BATCH, SIZE)
    whole = torch.compile(pool, fullgraph=True, backend='aot_eager')
    assert torch.equal(whole(x, BATCH, SIZE), out)
    other = pickle.loads(pickle.dumps(pool))
    assert torch.equal(other(x, BATCH, SIZE), out)
    assert not pool.state_dict()
    # Autocast leaves fields and norms as they are.
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(pool(x, BATCH, SIZE), out)
    half = pool(100 * x.half(), BATCH, SIZE)
    assert half.dtype == torch.float16 and half.isfinite().all()


def test_norm_max_pooling_module_is_the_function():
    T = mixed_type('SO(2)')
    x = fields(T)
    assert torch.equal(NormMaxPool(T)(x, BATCH), norm_max_pool(x, T, BATCH))
    assert repr(NormMaxPool(T)) == f'NormMaxPool({T})'
