import copy
import itertools
import math
import pickle

import pytest
import torch
from e3nn import o3

from pyg_steerable import FieldType, Group
from pyg_steerable.symmetry import generators
from pyg_steerable.symmetry.representations import wigner_D

INF = math.inf
ORDER = {
    '1': 1, 'Inv': 2, 'M': 2, 'F': 2, 'C1': 1, 'C2': 2, 'C3': 3, 'C4': 4,
    'C6': 6, 'D2': 4, 'D3': 6, 'D4': 8, 'T': 12, 'O': 24, 'I': 60,
    'C2xM': 4, 'C4xM': 8, 'C4xF': 8, 'C4xInv': 8, 'C3xInv': 6, 'D3xM': 12,
    'D3xInv': 12, 'D4xInv': 16, 'TxM': 24, 'TxInv': 24, 'OxM': 48,
    'OxInv': 48, 'IxInv': 120, 'IxM': 120, 'SO(2)': INF, 'SO(2)xM': INF,
    'SO(2)xF': INF, 'SO(2)xInv': INF, 'SO(2)xMxInv': INF, 'O(2)': INF,
    'SO(3)': INF, 'SO(3)xM': INF, 'O(3)': INF
}
FINITE = [name for name in ORDER if ORDER[name] < INF]
CONTINUOUS = [name for name in ORDER if ORDER[name] == INF]


def rotation(axis, angle):
    return torch.from_numpy(generators.rotation(axis, angle))


GOLDEN = math.pi * (3 - math.sqrt(5))
RZ = rotation((0, 0, 1), 0.3)
RX = rotation((1, 0, 0), 0.3)
F = rotation((1, 0, 0), math.pi)
M = torch.diag(torch.tensor([-1., 1., 1.], dtype=torch.float64))
INV = -torch.eye(3, dtype=torch.float64)
MZ = torch.diag(torch.tensor([1., 1., -1.], dtype=torch.float64))


def haar_projector(group, reps):
    """Invariants of a type, from the null space of its generators: no use of
    :meth:`Group.design`.
    """
    D = FieldType(reps, group).matrix(group.generators)
    eye = torch.eye(D.shape[-1], dtype=torch.float64)
    normal = sum((2 * eye - d - d.T for d in D), torch.zeros_like(eye))
    value, vector = torch.linalg.eigh(normal)
    null = vector[:, value < 1e-9]
    return null @ null.T


@pytest.mark.parametrize('name', list(ORDER))
def test_order(name):
    group = Group(name)
    assert group.order == ORDER[name]
    assert group.is_finite == (ORDER[name] < INF)
    assert group.dim == (0 if name in FINITE else 3 if '3)' in name else 1)
    assert group.generators.dtype == torch.float64


@pytest.mark.parametrize('name', FINITE)
def test_elements_form_a_group(name):
    group = Group(name)
    g = group.elements
    assert g.shape == (group.order, 3, 3)
    overlap = g.flatten(1) @ g.flatten(1).T  # 3 on the diagonal only
    assert (overlap > 3 - 1e-6).sum() == len(g)
    products = torch.einsum('aij,bjk->abik', g, g).flatten(0, 1).flatten(1)
    best = (products @ g.flatten(1).T).max(dim=1).values
    assert (best - 3).abs().max() < 1e-10
    assert (g @ g.mT - torch.eye(3)).abs().max() < 1e-12


@pytest.mark.parametrize('name', CONTINUOUS)
def test_continuous_groups_list_no_elements(name):
    with pytest.raises(ValueError, match='finite group'):
        _ = Group(name).elements
    components = {'SO(2)': 1, 'SO(2)xMxInv': 4, 'SO(3)': 1}.get(name, 2)
    assert len(Group(name).components) == components


MEMBERS = {  # Rz(0.3), Rx(0.3), F, M, Inv, mirror along z
    '1': '000000', 'M': '000100', 'Inv': '000010', 'F': '001000',
    'SO(2)': '100000', 'SO(2)xM': '100100', 'SO(2)xF': '101000',
    'SO(2)xInv': '100011', 'SO(2)xMxInv': '101111', 'O(2)': '100100',
    'SO(3)': '111000', 'O(3)': '111111', 'T': '001000', 'O': '001000',
    'I': '001000', 'C4': '000000', 'D4': '001000', 'OxInv': '001111',
    'C4xM': '000100', 'C3xInv': '000010'
}


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('name', list(MEMBERS))
def test_membership(name, dtype):
    group = Group(name)
    for R, expected in zip((RZ, RX, F, M, INV, MZ), MEMBERS[name]):
        R = torch.as_tensor(R).to(dtype)
        assert group.contains(R) == (expected == '1')
    for R in group.sample(5, dtype=dtype):
        assert group.contains(R)


