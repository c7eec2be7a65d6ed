import copy
import pickle

import pytest
import torch
from e3nn import o3
from helpers.fields import C4, SO2, elements, regular

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.symmetry.generators import rotation
from pyg_steerable.symmetry.representations import wigner_D


def permutation(name):
    """The corners of a regular polygon, or of a cube."""
    corners = {
        'C4': torch.tensor([[1., 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]),
        'O': torch.cartesian_prod(*3 * [torch.tensor([-1., 1.])]),
    }[name].double()
    group = Group(name)
    moved = corners @ group.generators.mT
    to = torch.cdist(moved, corners.expand_as(moved)).argmin(-1)
    matrices = torch.nn.functional.one_hot(to, len(corners)).mT.double()
    return Representation(group, matrices, name='corners'), corners


@pytest.mark.parametrize('degree', range(12))
@pytest.mark.parametrize('parity', [1, -1])
def test_wigner_homomorphism(degree, parity):
    ir = o3.Irrep(degree, parity)
    g, h = elements(seed=1), elements(seed=2)
    D, eye = wigner_D(ir, g), torch.eye(ir.dim)
    assert (D @ wigner_D(ir, h) - wigner_D(ir, g @ h)).abs().max() < 1e-13
    assert (D @ D.mT - eye).abs().max() < 1e-13
    assert (wigner_D(ir, torch.eye(3).double()) - eye).abs().max() < 1e-13
    inversion = wigner_D(ir, -torch.eye(3).double())
    assert (inversion - parity * eye).abs().max() < 1e-13


def test_wigner_agrees_with_e3nn():
    # e3nn's own matrices are accurate to float32 only.
    R = elements(n=50)
    irreps = o3.Irreps('0e + 0o + 1o + 1e + 2e + 3o + 4e + 5e')
    poles = torch.stack([
        torch.from_numpy(rotation((0, 1, 0), angle)) for angle in (0.3, 2.)
    ])
    R = torch.cat([R, poles, -poles])
    error = FieldType(irreps, 'O(3)').matrix(R) - irreps.D_from_matrix(R)
    assert error.abs().max() < 1e-5


def test_degree_one_is_the_matrix_itself():
    R = elements()
    assert (wigner_D(o3.Irrep('1o'), R) - R).abs().max() < 1e-14
    pseudo = torch.linalg.det(R)[:, None, None] * R
    assert (wigner_D(o3.Irrep('1e'), R) - pseudo).abs().max() < 1e-14


def test_harmonics_transform():
    R, x = elements(n=1)[0], torch.randn(5, 3).double()
    for degree in range(12):
        D = wigner_D(o3.Irrep(degree, (-1)**degree), R)
        Y, moved = (o3.spherical_harmonics(degree, p, False)
                    for p in (x, x @ R.T))
        assert (moved - Y @ D.T).norm() < 1e-12 * moved.norm()


@pytest.mark.parametrize('name', ['C1', 'C4', 'D3', 'T', 'O', 'C3xInv'])
def test_regular_representation(name):
    rho = regular(name)
    g = rho.group.elements
    D = rho(g)
    assert D.shape == (len(g), len(g), len(g))
    products = rho(g[:, None] @ g[None, :5])
    assert (D[:, None] @ D[:5] - products).abs().max() < 1e-10
    rounded = D.round()
    assert (D - rounded).abs().max() < 1e-10
    assert (rounded.sum(1) == 1).all() and (rounded.sum(2) == 1).all()
    # f(g^-1 h): the delta at h moves to g h.
    h = (D.argmax(1))
    assert torch.allclose(g[h], g[:, None] @ g[None], atol=1e-9)


@pytest.mark.parametrize('name', ['C4', 'O'])
def test_permutation_representation(name):
    rho, corners = permutation(name)
    for g, D in zip(rho.group.elements, rho(rho.group.elements)):
        # The corner n moves to the corner that D takes the unit vector n to.
        assert (D.T @ corners - corners @ g.T).abs().max() < 1e-9
        assert (D.round() - D).abs().max() < 1e-10


def test_representation_of_a_continuous_group():
    group = Group('SO(2)xM')
    R = group.generators
    rho = Representation(group, R[:, :2, :2], name='plane')
    g = group.sample(5)
    assert (rho(g) - g[:, :2, :2]).abs().max() < 1e-12
    assert rho.degree == 1 and rho.dim == 2
    tensor = torch.einsum('gij,gkl->gikjl', R, R).reshape(-1, 9, 9)
    rho = Representation(group, tensor, name='tensor')
    expected = torch.einsum('gij,gkl->gikjl', g, g).reshape(-1, 9, 9)
    assert (rho(g) - expected).abs().max() < 1e-11
    # cos and sin of three times the angle.
    turn = lambda m: torch.linalg.matrix_power(m[:2, :2], 3)  # noqa: E731
    so2 = Group('SO(2)')
    rho = Representation(so2, [turn(m) for m in so2.generators], 'three')
    g = so2.sample(5)
    assert (rho(g) - torch.stack([turn(m) for m in g])).abs().max() < 1e-11
    assert rho.degree == 3


def test_representation_values():
    rho = regular('D3')
    for other in (copy.deepcopy(rho), pickle.loads(pickle.dumps(rho)),
                  regular('D3')):
        assert other == rho and hash(other) == hash(rho)
        assert repr(other) == 'regular(D3)'
        assert torch.equal(other(rho.group.elements),
                           rho(rho.group.elements))
    assert rho != regular('C6') and rho != 'regular(D3)'
    other = Representation('D3', rho.matrices, name='other')
    assert other != rho


@pytest.mark.parametrize('make, match', [
    # A rotation by a third of a turn is no representation of C4.
    (lambda: Representation(C4, [torch.tensor(rotation((0, 0, 1), 2.0944))]),
     'relation'),
    (lambda: Representation(C4, [torch.diag(torch.tensor([1., 1., 2.]))]),
     'orthogonal'),
    (lambda: Representation(C4, torch.eye(2).expand(2, 2, 2)), 'one for'),
    (lambda: Representation(C4, torch.ones(1, 2, 3)), 'one for'),
    (lambda: Representation(C4, torch.eye(2)), 'one for'),
    # A quarter turn for the generator of SO(2): not continuous.
    (lambda: Representation(SO2, [torch.tensor([[0., -1.], [1., 0.]])]),
     'relation'),
    # Spin one half: 2 pi becomes -1.
    (lambda: Representation(C4, [torch.tensor([[.5**.5, -.5**.5],
                                               [.5**.5, .5**.5]])]),
     'relation'),
    (lambda: regular('C4')(torch.tensor(rotation((0, 0, 1), 0.3))),
     'defined'),
    (lambda: Representation.regular('SO(2)'), 'finite'),
    (lambda: Representation(C4, torch.zeros(1, 0, 0)), 'one for|empty|d, d'),
])
def test_bad_representations(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_swapped_matrices_are_no_representation():
    rho = regular('D3')
    with pytest.raises(ValueError, match='order of the matrices'):
        Representation('D3', rho.matrices.flip(0))
