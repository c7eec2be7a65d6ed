import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    FieldBatchNorm,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


@pytest.mark.parametrize('group', ['SO(2)', 'O(3)', 'M'])
def test_batch_norm_statistics(group):
    torch.manual_seed(0)
    T = FieldType('3x0e + 2x1o', group)
    norm = FieldBatchNorm(T, eps=0.).double()
    x = 3 * torch.randn(400, T.dim).double() + 2
    y = norm(x)
    assert torch.allclose(y[:, :3].mean(0), torch.zeros(3).double(),
                          atol=1e-12)
    assert torch.allclose(y[:, :3].square().mean(0), torch.ones(3).double())
    vectors = y[:, 3:].view(-1, 2, 3)
    assert torch.allclose(vectors.square().mean((0, 2)),
                          torch.ones(2).double())
    mean = vectors.mean(0)  # only invariant components are centred
    invariant = {'SO(2)': [2], 'O(3)': [], 'M': [1, 2]}[group]
    for c in range(3):
        assert (mean[:, c].abs().max() < 1e-10) == (c in invariant)


def test_batch_norm_running_statistics():
    T = FieldType('1x0e + 1x1o', 'O(3)')
    norm = FieldBatchNorm(T, momentum=0.25).double()
    x = torch.randn(50, 4).double() + 1
    norm(x)
    assert torch.allclose(norm.running_mean, 0.25 * x[:, :1].mean(0))
    var = x[:, 0].var(unbiased=False), x[:, 1:].square().mean()
    assert torch.allclose(norm.running_var,
                          0.75 + 0.25 * torch.stack(var))
    norm.eval()
    before = norm.running_var.clone()
    y = norm(x)
    assert torch.equal(norm.running_var, before)
    scale = (before + norm.eps).rsqrt()
    assert torch.allclose(y[:, 1:], x[:, 1:] * scale[1])
    assert torch.allclose(y[:, 0], (x[:, 0] - norm.running_mean) * scale[0])
    norm.reset_parameters()
    assert torch.equal(norm.running_var, torch.ones(2).double())


def test_batch_norm_of_no_rows():
    norm = FieldBatchNorm(FieldType('1x0e + 1x1o'))
    assert norm(torch.zeros(0, 4)).shape == (0, 4)
    assert norm.running_var.isfinite().all()


class TestFieldBatchNorm(EquivariantLayerTests):
    outside = 'O(3)'

    def make(self):
        return FieldBatchNorm(FieldType('2x0e + 2x1o', 'SO(2)'))
