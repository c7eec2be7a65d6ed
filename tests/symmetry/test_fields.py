import copy
import pickle

import pytest
import torch
from e3nn import o3
from helpers.fields import elements, regular

from pyg_steerable import FieldType, Group, Representation

TYPE = '2x0e + 1x0o + 3x1o + 1x1e + 1x2e + 1x3o'


def test_layout_is_that_of_e3nn():
    T, irreps = FieldType(TYPE, 'SO(2)'), o3.Irreps(TYPE)
    assert T.irreps == irreps
    assert T.dim == irreps.dim
    assert T.slices == irreps.slices()
    assert T.num_fields == irreps.num_irreps == 9
    assert T.max_degree == 3
    assert len(T) == 6
    R = elements('O(3)')
    assert (T.matrix(R) - irreps.D_from_matrix(R)).abs().max() < 1e-5


def test_transform():
    T = FieldType(TYPE, 'O(3)')
    R = elements(n=4)
    x = torch.randn(4, 7, T.dim, dtype=torch.float64)
    for g in R:
        expected = torch.einsum('ij,abj->abi', T.matrix(g), x)
        assert torch.allclose(T.transform(x, g), expected, atol=1e-12)
    rows = T.transform(x[:, 0], R)
    expected = [T.matrix(g) @ y for g, y in zip(R, x[:, 0])]
    assert torch.allclose(rows, torch.stack(expected), atol=1e-12)


def test_transform_keeps_dtype_and_gradient():
    T = FieldType('1o', 'SO(3)')
    x = torch.randn(5, 3, requires_grad=True)
    y = T.transform(x, elements('SO(3)', 1)[0])
    assert y.dtype == torch.float32
    y.square().sum().backward()
    assert torch.allclose(x.grad, 2 * x, atol=1e-5)


def test_blocks_are_copies_of_components():
    T = FieldType('2x1o', 'O(3)')
    R = elements(n=1)[0]
    x = torch.randn(6, dtype=torch.float64)
    assert torch.allclose(T.transform(x, R).view(2, 3), x.view(2, 3) @ R.T)


def test_sphere():
    T = FieldType.sphere(4, 2, 'SO(2)')
    assert T == FieldType('4x0e + 4x1o + 4x2e', 'SO(2)')
    assert FieldType.sphere(0, 2, 'O(3)').dim == 0
    assert FieldType.sphere(3, 0).group == Group('O(3)')
    with pytest.raises(ValueError, match='non-negative'):
        FieldType.sphere(-1, 2)


def test_restrict():
    T = FieldType(TYPE, 'O(3)')
    assert T.restrict('SO(2)') == FieldType(TYPE, 'SO(2)')
    with pytest.raises(ValueError, match='subgroup'):
        FieldType(TYPE, 'SO(2)').restrict('SO(3)')
    with pytest.raises(ValueError, match='subgroup'):
        FieldType(TYPE, 'SO(2)').restrict('M')
    T = FieldType([(2, regular('O')), (1, '1o')], 'O')
    small = T.restrict('D4')
    R = Group('D4').elements
    assert small.group == Group('D4') and small.dim == 51
    assert torch.allclose(small.matrix(R), T.matrix(R), atol=1e-9)


@pytest.mark.parametrize('irreps, group, expected', [
    ('3x0e', 'O(3)', True), ('0o', 'O(3)', False), ('0o', 'SO(3)', True),
    ('1o', 'SO(2)', False), ('0e + 2e', '1', True), ('1o', '1', True),
    ('1e', 'Inv', True), ('1o', 'Inv', False), ('0o', 'SO(2)xM', False),
    ('', 'O(3)', True)])
def test_is_invariant(irreps, group, expected):
    assert FieldType(irreps, group).is_invariant == expected


def test_ways_to_write_a_type():
    T = FieldType('2x0e + 1x1o', 'SO(2)')
    vector = o3.Irrep('1o')
    for same in (o3.Irreps('2x0e+1x1o'), [(2, '0e'), (1, '1o')],
                 [(2, '0e'), vector], [(2, '0e'), '1o'], '2x0e+1o',
                 '2x0e + 0x2e + 1o', [(2, (0, 1)), (1, vector)], T):
        assert FieldType(same, 'SO(2)') == T
    assert FieldType(vector) == FieldType('1o') == FieldType([vector])
    assert FieldType(regular('C4'), 'C4').dim == 4
    assert FieldType.wrap(T) is T
    assert FieldType.wrap('2x0e+1o', 'SO(2)') == T
    assert FieldType([], 'SO(2)').dim == 0
    assert FieldType([], 'SO(2)').matrix(elements(n=2)).shape == (2, 0, 0)


def test_addition():
    a, b = FieldType('2x0e', 'C4'), FieldType('1o', 'C4')
    assert a + b == FieldType('2x0e + 1o', 'C4')
    assert b + a != a + b
    assert a + FieldType('', 'C4') == a
    with pytest.raises(ValueError, match='one group'):
        a + FieldType('1o', 'C3')
    with pytest.raises(TypeError):
        a + '1o'


