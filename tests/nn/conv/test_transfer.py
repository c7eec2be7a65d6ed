"""Weights learned on points serve a lattice, and the other way round."""
import itertools

import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.graph import voxel_to_graph
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis
from pyg_steerable.nn import LatticeSteerableConv, SteerableConv

SPECS = {
    'harmonic': HarmonicBasis.spec(max_degree=3, shells=3, radius=2.,
                                   sigma=0.7),
    'implicit': ImplicitBasis.spec(hidden=3, max_degree=2, num_layers=3,
                                   radius=1.3),
    'depthwise': ImplicitBasis.spec(hidden=3, max_degree=2, radius=1.3,
                                    groups='depthwise'),
    'groups': HarmonicBasis.spec(max_degree=3, shells=2, radius=2., groups=2),
}
SIZE, GRID = 5, (5, 6, 7)


def types(group):
    return (FieldType('2x0e + 1x1o', group),
            FieldType('2x0e + 1x1o + 1x1e + 2x2e', group))


def pair(group, kernel, root_weight=True):
    points = SteerableConv(*types(group), SPECS[kernel], num_neighbors=20.,
                           root_weight=root_weight)
    lattice = LatticeSteerableConv(*types(group), SIZE, kernel=SPECS[kernel],
                                   root_weight=root_weight)
    with torch.no_grad():
        for conv in (points, lattice):
            for p in conv.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return points.double().eval(), lattice.double().eval()


def on_points(conv, voxels):
    """A convolution of points on all voxels, which see their stencil."""
    data = voxel_to_graph(voxels, SIZE)
    near = (data.coord[:, None] - data.coord).abs().amax(-1) <= SIZE // 2
    edge_index = near.nonzero().T.flip(0)
    return conv(data.x, data.pos.double(), edge_index)


def on_lattice(conv, voxels):
    out = conv(voxels.unsqueeze(0)).squeeze(0)
    return voxel_to_graph(out, SIZE).x


@pytest.mark.parametrize('group', ['SO(3)', 'SO(2)xM', 'O'])
@pytest.mark.parametrize('kernel', SPECS)
@pytest.mark.parametrize('there', ['lattice', 'points'])
def test_state_dicts_travel(kernel, group, there):
    torch.manual_seed(1)
    points, lattice = pair(group, kernel)
    voxels = torch.randn(types(group)[0].dim, *GRID, dtype=torch.float64)
    assert points.state_dict().keys() == lattice.state_dict().keys()
    before = on_points(points, voxels), on_lattice(lattice, voxels)
    assert (before[0] - before[1]).norm() > 0.1 * before[0].norm()
    if there == 'lattice':
        lattice.load_state_dict(points.state_dict())
    else:
        points.load_state_dict(lattice.state_dict())
    a, b = on_points(points, voxels), on_lattice(lattice, voxels)
    assert (a - b).norm() <= 1e-10 * a.norm()
    kept = before[0] if there == 'lattice' else before[1]
    assert torch.equal(a if there == 'lattice' else b, kept)


@pytest.mark.parametrize('kernel', SPECS)
def test_sampled_kernel_is_the_kernel(kernel):
    _, lattice = pair('SO(2)', kernel)
    kernel = lattice.kernel
    expected = kernel(kernel.positions)
    assert torch.allclose(kernel(), expected, rtol=0, atol=1e-12)
    # Radii that change are noticed.
    kernel.basis.set_radius(1.7)
    assert not torch.allclose(kernel(kernel.positions), expected)
    assert torch.allclose(kernel(), kernel(kernel.positions), rtol=0,
                          atol=1e-12)


def test_what_vanishes_gets_no_weight():
    # On a line along z, of the harmonics about it only the middle one stays.
    from pyg_steerable.kernels import LatticeKernel
    line = torch.tensor([[0., 0., z] for z in range(-2, 3)],
                        dtype=torch.float64)
    basis = HarmonicBasis('M', 2, radius=2.)
    kernel = LatticeKernel(basis, FieldType('0e', 'M'),
                           FieldType('0e + 1o + 2e', 'M'), line).double()
    norms = [E.flatten(1).norm(dim=1) for E in kernel.elements()]
    scales = kernel._by_pair(kernel.scale)
    for norm, scale in zip(norms, scales):
        assert ((norm < 1e-9) == (scale == 0)).all()
    assert any((scale == 0).any() for scale in scales)
    assert kernel.scale.max() < 100


def old_scale(conv):
    """The scales as version 1 kept them, one for a component of the basis."""
    kernel = conv.kernel
    out, start = torch.zeros(kernel.basis.field_type.dim).double(), 0
    for c in kernel.product.couplings.terms:
        for s in kernel.basis.field_type.slices:
            if s.start == c.u:
                out[s] = kernel.scale[start]
        start += c.s * c.mu
    return out


def test_files_of_points_of_version_1():
    conv, _ = pair('SO(2)', 'implicit')
    state = conv.state_dict()
    state['kernel.scale'] = old_scale(conv)
    state._metadata['kernel']['version'] = 1
    other, _ = pair('SO(2)', 'implicit')
    other.load_state_dict(state)
    assert torch.equal(other.kernel.scale, conv.kernel.scale)


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
def test_files_of_lattices_of_version_1(kernel):
    _, conv = pair('SO(2)', kernel)
    state, kernel = conv.state_dict(), conv.kernel
    weight = state.pop('kernel.product.weight')
    state['kernel.weight'] = weight[kernel.place]
    scale = torch.cat(kernel._by_pair(state.pop('kernel.scale')))
    if not kernel.is_fixed:
        state['kernel.scale'] = scale
    _, other = pair('SO(2)', 'implicit' if not kernel.is_fixed else
                    'harmonic')
    other.load_state_dict(state)
    for a, b in itertools.chain(zip(conv.parameters(), other.parameters())):
        assert torch.equal(a, b)
    x = torch.randn(1, conv.in_type.dim, *GRID, dtype=torch.float64)
    assert torch.allclose(conv(x), other(x), rtol=1e-6)
