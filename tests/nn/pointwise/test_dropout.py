import torch

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    FieldDropout,
)


def test_dropout_drops_whole_fields():
    torch.manual_seed(0)
    T = FieldType('4x0e + 4x1o')
    drop = FieldDropout(T, p=0.25)
    x = torch.ones(2000, T.dim)
    y = drop(x)
    vectors = y[:, 4:].view(-1, 4, 3)
    assert (vectors == vectors[..., :1]).all()
    assert set(y.unique().tolist()) == {0., y.max().item()}
    assert abs(y.max().item() - 4 / 3) < 1e-6
    assert abs((y == 0).float().mean().item() - 0.25) < 0.02
    assert torch.equal(drop.eval()(x), x)
