import pytest
import torch
from helpers.pool import BATCH, GROUPS, SIZE, fields, mixed_type, points

from pyg_steerable.nn import (
    interpolate,
)
from pyg_steerable.testing import assert_equivariant


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
