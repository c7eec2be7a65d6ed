"""Every named group comes from one table: all names in it are tried, those
added later, too.
"""
import math

import numpy as np
import pytest
import torch

from pyg_steerable import FieldType, Group
from pyg_steerable.symmetry import generators
from pyg_steerable.symmetry.generators import (
    ALIASES,
    EXTENSIONS,
    FAMILIES,
    GROUPS,
    MAX_NUMBER,
    named_generators,
    rotation,
    rotations,
)

SINGLE = [*GROUPS, *(f'{family}{n}' for family in FAMILIES for n in (2, 3, 4))]
ALL = [name + extension for name in SINGLE for extension in EXTENSIONS]


@pytest.mark.parametrize('name', ALL)
def test_every_name(name):
    group = Group(name)
    R = group.sample(5)
    assert torch.allclose(R @ R.mT, torch.eye(3, dtype=torch.float64))
    assert all(group.contains(g) for g in R[:-1] @ R[1:])
    if group.is_finite:
        assert len(group._members(group.elements.numpy(), 1e-5)) == (
            group.order)
    D = FieldType('1o + 2e', group).matrix(R)
    assert torch.allclose(D @ D.mT, torch.eye(8, dtype=torch.float64))
    # Found again without its name, and with no more factors.
    other = Group.from_generators(group.generators.flip(0))
    assert other == group and Group(other.known_name) == group
    assert other.known_name.count('x') <= name.count('x')


@pytest.mark.parametrize('name', SINGLE)
def test_names_are_found_again(name):
    assert Group.from_generators(Group(name).generators).known_name == name


def test_aliases():
    for alias, name in ALIASES.items():
        assert Group(alias) == Group(name)


def test_groups_without_a_name():
    assert Group('C4', axis='x').known_name is None
    assert Group('SO(2)', axis=[1, 1, 1]).known_name is None


def test_error_lists_the_table():
    for name in (f'C{MAX_NUMBER + 1}', 'C0', 'Q', '', 'C4x', 'xM', 'CxM', '4'):
        with pytest.raises(ValueError, match='from_generators') as error:
            named_generators(name)
        for known in (*GROUPS, *ALIASES, *(f'{f}<n>' for f in FAMILIES)):
            assert known in str(error.value)
    assert Group(f'C{MAX_NUMBER}').order == MAX_NUMBER


def test_a_new_name_is_known_everywhere(monkeypatch):
    """A line in the table will do: nothing else lists names."""
    monkeypatch.setitem(GROUPS, 'Y6', [rotation((0, 1, 0), math.pi / 3)])
    monkeypatch.setitem(FAMILIES, 'S', lambda n: [
        rotation((0, 0, 1), math.pi / n) @ np.diag([1., 1., -1.])])
    monkeypatch.setitem(ALIASES, 'hexagon', 'Y6')
    assert Group('Y6').order == Group('hexagon').order == 6
    assert Group('S3xM').order == 12
    assert Group('Y6') == Group('C6', axis='y')
    assert Group('C6', axis='y').known_name == 'Y6'
    assert Group.from_generators(Group('S2').generators).known_name == 'S2'
    with pytest.raises(ValueError, match='Y6.*hexagon.*S<n>'):
        Group('Y7')


def test_rotations():
    """Rodrigues' formula against the exponential of the generator."""
    axis, angles = np.random.randn(3), 7 * np.random.randn(5)
    x, y, z = axis / np.linalg.norm(axis)
    K = torch.tensor([[0., -z, y], [z, 0., -x], [-y, x, 0.]],
                     dtype=torch.float64)
    expected = torch.linalg.matrix_exp(K * torch.from_numpy(
        angles)[:, None, None])
    assert np.allclose(rotations(axis, angles), expected, atol=1e-12)
    assert np.array_equal(rotation(axis, angles[1]),
                          rotations(axis, angles)[1])
    assert generators.rotations(axis, []).shape == (0, 3, 3)
