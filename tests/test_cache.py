"""What is remembered is bounded, and keyed by what groups are."""
import numpy as np
import pytest
import torch

from pyg_steerable import FieldType, Group
from pyg_steerable.cache import remember
from pyg_steerable.nn import Linear
from pyg_steerable.symmetry import intertwiners
from pyg_steerable.symmetry.generators import rotation


def conjugates(n, seed=0):
    """Groups of order three about random axes."""
    axes = np.random.default_rng(seed).normal(size=(n, 3))
    return [Group.from_generators([rotation(a, 2 * np.pi / 3)]) for a in axes]


def test_hashes_tell_conjugates_apart():
    groups = conjugates(125) + [Group('SO(2)', axis=a) for a in
                                np.random.default_rng(1).normal(size=(125, 3))]
    assert len({hash(g) for g in groups}) > 245
    # The same sets, found from other generators and turned by rounding.
    for g in groups[:20]:
        noise = 1e-13 * torch.randn(3, 3, dtype=torch.float64)
        other = Group.from_generators(
            [g.generators[0] @ g.generators[0] + noise])
        if g.is_finite:
            assert other == g and hash(other) == hash(g)
    assert groups[0] != groups[1] and groups[125] != groups[126]


@pytest.mark.parametrize('name', ['C4', 'D3', 'O', 'SO(2)xM', 'SO(3)',
                                  'OxInv'])
def test_equal_groups_have_equal_hashes(name):
    group = Group(name)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        if group.is_finite:
            order = torch.randperm(int(group.order), generator=generator)
            matrices = group.elements[order]
        else:
            matrices = torch.cat([group.sample(3, generator=generator),
                                  group.components])
        other = Group.from_generators(matrices)
        assert other == group and hash(other) == hash(group)


def test_all_elements_are_found_whatever_the_number_of_generators():
    group = Group('IxInv')
    again = Group.from_generators(group.elements.repeat(8, 1, 1))
    assert again == group and again.order == 120


def test_oldest_results_are_forgotten():
    calls = []

    @remember(megabytes=1)
    def double(n):
        calls.append(n)
        return torch.full((2**15, ), 2. * n, dtype=torch.float64)  # 256 kB

    for n in (0, 1, 2, 0, 3):  # 3 drives 1 out: 0 was used since
        assert double(n)[0] == 2 * n
    assert calls == [0, 1, 2, 3] and set(double.kept) == {(0, ), (2, ), (3, )}
    assert double(1)[0] == 2 and calls[-1] == 1
    double.cache_clear()
    assert not double.kept


def test_bases_of_many_groups_take_bounded_memory():
    intertwiners._invariants.cache_clear()
    for g in conjugates(60):
        field_type = FieldType('1x0e + 1x1o + 1x2e', g)
        Linear(field_type, field_type)
    kept = intertwiners._invariants.kept
    assert sum(size for _, size in kept.values()) < 16 * 2**20
    # None was computed twice, and none taken for another's.
    assert len(kept) == len({(reps, hash(g)) for reps, g in kept})


def test_bases_survive_being_forgotten():
    field_type = FieldType('1x1o + 1x2e', 'D3')
    first = [intertwiners.linear_basis('1o', '2e', 'D3'),
             intertwiners.bilinear_basis('1o', '2e', '1o', 'O')]
    for cached in (intertwiners._invariants, intertwiners._design,
                   intertwiners._on_design):
        cached.cache_clear()
    again = [intertwiners.linear_basis('1o', '2e', 'D3'),
             intertwiners.bilinear_basis('1o', '2e', '1o', 'O')]
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert field_type == FieldType('1x1o + 1x2e', Group('D3'))
