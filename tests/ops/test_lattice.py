import pytest
import torch
from helpers.lattice import (
    BOTH_ORDERS,
    STENCILS,
    edges_by_definition,
    random_voxels,
)

from pyg_steerable.graph import (
    voxel_to_graph,
)
from pyg_steerable.ops.lattice import lattice_conv


def problem(kwargs, list_edges, matrix=True):
    torch.manual_seed(0)
    voxels, mask = random_voxels(grid=(3, 3, 4), occupancy=0.5)
    lattice = voxel_to_graph(voxels, mask=mask, list_edges=list_edges,
                             **kwargs)
    K = lattice.geometry.stencil.num_offsets
    weight = torch.randn(K, 3, 2) if matrix else torch.randn(K)
    return (lattice, lattice.x.clone().requires_grad_(),
            weight.double().requires_grad_())


@pytest.mark.parametrize('matrix', [True, False])
@pytest.mark.parametrize('list_edges', [True, False])
@pytest.mark.parametrize('kwargs', STENCILS[:2])
@BOTH_ORDERS
def test_sums_along_edges(lattice_order, kwargs, list_edges, matrix):
    lattice, x, weight = problem(kwargs, list_edges, matrix)
    out = lattice_conv(x, weight, lattice.edges)
    expected = torch.zeros_like(out)
    for j, i, k in edges_by_definition(lattice):
        expected[i] += x[j] @ weight[k] if matrix else x[j] * weight[k]
    assert torch.allclose(out, expected)
    back = lattice_conv(out, weight.mT if matrix else weight, lattice.edges,
                        transposed=True)
    # <y, A x> = <A^T y, x>
    assert torch.allclose((out * out).sum(), (back * x).sum())


@pytest.mark.parametrize('transposed', [False, True])
@pytest.mark.parametrize('matrix', [True, False])
@BOTH_ORDERS
def test_derivatives(lattice_order, matrix, transposed):
    lattice, x, weight = problem(dict(kernel_size=3, stride=2), False, matrix)
    if transposed:
        x = torch.randn(lattice.num_targets, 3).double().requires_grad_()

    def function(x, weight):
        return lattice_conv(x, weight, lattice.edges, transposed)

    assert torch.autograd.gradcheck(function, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, weight),
                                        fast_mode=True)


@BOTH_ORDERS
def test_nothing_of_an_offset_is_kept(lattice_order):
    voxels, mask = random_voxels(grid=(12, 12, 12), occupancy=0.9)
    lattice = voxel_to_graph(voxels, 5, mask=mask, list_edges=False)
    weight = torch.randn(125, 3, 2).double().requires_grad_()
    saved = []

    def pack(t):
        saved.append(t.numel() * t.is_floating_point())
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        lattice_conv(lattice.x, weight, lattice.edges)
    assert sum(saved) == lattice.x.numel() + weight.numel()
