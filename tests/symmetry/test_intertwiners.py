import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from e3nn import o3

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.intertwiners import bilinear_basis, linear_basis
from pyg_steerable.symmetry import intertwiners

COUNTS = {
    'SO(3)': 34, 'O(3)': 23, 'SO(2)': 580, 'SO(2)xM': 322, 'SO(2)xF': 290,
    'SO(2)xInv': 290, 'M': 2080, 'Inv': 2016, '1': 4096, 'C4': 1024,
    'I': 69, 'O': 171
}
GROUPS = [*COUNTS, 'F', 'SO(2)xMxInv', 'D3', 'T', 'OxInv']
IRREPS = [o3.Irrep(l, (-1)**l) for l in range(4)]
TRIPLES = list(itertools.product(IRREPS, repeat=3))


@pytest.fixture
def fresh():
    intertwiners._invariants.cache_clear()
    yield
    intertwiners._invariants.cache_clear()


def sample(group, n=5):
    generator = torch.Generator().manual_seed(0)
    return torch.cat([
        Group.wrap(group).generators,
        Group.wrap(group).sample(n, generator=generator)
    ])


@pytest.mark.parametrize('name', list(COUNTS))
def test_number_of_bilinear_maps(name):
    count = sum(len(bilinear_basis(u, v, w, name)) for u, v, w in TRIPLES)
    assert count == COUNTS[name]


def character(irrep, g):
    """From the angle of rotation alone."""
    det = torch.linalg.det(g).round()
    turn = det[:, None, None] * g
    angle = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)
    angle = angle.acos()
    m = torch.arange(-irrep.l, irrep.l + 1)
    chi = (angle[:, None] * m).cos().sum(1)
    return chi * torch.where(det < 0, irrep.p, 1)


def test_characters():
    angle = torch.tensor([0.3, 1.7], dtype=torch.float64)
    g = torch.diag_embed(torch.stack([angle.cos(), angle.cos(),
                                      torch.ones(2).double()], 1))
    g[:, 0, 1], g[:, 1, 0] = -angle.sin(), angle.sin()
    for l in range(4):
        chi = ((2 * l + 1) * angle / 2).sin() / (angle / 2).sin()
        assert torch.allclose(character(o3.Irrep(l, 1), g), chi)


@pytest.mark.parametrize('name', [
    '1', 'Inv', 'M', 'F', 'C2', 'C3', 'C5', 'C6', 'C7', 'D2', 'D3', 'D6', 'T',
    'O', 'I', 'TxInv', 'OxInv', 'IxInv', 'C3xM', 'D3xInv'])
def test_counts_follow_from_characters(name):
    g = Group(name).elements
    irreps = [o3.Irrep(l, p) for l in range(4) for p in (1, -1)]
    chi = {ir: character(ir, g) for ir in irreps}
    for v, w in itertools.combinations_with_replacement(irreps, 2):
        expected = float((chi[v] * chi[w]).mean())
        assert abs(len(linear_basis(v, w, name)) - expected) < 1e-6
    for u, v, w in itertools.combinations_with_replacement(
            ['0o', '1o', '1e', '2e', '3o'], 3):
        u, v, w = (o3.Irrep(ir) for ir in (u, v, w))
        expected = float((chi[u] * chi[v] * chi[w]).mean())
        assert abs(len(bilinear_basis(u, v, w, name)) - expected) < 1e-6


@pytest.mark.parametrize('name', GROUPS)
def test_bilinear_maps(name):
    R = sample(name)
    for u, v, w in TRIPLES[::3]:
        B = bilinear_basis(u, v, w, name)
        assert B.shape[1:] == (w.dim, u.dim, v.dim)
        assert B.dtype == torch.float64
        if not len(B):
            continue
        gram = B.flatten(1) @ B.flatten(1).T
        assert (gram - torch.eye(len(B))).abs().max() < 1e-12
        Du, Dv, Dw = (FieldType(r, name).matrix(R) for r in (u, v, w))
        left = torch.einsum('gwx,sxuv->gswuv', Dw, B)
        right = torch.einsum('swxy,gxu,gyv->gswuv', B, Du, Dv)
        assert (left - right).abs().max() < 1e-12


@pytest.mark.parametrize('name', GROUPS)
def test_linear_maps(name):
    R = sample(name)
    types = ['0e', '0o', '1o', '1e', '2e', '2x1o', '0e + 1o', '3o']
    for v, w in itertools.product(types, repeat=2):
        B = linear_basis(v, w, name)
        V, W = FieldType(v, name), FieldType(w, name)
        assert B.shape[1:] == (W.dim, V.dim)
        gram = B.flatten(1) @ B.flatten(1).T
        assert torch.allclose(gram, torch.eye(len(B)).double(), atol=1e-12)
        defect = W.matrix(R)[:, None] @ B - B @ V.matrix(R)[:, None]
        assert not len(B) or defect.abs().max() < 1e-12


def test_no_map_is_missed_outside():
    # More symmetry, fewer maps.
    chain = ['1', 'C2', 'C4', 'SO(2)', 'SO(2)xF', 'SO(3)', 'O(3)']
    counts = [len(linear_basis('1o + 2e', '1o + 2e', g)) for g in chain]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 2


def test_known_maps():
    cross = bilinear_basis('1o', '1o', '1e', 'O(3)')
    u, v = torch.randn(2, 3).double()
    w = torch.einsum('swuv,u,v->sw', cross, u, v)[0]
    assert torch.allclose(w.abs() / w.norm(),
                          torch.linalg.cross(u, v).abs() /
                          torch.linalg.cross(u, v).norm())
    axis = linear_basis('0e', '1o', 'SO(2)')
    z = torch.tensor([[[0.], [0.], [1.]]], dtype=torch.float64)
    assert torch.allclose(axis, z, rtol=0, atol=1e-14)
    eye = linear_basis('1o', '1o', 'O(3)')
    assert torch.allclose(eye[0], torch.eye(3).double() / 3**0.5)


