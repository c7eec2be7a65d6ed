"""Generating matrices of the groups that have a name."""
from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from .. import checks

#: More elements than this and generators are read topologically, as
#: generating a continuous group.
MAX_FINITE_ORDER = 1000

NAMES = ('1', 'Inv', 'M', 'F', 'SO(2)', 'SO(2)xM', 'SO(2)xF', 'SO(2)xInv',
         'SO(2)xMxInv', 'O(2)', 'SO(3)', 'O(3)', 'C<n>', 'D<n>', 'T', 'O', 'I',
         'and any of them with xM, xF or xInv behind it, as in C4xM, OxInv')

_ALIASES = {'O(2)': 'SO(2)xM', 'C1': '1', 'e': '1'}


def rotation(axis: Sequence[float], angle: float) -> np.ndarray:
    r"""Returns the :math:`3 \times 3` matrix (float64) of the rotation by
    :obj:`angle` (radians, right-handed) about :obj:`axis`.
    """
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    K = np.array([[0., -z, y], [z, 0., -x], [-y, x, 0.]])
    return np.eye(3) + math.sin(angle) * K + (1 - math.cos(angle)) * K @ K


_Z, _X = (0., 0., 1.), (1., 0., 0.)
GOLDEN = math.pi * (3 - math.sqrt(5))
_PHI = (1 + math.sqrt(5)) / 2

_FACTORS = {
    '1': [],
    'Inv': [-np.eye(3)],
    'M': [np.diag([-1., 1., 1.])],
    'F': [np.diag([1., -1., -1.])],
    'SO(2)': [rotation(_Z, GOLDEN)],
    'SO(3)': [rotation(_Z, GOLDEN),
              rotation(_X, GOLDEN)],
    'O(3)': [rotation(_Z, GOLDEN),
             rotation(_X, GOLDEN), -np.eye(3)],
    'T': [rotation(_Z, math.pi),
          rotation((1., 1., 1.), 2 * math.pi / 3)],
    'O': [rotation(_Z, math.pi / 2),
          rotation((1., 1., 1.), 2 * math.pi / 3)],
    'I': [
        rotation(_Z, math.pi),
        rotation((1., 1., 1.), 2 * math.pi / 3),
        rotation((0., 1., _PHI), 2 * math.pi / 5)
    ],
}


def _factor_generators(factor: str) -> list[np.ndarray] | None:
    if factor in _FACTORS:
        return list(_FACTORS[factor])
    match = re.fullmatch(r'([CD])([1-9]\d{0,5})', factor)
    if match is None or int(match[2]) > MAX_FINITE_ORDER // 4:
        return None
    generators = [rotation(_Z, 2 * math.pi / int(match[2]))]
    if match[1] == 'D':
        generators += _FACTORS['F']
    return generators


def named_generators(name: str) -> list[np.ndarray]:
    """Generators of the group with this name, about z; a ValueError lists
    the names if there is none.
    """
    generators = []
    for factor in dict.fromkeys(_ALIASES.get(name, name).split('x')):
        found = _factor_generators(factor)
        if found is None:
            raise ValueError(
                f"Expected 'name' to be one of {', '.join(NAMES)} with "
                f"n <= {MAX_FINITE_ORDER // 4} (got {checks.show(name)}). "
                f"For any other group use 'Group.from_generators(matrices, "
                f"name=...)'")
        generators += found
    return generators


def frame(axis: str | Sequence[float]) -> np.ndarray:
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