@pytest.mark.parametrize('T', [
    FieldType(TYPE, 'SO(2)'), FieldType([], 'O(3)'),
    FieldType([(2, regular('C4')), (1, '1o')], 'C4')], ids=str)
def test_values(T):
    for other in (copy.deepcopy(T), pickle.loads(pickle.dumps(T)),
                  FieldType(T, T.group), FieldType(T.blocks, T.group)):
        assert other == T and hash(other) == hash(T)
        assert repr(other) == repr(T)
    assert T != FieldType('7x0e', T.group)
    assert T != str(T)


def test_repr():
    assert repr(FieldType('2x0e+1o', 'SO(2)')) == \
        'FieldType(2x0e+1x1o, SO(2))'
    assert repr(FieldType([(3, regular('C4'))], 'C4')) == \
        'FieldType(3xregular(C4), C4)'
    assert repr(FieldType('', 'C4')) == 'FieldType(0, C4)'


@pytest.mark.parametrize('make, error, match', [
    (lambda: FieldType('2x0q'), ValueError, 'notation'),
    (lambda: FieldType('one'), ValueError, 'notation'),
    (lambda: FieldType(3.5), ValueError, 'notation'),
    (lambda: FieldType('12e'), ValueError, 'degrees up to 11'),
    (lambda: FieldType([(1, 'zz')]), ValueError, 'irrep of O'),
    (lambda: FieldType([(1, regular('C4'))], 'C3'), ValueError,
     'representations of'),
    (lambda: FieldType('1o', 'nope'), ValueError, "Expected 'name'"),
    (lambda: FieldType.wrap('1o'), TypeError, 'Build one with'),
    (lambda: FieldType('1o').transform(torch.zeros(2, 4), torch.eye(3)),
     ValueError, 'last dimension'),
    (lambda: FieldType([(1, regular('C4'))], 'C4').irreps, ValueError,
     'given by matrices'),
    (lambda: FieldType('-2x1o'), ValueError, 'notation|negative'),
    (lambda: FieldType([(-2, '1o')]), ValueError, 'negative'),
    (lambda: FieldType([(1, '1o', 3)]), ValueError, 'copies'),
    (lambda: FieldType([(1.5, '1o')]), ValueError, 'copies|integer'),
])
def test_bad_types(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize('R, words', [
    (2 * torch.eye(3), 'orthogonal'),
    (elements('O(3)', 1)[0], 'elements of'),
    (torch.full((3, 3), float('nan')), 'orthogonal'),
    (torch.eye(2), r'\[\*, 3, 3\]'),
    (torch.eye(3).expand(4, 3, 3), 'one for each row'),
    (torch.eye(3).bool(), "'R'"),
    (torch.eye(3, device='meta'), "'R'"),
    ('C4', "'R'"),
    (None, "'R'"),
])
def test_only_elements_of_the_group_act(R, words):
    T = FieldType('1x0e + 1x1o', 'C4')
    with pytest.raises((ValueError, TypeError), match=words):
        T.transform(torch.randn(5, 4), R)


def test_act_turns_irreps_outside_of_the_group_too():
    T, R = FieldType('1x0e + 1x1o', 'C4'), elements('O(3)', 1)[0]
    x = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(T.act(x, R), x @ T.matrix(R).T, atol=1e-12)
    with pytest.raises(ValueError, match='orthogonal'):
        T.act(x, 2 * R)


@pytest.mark.parametrize('make, words', [
    (lambda: FieldType.sphere(1, 2**31), 'max_degree'),
    (lambda: FieldType.sphere(2**31, 1), 'channels'),
    (lambda: FieldType('99999999999x0e'), 'copies|components'),
    (lambda: FieldType([(1.5, '1o')]), 'copies'),
    (lambda: FieldType(None), 'irreps'),
    (lambda: FieldType('1o', ['SO(2)']), "'group'"),
    (lambda: FieldType('1o', None), "'group'"),
    (lambda: Group('C' + 5000 * '9'), "'name'"),
    (lambda: Group('C4', axis=[0, 0, 'z']), "'axis'"),
    (lambda: Group('SO(3)').sample(-1), "'n'"),
    (lambda: Group('SO(3)').sample(2**40), "'n'"),
    (lambda: Group('SO(3)').design(10**6), "'degree'"),
    (lambda: Group('SO(3)').sample(2, generator=3), "'generator'"),
    (lambda: Group.from_generators(torch.eye(3).expand(2000, 3, 3)), '2000'),
    (lambda: Representation.regular('C250xM'), '500'),
])
def test_huge_and_odd_arguments(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_tiny_and_huge_axes():
    for size in (1e-300, 1e300):
        assert Group('C4', axis=[0., size, size]) == Group(
            'C4', axis=[0., 1., 1.])