CANONICAL = ['SO(2)', 'SO(2)xMxInv', 'D3', 'O', 'I', 'C4xM']
SOME = [('1o', '2e', '3o'), ('2e', '2e', '2e'), ('1e', '1o', '2o')]


@pytest.mark.parametrize('name', CANONICAL)
def test_bases_do_not_depend_on_generators(name, fresh):
    group = Group(name)
    expected = [bilinear_basis(*t, group) for t in SOME]
    noise = torch.Generator().manual_seed(0)
    noise = 1e-15 * torch.randn(group.generators.shape, generator=noise,
                                dtype=torch.float64)
    others = [group.generators.flip(0), group.generators + noise,
              group.sample(6, generator=torch.Generator().manual_seed(5))]
    for generators in others:
        other = Group.from_generators(generators)
        assert other == group
        intertwiners._invariants.cache_clear()
        for t, B in zip(SOME, expected):
            assert torch.allclose(bilinear_basis(*t, other), B, rtol=0,
                                  atol=1e-12)


@pytest.mark.parametrize('name', ['D4', 'O', 'I', 'SO(2)xM'])
def test_equal_groups_with_elements_in_another_order(name, fresh):
    """What is cached of one may be used for the other."""
    one = Group(name)
    g = one.generators
    other = Group.from_generators(torch.stack([*g.flip(0), g[0] @ g[-1]]))
    assert one == other
    linear_basis('1o', '1o', one)
    mixed = linear_basis('1o', '3o', other), bilinear_basis('1o', '2e', '3o',
                                                            other)
    intertwiners._invariants.cache_clear()
    again = linear_basis('1o', '3o', one), bilinear_basis('1o', '2e', '3o',
                                                          one)
    for a, b in zip(mixed, again):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize('threads', [1, 2, 4])
def test_bases_do_not_depend_on_threads(threads, fresh):
    before = torch.get_num_threads()
    expected = [bilinear_basis(*t, n) for n in CANONICAL for t in SOME]
    try:
        torch.set_num_threads(threads)
        intertwiners._invariants.cache_clear()
        again = [bilinear_basis(*t, n) for n in CANONICAL for t in SOME]
    finally:
        torch.set_num_threads(before)
    for a, b in zip(again, expected):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_bases_in_another_process(tmp_path):
    code = ('import sys, torch\n'
            'from pyg_steerable.intertwiners import bilinear_basis\n'
            f'names, some = {CANONICAL!r}, {SOME!r}\n'
            'torch.save([bilinear_basis(*t, n) for n in names for t in some],'
            ' sys.argv[1])\n')
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONHASHSEED': '7'}
    subprocess.run([sys.executable, '-c', code, str(tmp_path / 'b.pt')],
                   check=True, env=env)
    again = iter(torch.load(tmp_path / 'b.pt'))
    for n, t in itertools.product(CANONICAL, SOME):
        assert torch.allclose(bilinear_basis(*t, n), next(again), rtol=0,
                              atol=1e-12)


def test_order_of_factors_is_layout_only():
    a = bilinear_basis('1o', '2e', '3o', 'D3')
    b = bilinear_basis('2e', '1o', '3o', 'D3')
    assert torch.equal(a, b.transpose(2, 3))
    c = bilinear_basis('3o', '2e', '1o', 'D3')
    assert torch.equal(a, c.transpose(1, 2))


@pytest.mark.parametrize('name', ['C4', 'D3', 'T', 'C3xInv'])
def test_custom_representations(name):
    group = Group(name)
    n, rho = group.order, Representation.regular(name)
    # Frobenius: Hom(V, regular) has dim V maps.
    for irrep in ('0e', '1o', '2e', '1e'):
        assert len(linear_basis(irrep, rho, name)) == o3.Irrep(irrep).dim
    assert len(linear_basis(rho, rho, name)) == n
    assert len(bilinear_basis('1o', rho, rho, name)) == 3 * n
    T = FieldType([(1, rho), (2, '1o')], name)
    R = group.elements
    B = linear_basis(T, rho, name)
    assert len(B) == n + 6
    defect = rho(R)[:, None] @ B - B @ T.matrix(R)[:, None]
    assert defect.abs().max() < 1e-10
    B = bilinear_basis(rho, '1o', '2e', name)
    D2, D1 = (FieldType(i, name).matrix(R) for i in ('2e', '1o'))
    left = torch.einsum('gwx,sxuv->gswuv', D2, B)
    right = torch.einsum('swxy,gxu,gyv->gswuv', B, rho(R), D1)
    assert (left - right).abs().max() < 1e-10


def test_custom_representation_of_a_continuous_group():
    group = Group('SO(2)xM')
    plane = Representation(group, group.generators[:, :2, :2], 'plane')
    assert len(linear_basis(plane, '1o', group)) == 1
    assert len(linear_basis(plane, plane, group)) == 1
    assert len(bilinear_basis(plane, plane, '0e', group)) == 1
    assert len(linear_basis(plane, '0e', group)) == 0
    group = Group('O(3)')
    vector = Representation(group, group.generators, 'vector')
    B = linear_basis('1o', vector, group)
    assert torch.allclose(B.abs(), torch.eye(3).double() / math.sqrt(3),
                          atol=1e-12)


def test_groups_of_a_type_must_agree():
    with pytest.raises(ValueError, match='C4'):
        linear_basis(Representation.regular('C4'), '1o', 'C3')
