"""Functions of the distance."""
import copy
import math

import pytest
import torch

from pyg_steerable.kernels import (
    BesselRadial,
    GaussianRadial,
    ImplicitBasis,
    RadialFunctions,
)
from pyg_steerable.nn import param_groups
from pyg_steerable.nn.kernel.radial import (
    NAMED,
    LearnedBesselRadial,
    LearnedGaussianRadial,
    build_radial,
)

LEARNED = {LearnedGaussianRadial: GaussianRadial,
           LearnedBesselRadial: BesselRadial}


def distances(n=30):
    generator = torch.Generator().manual_seed(4)
    return 1.2 * torch.rand(n, 1, generator=generator, dtype=torch.float64)


def test_gaussians():
    t = distances()
    out = GaussianRadial(5).double()(t)
    assert out.shape == (30, 5)
    for i in range(30):
        for m in range(5):
            assert out[i, m].item() == pytest.approx(math.exp(
                -(t[i].item() - m / 4)**2 / (2 * (1 / 4)**2)))
    assert GaussianRadial(1)(torch.zeros(1, 1)) == 1


def test_bessel_functions():
    t = distances()
    out = BesselRadial(3).double()(t)
    for i in range(30):
        for m in range(1, 4):
            x = m * math.pi * t[i].item()
            assert out[i, m - 1].item() == pytest.approx(math.sin(x) / x)
    ends = torch.tensor([[0.], [1.]], dtype=torch.float64)
    out = BesselRadial(3).double()(ends)
    assert (out[0] == 1).all() and (out[1].abs() < 1e-15).all()


@pytest.mark.parametrize('cls', [*LEARNED, *LEARNED.values()],
                         ids=lambda c: c.__name__)
def test_derivatives_and_precision(cls):
    module = cls(4).double()
    t = distances(6).requires_grad_()
    assert torch.autograd.gradcheck(module, t)
    assert torch.autograd.gradgradcheck(module, t)
    # Constants of float32 that become float64 are those of float64.
    exact = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        if not cls.learned:
            assert torch.equal(cls(4)(t), module(t))
    finally:
        torch.set_default_dtype(exact)
    # Of half precision, it is evaluated in the dtype of the distance.
    low = cls(4).bfloat16()(t.detach().float())
    assert low.dtype == torch.float32
    assert torch.allclose(low.double(), module(t).detach(), atol=5e-2)


@pytest.mark.parametrize('learned, fixed', LEARNED.items(),
                         ids=lambda c: c.__name__)
def test_what_is_learned(learned, fixed):
    t = distances().float()
    module, plain = learned(4), fixed(4)
    assert torch.equal(module(t), plain(t))
    assert not [*plain.parameters()] and not plain.state_dict()
    parameters = dict(module.named_parameters())
    assert parameters and parameters.keys() == module.state_dict().keys()
    module(t).sin().sum().backward()
    for parameter in parameters.values():
        assert (parameter.grad != 0).any()
        with torch.no_grad():
            parameter.add_(0.1)
    assert not torch.allclose(module(t), plain(t), atol=1e-3)
    # They say where kernels are large, and must not shrink.
    assert not param_groups(module)[0]['params']
    other = copy.deepcopy(module)
    other.reset_parameters()
    assert torch.equal(other(t), plain(t))
    with torch.device('meta'):
        meta = learned(4)
    meta = meta.to_empty(device='cpu')
    meta.reset_parameters()
    assert torch.equal(meta(t), plain(t))


def test_names():
    assert {'gaussian', 'bessel', 'learned_gaussian',
            'learned_bessel'} == NAMED.keys()

    class Power(RadialFunctions, name='power'):
        def forward(self, t):
            self.check_input(t, 't')
            return t ** torch.arange(1, self.num + 1, device=t.device)

    try:
        assert isinstance(build_radial('power', 3), Power)
        basis = ImplicitBasis('O(3)', radial='power', num_radial=3)
        assert isinstance(basis.radial, Power) and basis.radial.num == 3
    finally:
        del NAMED['power']
    assert isinstance(build_radial(Power, 8), Power)
    assert build_radial(None, 8) is None


@pytest.mark.parametrize('run, error, words', [
    (lambda: build_radial('gauss', 8), ValueError, ['radial', 'gaussian']),
    (lambda: build_radial(torch.nn.Linear, 8), TypeError, ['radial']),
    (lambda: build_radial(GaussianRadial(3), 3), TypeError, ['subclass']),
    (lambda: build_radial(None, 0), ValueError, ['num_radial']),
    (lambda: ImplicitBasis('O(3)', radial='bessel', num_radial=-1),
     ValueError, ['num_radial']),
    (lambda: GaussianRadial(0), ValueError, ["'num'"]),
    (lambda: BesselRadial(2.5), ValueError, ["'num'"]),
    (lambda: BesselRadial()(torch.rand(4)), ValueError, ["'t'"]),
    (lambda: RadialFunctions(3)(torch.rand(4, 1)), TypeError, ['forward']),
])
def test_bad_input(run, error, words):
    with pytest.raises(error) as caught:
        run()
    for word in words:
        assert word in str(caught.value)
