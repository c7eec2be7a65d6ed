"""What interop does without escnn."""
import sys

import pytest
import torch

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.interop import (
    e3nn_basis,
    from_escnn,
    group_from_escnn,
    to_irreps,
)


@pytest.mark.parametrize('function', [from_escnn, group_from_escnn])
def test_missing_escnn_names_the_fix(function, monkeypatch):
    monkeypatch.setitem(sys.modules, 'escnn', None)
    monkeypatch.setitem(sys.modules, 'escnn.group', None)
    with pytest.raises(ImportError, match='pip install --no-deps escnn'):
        function(object())


def test_to_irreps():
    assert str(to_irreps('2x0e + 1o')) == '2x0e+1x1o'
    assert str(to_irreps(FieldType('3x2e', 'SO(2)'))) == '3x2e'
    regular = FieldType([(1, Representation.regular('C4'))], 'C4')
    with pytest.raises(ValueError, match='given by matrices'):
        to_irreps(regular)


@pytest.mark.parametrize('name', ['SO(3)', 'O(3)'])
def test_e3nn_basis(name):
    group = Group(name)
    R = group.generators
    yzx = torch.eye(3, dtype=torch.float64)[[1, 2, 0]]
    tensor = torch.einsum('gij,gkl->gikjl', R, R).reshape(-1, 9, 9)
    reps = [(2, Representation(group, yzx @ R @ yzx.T, 'yzx')), (1, '2e'),
            (1, Representation(group, tensor, 'tensor'))]
    ours = FieldType(reps, group)
    theirs, Q = e3nn_basis(ours)
    degree_one = '1e' if name == 'O(3)' else '1o'
    assert str(theirs.irreps) == f'2x1o+1x2e+1x0e+1x{degree_one}+1x2e'
    assert torch.allclose(Q @ Q.T, torch.eye(20, dtype=torch.float64))
    assert torch.allclose(Q[:3, :3], yzx.T)
    g = group.sample(4)
    assert torch.allclose(theirs.matrix(g), Q @ ours.matrix(g) @ Q.T)


def test_e3nn_basis_of_a_subgroup():
    with pytest.raises(ValueError, match='SO\\(3\\) or O\\(3\\)'):
        e3nn_basis(FieldType('1o', 'SO(2)'))
