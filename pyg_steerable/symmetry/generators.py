"""Generating matrices of the groups that have a name."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Union

import numpy as np

from .. import checks

#: More elements than this and generators are read topologically, as
#: generating a continuous group.
MAX_FINITE_ORDER = 1000
#: The largest n of a family.
MAX_NUMBER = MAX_FINITE_ORDER // 4

Vector = Union[Sequence[float], np.ndarray]
_Z, _X = (0., 0., 1.), (1., 0., 0.)
#: No rational multiple of a turn.
GOLDEN = math.pi * (3 - math.sqrt(5))
_PHI = (1 + math.sqrt(5)) / 2


def rotations(axis: Vector, angles) -> np.ndarray:
    r"""The :math:`3 \times 3` matrices (float64) of rotations about one axis,
    by Rodrigues' formula.

    Shapes:
        - **angles:** :math:`[n]` in radians, right-handed
        - **output:** :math:`[n, 3, 3]`
    """
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    K = np.array([[0., -z, y], [z, 0., -x], [-y, x, 0.]])
    angles = np.asarray(angles, dtype=float)[:, None, None]
    return np.eye(3) + np.sin(angles) * K + (1 - np.cos(angles)) * (K @ K)


def rotation(axis: Vector, angle: float) -> np.ndarray:
    r"""Returns the :math:`3 \times 3` matrix (float64) of the rotation by
    :obj:`angle` (radians, right-handed) about :obj:`axis`.
    """
    return rotations(axis, [angle])[0]


#: The table of all names: a group that is added here is known everywhere, to
#: error messages, to the reader of escnn's groups and to the tests.
GROUPS = {
    '1': [],
    'Inv': [-np.eye(3)],
    'M': [np.diag([-1., 1., 1.])],
    'F': [np.diag([1., -1., -1.])],
    'SO(2)': [rotation(_Z, GOLDEN)],
    'SO(3)': [rotation(_Z, GOLDEN), rotation(_X, GOLDEN)],
    'O(3)': [rotation(_Z, GOLDEN), rotation(_X, GOLDEN), -np.eye(3)],
    'T': [rotation(_Z, math.pi), rotation((1., 1., 1.), 2 * math.pi / 3)],
    'O': [rotation(_Z, math.pi / 2), rotation((1., 1., 1.), 2 * math.pi / 3)],
    'I': [rotation(_Z, math.pi), rotation((1., 1., 1.), 2 * math.pi / 3),
          rotation((0., 1., _PHI), 2 * math.pi / 5)],
}
#: Those that come for each number n.
FAMILIES = {
    'C': lambda n: [rotation(_Z, 2 * math.pi / n)],
    'D': lambda n: [rotation(_Z, 2 * math.pi / n), *GROUPS['F']],
}
#: Other names of the same groups.
ALIASES = {'O(2)': 'SO(2)xM', 'C1': '1', 'e': '1'}
#: What a group may be extended by (any two of M, F and Inv give the third).
EXTENSIONS = ('', 'xInv', 'xM', 'xF', 'xMxInv')


def named_generators(name: str) -> list[np.ndarray]:
    """Generators of the group with this name, about z; a ValueError lists
    the names if there is none.
    """
    generators = []
    for factor in dict.fromkeys(ALIASES.get(name, name).split('x')):
        found = _of_factor(factor)
        if found is None:
            names = [*GROUPS, *ALIASES, *(f'{f}<n>' for f in FAMILIES)]
            raise ValueError(
                f"Expected 'name' to be one of {', '.join(names)} with "
                f"n <= {MAX_NUMBER}, or several of them with an x "
                f"in between, as in C4xM or SO(2)xMxInv (got "
                f"{checks.show(name)}). For any other group use "
                f"'Group.from_generators(matrices, name=...)'")
        generators += found
    return generators


def _of_factor(factor: str) -> list[np.ndarray] | None:
    if factor in GROUPS:
        return list(GROUPS[factor])
    match = re.fullmatch(r'(.+?)([1-9]\d{0,5})', factor)
    if match is None or match[1] not in FAMILIES or (
            int(match[2]) > MAX_NUMBER):
        return None
    return FAMILIES[match[1]](int(match[2]))


def candidates(order: float) -> Iterator[str]:
    """The names that a group of this order may have: those of the table,
    then these with what extends them.
    """
    names = list(GROUPS)
    if order < math.inf:
        numbers = {int(order) // n for n in (1, 2, 4, 8)}
        names += [f'{family}{n}' for n in sorted(numbers, reverse=True)
                  if 0 < n <= MAX_NUMBER for family in FAMILIES]
    for extension in EXTENSIONS:
        yield from (name + extension for name in names)


def frame(axis: str | Vector) -> np.ndarray:
    """The smallest rotation that takes z to :obj:`axis`."""
    if isinstance(axis, str):
        axes = {'x': (1., 0., 0.), 'y': (0., 1., 0.), 'z': (0., 0., 1.)}
        if axis not in axes:
            raise ValueError(f"Expected 'axis' to be 'x', 'y', 'z' or a "
                             f"vector of three numbers (got "
                             f"{checks.show(axis)})")
        axis = axes[axis]
    try:
        v = np.asarray(axis)
        v = v.astype(float) if v.dtype.kind in 'iuf' else np.zeros(0)
    except (TypeError, ValueError, RuntimeError):
        v = np.zeros(0)
    # By its largest entry first: a square must neither overflow nor vanish.
    size = np.abs(v).max(initial=0)
    if v.shape != (3, ) or not 0 < size < math.inf:
        raise ValueError(f"Expected 'axis' to be a non-zero vector of three "
                         f"finite numbers, or 'x', 'y', 'z' (got "
                         f"{checks.show(axis)})")
    v = v / size
    v = v / np.linalg.norm(v)
    normal = np.cross(_Z, v)
    if np.linalg.norm(normal) < 1e-12:
        return np.eye(3) if v[2] > 0 else rotation(_X, math.pi)
    return rotation(normal, math.acos(np.clip(v[2], -1, 1)))