def test_membership_of_nearby_elements():
    near = rotation((0, 0, 1), math.pi / 2 + 1e-7)
    far = rotation((0, 0, 1), math.pi / 2 + 1e-3)
    assert Group('C4').contains(near)
    assert not Group('C4').contains(far)
    tilted = rotation((1e-3, 0, 1), 0.3)
    assert not Group('SO(2)').contains(tilted)


@pytest.mark.parametrize('axis', ['x', 'y', (1., 1., 1.), (0., 0., -1.)])
@pytest.mark.parametrize('name', ['SO(2)', 'SO(2)xF', 'C4', 'D3', 'I'])
def test_axis(name, axis):
    v = {'x': (1., 0., 0.), 'y': (0., 1., 0.)}.get(axis, axis)
    v = torch.tensor(v, dtype=torch.float64)
    v = v / v.norm()
    group = Group(name, axis=axis)
    assert group.order == ORDER[name]
    fold = {'C4': 4, 'D3': 3, 'I': 2}.get(name, 7)
    assert group.contains(rotation(v, 2 * math.pi / fold))
    assert (group == Group(name)) == (name != 'C4' and axis == (0., 0., -1.)
                                      or name == 'C4' and axis[0] == 0.)
    if group.dim == 1:
        assert abs(abs(float(group.axis @ v)) - 1) < 1e-12


def test_axis_of_an_isotropic_group():
    assert Group('SO(3)', axis='x') == Group('SO(3)')
    assert Group('Inv', axis=(1, 2, 3)) == Group('Inv')
    assert Group('M', axis='x') == Group.from_generators([MZ])


EQUAL = {
    'SO(2)': [[RZ], [rotation((0, 0, 1), 1.)], [RZ, RZ @ RZ],
              [rotation((0, 0, 1), math.sqrt(2))],
              [rotation((0, 0, -1), GOLDEN)],
              [rotation((0, 0, 1), 2 * math.pi / 5000)]],
    'SO(2)xM': [[RZ, M], [M, RZ], [M, RZ @ M]],
    'SO(2)xF': [[F, RZ], [F, RZ @ F]],
    'SO(2)xInv': [[INV @ RZ], [MZ, RZ]],
    'SO(2)xMxInv': [[M, F, RZ], [INV, RZ, M], [MZ, M @ RZ, M]],
    'SO(3)': [[RZ, RX], [RX, RZ], [F, rotation((1, 2, 3), 1.)],
              [rotation((0, 0, 1), math.pi / 2), RX]],
    'O(3)': [[RZ, RX, INV], [M, RX, RZ], [INV @ RZ, RX]],
    'C4': [[rotation((0, 0, 1), -math.pi / 2)],
           [rotation((0, 0, 1), math.pi), rotation((0, 0, 1), math.pi / 2)]],
    'D3': [[F, rotation((0, 0, 1), 2 * math.pi / 3)],
           [F, rotation((0, 0, 1), 2 * math.pi / 3) @ F]],
    'O': [[rotation((1, 0, 0), math.pi / 2), rotation((0, 0, 1),
                                                      math.pi / 2)]],
    'OxInv': [[rotation((1, 0, 0), math.pi / 2),
               rotation((0, 1, 0), math.pi / 2), M]],
    '1': [[], [torch.eye(3)]],
}


@pytest.mark.parametrize('name', list(EQUAL))
def test_generators_do_not_matter(name):
    named = Group(name)
    for matrices in EQUAL[name]:
        group = Group.from_generators(matrices)
        assert group == named and named == group
        assert hash(group) == hash(named)
        assert group.order == named.order


@pytest.mark.parametrize('angle', [1e-3, 1., 3.1415])
def test_axis_is_found_exactly(angle):
    for v in torch.randn(20, 3, dtype=torch.float64):
        v = v / v.norm()
        group = Group.from_generators([rotation(v, angle)])
        assert group.dim == 1
        assert abs(abs(float(group.axis @ v)) - 1) < 1e-14


@pytest.mark.parametrize('name', list(ORDER))
def test_permuted_and_perturbed_generators(name):
    named = Group(name)
    generators = named.generators
    for order in itertools.permutations(range(len(generators))):
        assert Group.from_generators(generators[list(order)]) == named
    noise = torch.Generator().manual_seed(0)
    noise = torch.randn(generators.shape, generator=noise,
                        dtype=torch.float64)
    assert Group.from_generators(generators + 1e-15 * noise) == named
    assert Group.from_generators(generators.float()) == named


