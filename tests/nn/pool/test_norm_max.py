import pickle

import pytest
import torch
from helpers.pool import BATCH, GROUPS, SIZE, fields, mixed_type, regular_type

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    GlobalPool,
    NormMaxPool,
    norm_max_pool,
)
from pyg_steerable.testing import assert_equivariant, equivariance_error


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
