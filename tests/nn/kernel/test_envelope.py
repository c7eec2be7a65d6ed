"""Kernels that end smoothly."""
import copy
import inspect
import math
import warnings

import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.graph import Stencil
from pyg_steerable.kernels import (
    HarmonicBasis,
    ImplicitBasis,
    SteerableBasis,
)
from pyg_steerable.models import QM9Net
from pyg_steerable.nn import (
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    LatticeSteerableConv,
    calibrate,
)
from pyg_steerable.nn.kernel.envelope import envelope
from pyg_steerable.nn.kernel.spec import NAMED
from pyg_steerable.testing import assert_equivariant, equivariance_error

CUTOFF = 1.5
T = FieldType('2x0e + 1x1o', 'SO(2)')
CONVS = {'implicit': ImplicitSteerableConv, 'harmonic': HarmonicSteerableConv}


def derivatives(f, r, order):
    """Those of f, [n, ...], in the numbers r, [n], by autograd."""
    r = r.clone().requires_grad_()
    out = [f(r)]
    for _ in range(order):
        flat = out[-1].flatten(1)
        out.append(torch.stack([
            torch.autograd.grad(flat[:, i].sum(), r, create_graph=True)[0]
            for i in range(flat.shape[1])], 1))
    return [o.detach().flatten(1) for o in out]


def test_it_ends_with_three_derivatives():
    r = torch.linspace(0, 1.5, 3001, dtype=torch.float64)
    u = derivatives(lambda r: envelope(r.square())[:, None], r, 4)
    end = (r - 1).abs() < 1e-12
    assert end.sum() == 1
    for k in range(4):
        assert (u[k][r >= 1 - 1e-12] == 0).all()
    # The first that is not zero, 4! P(1) (ds/dr)^4, from the inside.
    step = torch.tensor([1 - 1e-6], dtype=torch.float64)
    fourth = derivatives(lambda r: envelope(r.square())[:, None], step, 4)[4]
    assert fourth.item() == pytest.approx(math.factorial(4) * 15 * 16,
                                          rel=1e-3)
    # One, flat, at the origin, and it only goes down.
    assert u[0][0] == 1
    assert all(u[k][0].abs() < 1e-12 for k in range(1, 5))
    assert (u[0].diff(dim=0) <= 0).all()
    # Differences say what autograd says.
    for k in range(1, 4):
        wide = (u[k - 1][2:] - u[k - 1][:-2]) / (r[2:] - r[:-2])[:, None]
        assert torch.allclose(wide, u[k][1:-1],
                              atol=1e-2 * float(u[k].abs().max()))


def output(conv, r, aggr='sum'):
    """The output at one node with a neighbour at each of the distances r,
    beside a fixed one.
    """
    generator = torch.Generator().manual_seed(3)
    way = torch.randn(3, generator=generator, dtype=torch.float64)
    x = torch.randn(3, T.dim, generator=generator, dtype=torch.float64)
    edge_index = torch.tensor([[1, 2], [0, 0]])
    out = []
    for length in r:
        pos = torch.stack([torch.zeros_like(way), 0.4 * way.roll(1),
                           length * way / way.norm()])
        out.append(conv(x, pos, edge_index)[0])
    return torch.stack(out)


@pytest.mark.parametrize('backend', ['auto', 'reference'])
@pytest.mark.parametrize('kernel', CONVS)
def test_a_neighbour_comes_in_smoothly(kernel, backend):
    torch.manual_seed(0)
    conv = CONVS[kernel](T, T, cutoff_radius=CUTOFF, backend=backend,
                         num_neighbors=2.).double().eval()
    h = 1e-3
    before, after = (derivatives(
        lambda r: output(conv, r),
        torch.tensor([CUTOFF + side], dtype=torch.float64), 2)
        for side in (-1e-8, 1e-8))
    for a, b in zip(before, after):  # output, and first and second derivative
        assert (a - b).norm() <= 1e-6 * before[0].norm()
    # Finite differences from both sides.
    near = CUTOFF + h * torch.arange(-3., 4, dtype=torch.float64)
    f = output(conv, near).detach()
    size = f[3].norm()
    for first, second in ((f[3] - f[2], f[3] - 2 * f[2] + f[1]),
                          (f[4] - f[3], f[5] - 2 * f[4] + f[3])):
        assert (first / h).norm() <= 1e-6 * size
        assert (second / h**2).norm() <= 1e-3 * size  # of order h^2
    # Beyond, nothing changes at all; inside, it does.
    assert (f[3:] == f[3]).all()
    assert (output(conv, near[:1] - 0.3)[0] - f[3]).norm() > 1e-3 * size
    # Without a cutoff it would jump when the edge goes.
    sharp = CONVS[kernel](T, T, num_neighbors=2., radius=1.5,
                          ).double().eval()
    assert (output(sharp, near[3:4])[0]
            - output(sharp, near[3:4] + 99)[0]).norm() > 1e-3 * size