SUBGROUPS = {
    '1': ['Inv', 'M', 'F', 'SO(2)', 'C5', 'I', 'O(3)'],
    'Inv': ['SO(2)xInv', 'SO(2)xMxInv', 'OxInv', 'IxInv', 'O(3)'],
    'M': ['SO(2)xM', 'SO(2)xMxInv', 'C4xM', 'O(3)'],
    'F': ['SO(2)xF', 'D3', 'T', 'O', 'I', 'SO(3)'],
    'C2': ['C4', 'C6', 'D2', 'T', 'O', 'I', 'SO(2)'],
    'C3': ['C6', 'D3', 'SO(2)'],
    'D2': ['T', 'O', 'I', 'D4', 'SO(2)xF'],
    'T': ['O', 'I', 'SO(3)', 'TxInv'],
    'O': ['OxInv', 'SO(3)', 'O(3)'],
    'I': ['IxInv', 'SO(3)', 'O(3)'],
    'SO(2)': ['SO(2)xM', 'SO(2)xF', 'SO(2)xInv', 'SO(2)xMxInv', 'SO(3)'],
    'SO(2)xM': ['SO(2)xMxInv', 'O(3)'],
    'SO(2)xF': ['SO(2)xMxInv', 'SO(3)', 'O(3)'],
    'SO(2)xInv': ['SO(2)xMxInv', 'O(3)'],
    'SO(2)xMxInv': ['O(3)'],
    'SO(3)': ['O(3)'],
}
NOT_SUBGROUPS = [('SO(2)', 'C6'), ('SO(3)', 'SO(2)'), ('O(3)', 'SO(3)'),
                 ('M', 'SO(3)'), ('Inv', 'SO(2)xM'), ('F', 'SO(2)xM'),
                 ('C4', 'T'), ('O', 'I'), ('I', 'O'), ('C3', 'T'),
                 ('C4', 'C6'), ('SO(2)xM', 'SO(2)xF'), ('M', 'SO(2)xInv'),
                 ('SO(2)xF', 'SO(2)xInv'), ('O(3)', '1')]


@pytest.mark.parametrize('small', list(SUBGROUPS))
def test_subgroups(small):
    assert Group(small).is_subgroup_of(small)
    for large in SUBGROUPS[small]:
        assert Group(small).is_subgroup_of(large), large
        assert not Group(large).is_subgroup_of(small), large
        assert Group(large) != Group(small)


@pytest.mark.parametrize('small, large', NOT_SUBGROUPS)
def test_not_subgroups(small, large):
    assert not Group(small).is_subgroup_of(large)


def test_subgroups_about_another_axis():
    assert not Group('SO(2)', axis='x').is_subgroup_of('SO(2)xMxInv')
    assert Group('SO(2)', axis='x').is_subgroup_of('SO(3)')
    assert Group('C4', axis='y').is_subgroup_of('O')
    assert Group('C3', axis=(1, 1, 1)).is_subgroup_of('T')
    assert not Group('C3').is_subgroup_of('T')
    assert Group('C5', axis=(0, 1, (1 + 5**0.5) / 2)).is_subgroup_of('I')
    assert Group('F').is_subgroup_of(Group('SO(2)', axis='x'))


@pytest.mark.parametrize('name', ['1', 'M', 'D3', 'O', 'SO(2)', 'SO(2)xF',
                                  'SO(2)xMxInv', 'SO(3)', 'O(3)'])
def test_samples_are_haar_distributed(name):
    group = Group(name)
    n = 20000
    g = group.sample(n, generator=torch.Generator().manual_seed(1))
    assert g.shape == (n, 3, 3) and g.dtype == torch.float64
    reps = '1o + 1e + 2e + 3o'
    mean = FieldType(reps, group).matrix(g[:5000]).mean(0)
    # Entries have variance below 1, and there are 324 of them.
    assert (mean - haar_projector(group, reps)).abs().max() < 5 / 5000**0.5
    components = group.components
    c = len(components)
    if group.dim == 1:
        label = torch.stack([
            (g @ group.axis @ group.axis).sign(), torch.linalg.det(g)], 1)
        known = torch.stack([(components @ group.axis @ group.axis).sign(),
                             torch.linalg.det(components)], 1)
    elif group.dim == 3:
        label = torch.linalg.det(g)[:, None]
        known = torch.linalg.det(components)[:, None]
    else:
        label, known = g.flatten(1), components.flatten(1)
    share = torch.cdist(label, known).argmin(1).bincount(minlength=c) / n
    assert (share - 1 / c).abs().max() < 5 / n**0.5


