from itertools import product

import pytest
import torch
from helpers.lattice_conv import GROUPS, make, relative, split

from pyg_steerable import FieldType, Group
from pyg_steerable.graph import Stencil
from pyg_steerable.kernels import (
    LatticeKernel,
    lattice_harmonics,
)
from pyg_steerable.nn.kernel.harmonic import CUTOFFS


def sampled_kernels(group, l_in, l_out, kernel_size, cutoff='compromise'):
    types = [FieldType([(1, (l, (-1)**l))], group) for l in (l_in, l_out)]
    basis = lattice_harmonics(group, kernel_size, l_in + l_out, cutoff)
    return LatticeKernel(basis, *types,
                         Stencil(kernel_size).positions()).double()


@pytest.mark.parametrize('kernel_size', [1, 3, 5, 7])
@pytest.mark.parametrize('cutoff', CUTOFFS)
def test_number_of_kernels(cutoff, kernel_size):
    highest = {'conservative': [0, 2, 4, 6], 'compromise': [0, 3, 5, 7],
               'sfcnn': [0, 4, 6, 8]}[cutoff][:kernel_size // 2 + 1]
    for l_in, l_out in product(range(4), repeat=2):
        kernel = sampled_kernels('SO(3)', l_in, l_out, kernel_size, cutoff)
        expected = sum(abs(l_in - l_out) <= J <= l_in + l_out
                       for top in highest for J in range(top + 1))
        assert len(kernel.weight()) == expected


def test_shells_are_those_of_the_paper():
    basis = lattice_harmonics('SO(3)', 5, 6).double()
    assert (basis.centres * basis.radius).tolist() == [0., 1., 2.]
    assert basis.band_limit == [0, 3, 5]
    h = basis(Stencil(5).positions())
    r2 = Stencil(5).positions().square().sum(1)
    assert torch.allclose(h[:, 1], torch.exp(-0.5 * (r2.sqrt() - 1)**2 / 0.36))
    assert (h[r2 == 0][:, basis.field_type.slices[0].stop:] == 0).all()


@pytest.mark.parametrize('kernel_size', [3, 5])
def test_unit_norms_and_fan_in(kernel_size):
    in_type = FieldType('3x0e + 2x1o + 1x2e', 'SO(3)')
    out_type = FieldType('1x1o + 2x2e', 'SO(3)')
    kernel = LatticeKernel(lattice_harmonics('SO(3)', kernel_size, 4),
                           in_type, out_type,
                           Stencil(kernel_size).positions()).double()
    elements, scales = kernel.elements(), kernel._by_pair(kernel.scale)
    assert len(elements) == 6
    for E, c, (_, w) in zip(elements, scales, [b for b in out_type.blocks
                                               for _ in range(3)]):
        # Norm one, times sqrt((2 l_out + 1) / (n_basis * multiplicities)).
        assert torch.allclose((c * E.flatten(1).norm(dim=1)).square(),
                              torch.tensor(w.dim / (len(E) * 6.)).double())
    E = elements[0].flatten(1)
    assert torch.linalg.matrix_rank(E) == len(E)


@pytest.mark.parametrize('kernel_size', [3, 5])
@pytest.mark.parametrize('l_in,l_out', [*product(range(4), repeat=2)])
def test_completeness(l_in, l_out, kernel_size):
    # Random kernels of these shells and degrees, averaged over the group:
    # sampled, they span what the basis spans.
    kernel = sampled_kernels('SO(3)', l_in, l_out, kernel_size)
    E = torch.cat(kernel.elements()).flatten(1)
    h = kernel.basis(kernel.positions)
    R, weights = Group('SO(3)').design(2 * (l_in + l_out))
    matrices = [t.matrix(R) for t in (kernel.basis.field_type,
                                      kernel.out_type, kernel.in_type)]
    random = torch.randn(len(E) + 3, *(D.shape[1] for D in matrices)).double()
    average = 0
    for weight, D_h, D_out, D_in in zip(weights, *matrices):
        turned = torch.tensordot(weight * random, D_h, ([1], [1]))
        turned = torch.einsum('nijp,wi,vj->npwv', turned, D_out, D_in)
        average = average + turned
    average = torch.einsum('npwv,kp->nwvk', average, h).flatten(1)
    rank = torch.linalg.matrix_rank
    assert rank(E) == len(E) == rank(average, rtol=1e-9)
    assert rank(torch.cat([E, average]), rtol=1e-9) == len(E)


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
@pytest.mark.parametrize('group', GROUPS)
def test_kernels_are_steerable(group, kernel):
    conv = make(group, kernel=kernel, kernel_size=5)
    # Continuous kernels under the whole group,
    x = 2 * torch.randn(10, 3).double()
    for R in Group.wrap(group).sample(3):
        left = conv.kernel(x @ R.T)
        right = (conv.out_type.matrix(R) @ conv.kernel(x)
                 @ conv.in_type.matrix(R).mT)
        assert relative(left, right) < 1e-10
    # and sampled ones under its symmetries of the cube, and no others.
    x, k = conv.kernel.positions, conv.kernel()
    assert relative(k, conv.kernel(x)) < 1e-10

    def error(R):
        place = torch.cdist(x @ R.T, x).argmin(dim=1)
        right = (conv.out_type.matrix(R) @ k @ conv.in_type.matrix(R).mT)
        return relative(k[place], right)

    inside, outside = split(group)
    assert all(error(R) < 1e-10 for R in inside)
    assert all(error(R) > 1e-2 for R in outside)
