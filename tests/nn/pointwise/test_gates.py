import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    Gate,
    NormGate,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


class TestNormGate(EquivariantLayerTests):
    outside = 'O(3)'

    def make(self):
        return NormGate(FieldType('2x0e + 2x1o + 1x0o', 'SO(2)'))


class TestGate(EquivariantLayerTests):
    def make(self):
        return Gate(FieldType('2x0e + 2x1o + 1x0o', 'O(3)'))


@pytest.mark.parametrize('eps', [1e-4, 1e-2, 1.])
def test_how_norms_bend_at_zero(eps):
    """The gate of a vector t v, next to it a scalar: over a step of the size
    of eps's root the norm is a half of a line and a half of a parabola.
    """
    act = NormGate(FieldType('1x0e + 1x1o', 'O(3)'), eps=eps).double()
    v = torch.nn.functional.normalize(torch.randn(3).double(), dim=0)
    t = eps**0.5 * torch.tensor([0., 1., 1e3]).double()
    x = torch.cat([torch.zeros(3, 1).double(), 3**0.5 * t[:, None] * v], 1)
    out = act.readout(x)
    out = out - out[0]
    norms = eps**0.5 * (2**0.5 - 1), eps**0.5 * ((1e6 + 1)**0.5 - 1)
    assert torch.allclose(out[1] / norms[0], out[2] / norms[1])
    assert out[1].abs().min() > 1e-6


def test_bad_eps():
    with pytest.raises(ValueError, match="Expected 'eps'"):
        NormGate(FieldType('1x1o', 'O(3)'), eps=0.)
