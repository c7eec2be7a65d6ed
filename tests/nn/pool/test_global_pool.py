import pytest
import torch
from helpers.pool import BATCH, GROUPS, SIZE, fields, mixed_type, regular_type
from torch_geometric.nn import global_max_pool, global_mean_pool

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    GlobalPool,
)
from pyg_steerable.testing import assert_equivariant


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
