import pytest
from contract_problem import GROUPS, KINDS, Problem, close


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('group', GROUPS)
def test_against_the_reference(group, kind):
    """What is exported is the same, also in its derivatives."""
    problem = Problem(group, kind=kind)
    for a, b in zip(problem.derivatives('portable'),
                    problem.derivatives('reference')):
        assert close(a, b)