def test_samples_follow_the_generator():
    a, b = (Group('O(3)').sample(4, generator=torch.Generator().manual_seed(s)
                                 ) for s in (3, 3))
    assert torch.equal(a, b)
    assert not torch.equal(a, Group('O(3)').sample(
        4, generator=torch.Generator().manual_seed(4)))
    assert Group('SO(3)').sample(2, dtype=torch.float32).dtype == \
        torch.float32


@pytest.mark.parametrize('name', ['1', 'Inv', 'C4', 'D3', 'T', 'I', 'SO(2)',
                                  'SO(2)xM', 'SO(2)xMxInv', 'SO(3)', 'O(3)'])
@pytest.mark.parametrize('axis', ['z', (1., 2., -1.)])
def test_designs_average_exactly(name, axis):
    group = Group(name, axis=axis)
    for degree in (0, 1, 2, 5, 6):
        g, weight = group.design(degree)
        assert abs(float(weight.sum()) - 1) < 1e-12 and (weight > 0).all()
        for p in (1, -1):
            mean = torch.einsum('g,gij->ij', weight,
                                wigner_D(o3.Irrep(degree, p), g))
            exact = haar_projector(group, [o3.Irrep(degree, p)])
            assert (mean - exact).abs().max() < 1e-9
    # Products of degrees that add up to that of the design.
    mean = torch.einsum('g,gij->ij', weight,
                        FieldType([(1, '3o')], group).matrix(g).flatten(1)
                        [:, :, None] @ FieldType('3o', group).matrix(
                            g).flatten(1)[:, None])
    again, weight = group.design(14)
    D = FieldType('3o', group).matrix(again).flatten(1)
    assert (mean - torch.einsum('g,ga,gb->ab', weight, D, D)
            ).abs().max() < 1e-12


@pytest.mark.parametrize('name', list(ORDER))
def test_copies(name):
    group = Group(name)
    for other in (copy.deepcopy(group), pickle.loads(pickle.dumps(group)),
                  Group(name), Group.wrap(name), Group.wrap(group)):
        assert other == group and hash(other) == hash(group)
        assert repr(other) == repr(group)
    assert group != Group('C7')
    assert group != name


def test_repr():
    assert repr(Group('SO(2)xM')) == 'Group(SO(2)xM)'
    assert repr(Group('C4', axis='x')) == 'Group(C4, axis=x)'
    assert repr(Group.from_generators([M], name='mine')) == 'Group(mine)'
    assert 'order 2' in repr(Group.from_generators([M]))
    assert 'SO(2)' in repr(Group.from_generators([RZ]))
    assert repr(Group('SO(3)', axis='z')) == 'Group(SO(3))'


def test_state_is_not_shared():
    group = Group('C4')
    group.elements.zero_()
    group.generators.zero_()
    group.components.zero_()
    assert group == Group('C4')
    assert group.elements.abs().sum() > 1


@pytest.mark.parametrize('name', ['', 'SO(4)', 'C0', 'Q', 'SO(2)x', 'xM',
                                  'C-3', 'C9999', 'so(3)', 'SO(2) x M'])
def test_unknown_names(name):
    with pytest.raises(ValueError, match="SO\\(2\\)xMxInv.*got '"):
        Group(name)


@pytest.mark.parametrize('axis', ['w', (0., 0., 0.), (1., 0.),
                                  (math.nan, 0., 1.), (math.inf, 0., 0.)])
def test_bad_axes(axis):
    with pytest.raises(ValueError, match="Expected 'axis'"):
        Group('C4', axis=axis)


@pytest.mark.parametrize('matrices, error, match', [
    ([2 * torch.eye(3)], ValueError, 'orthogonal'),
    ([torch.eye(3), torch.ones(3, 3)], ValueError, 'generator 1'),
    ([torch.full((3, 3), math.nan)], ValueError, 'orthogonal'),
    ([torch.eye(2)], ValueError, '3x3'),
    (torch.eye(3), ValueError, '3x3'),
    ('M', TypeError, '3x3'),
    ([None], (TypeError, ValueError), '3x3|orthogonal'),
])
def test_bad_generators(matrices, error, match):
    with pytest.raises(error, match=match):
        Group.from_generators(matrices)


def test_bad_arguments():
    with pytest.raises(TypeError, match='string'):
        Group(4)
    with pytest.raises(ValueError, match='orthogonal'):
        Group('SO(3)').contains(torch.zeros(3, 3))
