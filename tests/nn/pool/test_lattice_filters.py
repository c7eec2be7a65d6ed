"""Filters of voxels with other weights along each axis."""
import pytest
import torch
from torch.nn import functional as F

from pyg_steerable.graph import graph_to_voxel, voxel_to_graph
from pyg_steerable.nn import LatticeAvgPool, LatticeLowPass
from pyg_steerable.nn.pool.lattice import LatticeFilter

GRID = (5, 6, 7)


def line(*weights):
    return torch.tensor(weights).double()


FILTERS = {
    'lines': lambda: LatticeFilter([line(2.), line(1., 3., 1.), line(
        1., -2., 5., -2., 1.)], (1, 2, 3), (1, 0, 2)),
    'low-pass': lambda: LatticeLowPass((1, 2.1, 1.5), (1, 2, 1)),
    'pool': lambda: LatticeAvgPool((1, 3, 5), padding=(0, 1, 0)),
    'one': lambda: LatticeFilter(line(1., 2., 1.), (2, 1, 1)),
}


@pytest.mark.parametrize('case', FILTERS)
def test_filters_are_convolutions(case):
    layer = FILTERS[case]().double()
    voxels = torch.randn(3, *GRID).double()
    z, y, x = layer.lines
    weight = torch.einsum('i,j,k->ijk', z, y, x).expand(3, 1, -1, -1, -1)
    leaf = voxels.clone().requires_grad_()
    expected = F.conv3d(leaf[None], weight, None, layer.stencil.stride,
                        layer.stencil.padding, groups=3)
    weights = torch.randn(expected.shape).double()
    grad, = torch.autograd.grad((expected * weights).sum(), leaf)
    lattice = voxel_to_graph(voxels, dilate=True, **vars(layer.stencil))

    def on_graph(leaf):
        return graph_to_voxel(lattice, layer(lattice.gather(leaf[None]),
                                             lattice), targets=True)[None]

    for function in (lambda leaf: layer(leaf[None]), on_graph):
        out = function(leaf)
        assert torch.allclose(out, expected, atol=1e-12)
        found, = torch.autograd.grad((out * weights).sum(), leaf)
        assert torch.allclose(found, grad, atol=1e-12)


def test_pools_of_images():
    x = torch.randn(2, 3, 1, 9, 7)
    layer = LatticeAvgPool((1, 3, 3))
    assert layer.stencil.stride == (1, 2, 2)
    assert torch.allclose(layer(x)[:, :, 0], F.avg_pool2d(x[:, :, 0], 3, 2, 1),
                          atol=1e-6)
    layer = LatticeLowPass((1, 2, 2), 2)
    assert layer(x).shape == (2, 3, 1, 5, 4)
    assert repr(layer) == ('LatticeLowPass(kernel_size=(1, 5, 5), '
                           'stride=(1, 2, 2))')
    ones = LatticeLowPass((1, 2, 2), padding=0)(torch.ones(1, 1, 1, 9, 9))
    assert torch.allclose(ones, torch.ones(1, 1, 1, 5, 5))


@pytest.mark.parametrize('make,words', [
    (lambda: LatticeFilter([line(1.), line(1., 1., 1.)]),
     ["'line'", 'three', 'got 2']),
    (lambda: LatticeFilter([line(1.), line(1.), line(1., 2., 3.)]),
     ["'line'", 'symmetric']),
    (lambda: LatticeFilter([line(1.), line(1.), line(1., 1.)]),
     ["'kernel_size'", 'odd']),
    (lambda: LatticeLowPass((1, 2, -2)), ["'scale'"]),
    (lambda: LatticeLowPass((1, 2)), ["'line'", 'three']),
    (lambda: LatticeAvgPool((1, 2, 3)), ["'kernel_size'", 'odd']),
    (lambda: LatticeAvgPool((1, 3, 3), padding=0)(torch.ones(1, 1, 1, 2, 9)),
     ['at least (1, 3, 3) voxels', '[1, 1, 1, 2, 9]']),
])
def test_bad_input(make, words):
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    assert all(word in str(error.value) for word in words)