@pytest.mark.parametrize('kernel', CONVS)
def test_second_derivatives_of_the_basis(kernel):
    basis = CONVS[kernel](T, T, cutoff_radius=CUTOFF).kernel.basis
    basis = basis.double().eval()
    plain = copy.deepcopy(basis)
    plain.cutoff_radius = None
    x = torch.randn(20, 3, dtype=torch.float64)
    u = envelope(x.square().sum(1, keepdim=True) / CUTOFF**2)
    assert torch.allclose(basis(x), u * plain(x))
    assert not torch.allclose(basis(x), plain(x))
    far = x[x.norm(dim=1) > CUTOFF]
    assert len(far) and (basis(far) == 0).all()
    x = torch.cat([x[:4], x.new_zeros(1, 3)]).requires_grad_()
    assert torch.autograd.gradcheck(basis, x)
    assert torch.autograd.gradgradcheck(basis, x)


@pytest.mark.parametrize('group', ['SO(2)', 'O(3)', 'O'])
@pytest.mark.parametrize('kernel', CONVS)
def test_equivariance(kernel, group):
    torch.manual_seed(1)
    here = FieldType('2x0e + 1x1o', group)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # examples are wider than that
        conv = CONVS[kernel](here, here, cutoff_radius=2.)
        assert_equivariant(conv, dtype=torch.float64)
        assert_equivariant(conv.kernel.basis, dtype=torch.float64)
        if group != 'O(3)':
            assert equivariance_error(conv.double(), 'O(3)') > 1e-3


@pytest.mark.parametrize('kernel', CONVS)
def test_lattices_end_alike(kernel):
    torch.manual_seed(2)
    conv = LatticeSteerableConv(T, T, 5, kernel=kernel, cutoff_radius=2.)
    distance = Stencil(5).positions().norm(dim=1)
    k = conv.kernel().abs().amax((1, 2))
    assert ((k > 0) == (distance < 2)).all()
    wide = LatticeSteerableConv(T, T, 5, kernel=kernel)
    assert (wide.kernel().abs().amax((1, 2))[distance == 2] > 0).all()
    assert_equivariant(conv, dtype=torch.float64)
    # A fixed basis is sampled once: again where the cutoff is another one.
    before = conv.kernel().clone()
    conv.kernel.basis.set_cutoff_radius(3.)
    assert (conv.kernel() - before).norm() > 1e-2 * before.norm()
    state = {k: v.clone() for k, v in conv.state_dict().items()}
    other = LatticeSteerableConv(T, T, 5, kernel=kernel, cutoff_radius=2.)
    other.load_state_dict(state)
    assert torch.equal(other.kernel(), conv.kernel())


@pytest.mark.parametrize('kernel', CONVS)
def test_it_is_saved(kernel):
    conv = CONVS[kernel](T, T, cutoff_radius=1 / 3)
    state = conv.state_dict()
    assert state['kernel.basis.cutoff_radius'] == torch.tensor(1 / 3)
    assert conv.kernel.basis.lengths['cutoff_radius'] == 1 / 3
    other = CONVS[kernel](T, T, cutoff_radius=2.)
    other.load_state_dict(state)
    assert other.kernel.basis.cutoff_radius == conv.kernel.basis.cutoff_radius
    # float64 is as exact as if built in it; half precision keeps float32.
    assert conv.double().kernel.basis.cutoff_radius.item() == 1 / 3
    assert conv.half().kernel.basis.cutoff_radius.dtype == torch.float32
    # Where there is none, there is none in the file; and no kernel that ends
    # becomes, unnoticed, one that does not.
    plain = CONVS[kernel](T, T)
    assert 'kernel.basis.cutoff_radius' not in plain.state_dict()
    with pytest.raises(RuntimeError, match='cutoff_radius'):
        plain.load_state_dict(state)
    other.load_state_dict(plain.state_dict())  # of an older version
    assert other.kernel.basis.cutoff_radius == conv.kernel.basis.cutoff_radius
    with torch.device('meta'):
        meta = CONVS[kernel](T, T, cutoff_radius=2.)
    meta = meta.to_empty(device='cpu')
    assert meta.kernel.basis.cutoff_radius == 2
    copied = copy.deepcopy(other).kernel.basis
    copied.set_cutoff_radius(9.)
    assert other.kernel.basis.cutoff_radius != 9 == copied.cutoff_radius


def test_every_basis_has_the_option():
    class Square(SteerableBasis, name='square'):
        def __init__(self, group, radius=1.0):
            super().__init__()
            self.set_radius(radius)
            self.field_type = FieldType('1x0e', group)
            self.attr_type = FieldType([], group)

        def forward(self, positions, attr=None):
            return positions.square().sum(1, keepdim=True)

    try:
        S = FieldType('1x0e', 'O(3)')
        for basis in (Square, HarmonicBasis, ImplicitBasis):
            built = basis.spec(cutoff_radius=2.).for_types(S, S)
            x = torch.tensor([[1., 0, 0], [0, 2, 0], [3, 0, 0]])
            h = built.eval()(x)
            assert (h[1:] == 0).all() and h[0].any()
            assert 'cutoff_radius' in basis.options()
        conv = LatticeSteerableConv(S, S, 5, kernel='square',
                                    cutoff_radius=1.5)
        assert conv.kernel.basis.cutoff_radius == 1.5
        assert QM9Net(kernel=HarmonicBasis.spec(cutoff_radius=4.),
                      blocks=1).first.kernel.basis.cutoff_radius == 4
    finally:
        del NAMED['square']
    for conv in CONVS.values():
        shown = inspect.signature(conv).parameters['cutoff_radius']
        assert shown.default is None
    for wrong in (0., -1., float('nan'), 'far'):
        with pytest.raises((ValueError, TypeError), match='cutoff_radius'):
            ImplicitSteerableConv(T, T, cutoff_radius=wrong)


def test_warnings_name_the_cutoff():
    x, edge_index = torch.randn(3, T.dim), torch.tensor([[1, 2], [0, 0]])
    pos = torch.tensor([[0., 0, 0], [1, 0, 0], [0, 1.2, 0]])

    def warned(scale, **options):
        conv = HarmonicSteerableConv(T, T, **options)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter('always')
            conv(x, scale * pos, edge_index)
        return ' '.join(str(w.message) for w in found)

    assert not warned(1, radius=1., cutoff_radius=1.5)
    # Half of them may be beyond: a graph wider than the kernels.
    assert not warned(1, radius=1., cutoff_radius=1.1)
    text = warned(1, radius=1., cutoff_radius=0.9)
    assert '100%' in text and "larger 'cutoff_radius'" in text
    # It is not the cutoff that is too small.
    text = warned(10, radius=1., cutoff_radius=50.)
    assert 'radius=12' in text and 'cutoff' not in text
    text = warned(0.01, radius=1., cutoff_radius=2.)
    assert 'hardly tell' in text and 'radius=0.012' in text


def test_calibration_looks_at_what_is_seen():
    pos = torch.tensor([[0., 0, 0], [1, 0, 0], [0, 30., 0]])
    edge_index = torch.tensor([[1, 2, 0], [0, 0, 0]])
    conv = ImplicitSteerableConv(T, T, cutoff_radius=3.)
    calibrate(conv, torch.randn(3, T.dim), pos, edge_index)
    assert conv.kernel.basis.radius == 1
    assert conv.kernel.basis.extent() == 3


def test_a_compiled_layer_ends_too():
    torch.manual_seed(0)
    conv = ImplicitSteerableConv(T, T, hidden=2, cutoff_radius=CUTOFF).eval()
    x, edge_index = torch.randn(4, T.dim), torch.tensor([[1, 2, 3], [0, 0, 0]])
    pos = torch.tensor([[0., 0, 0], [1, 0, 0], [0, 1.4, 0], [0, 0, 1.6]])
    out = conv(x, pos, edge_index)
    compiled = torch.compile(conv, backend='eager', fullgraph=True)
    assert torch.allclose(compiled(x, pos, edge_index), out)
    program = torch.export.export(conv, (x, pos, edge_index), strict=False)
    assert torch.allclose(program.module()(x, pos, edge_index), out)
    with torch.no_grad():
        moved = pos.clone()
        moved[3, 2] = 1.7
        for f in (conv, compiled, program.module()):
            assert torch.allclose(f(x, moved, edge_index), out)
