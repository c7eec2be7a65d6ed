r"""Sample points on the sphere that share the symmetry of a group."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.integrate import lebedev_rule
from scipy.spatial import cKDTree
from torch import Tensor

from .generators import frame
from .groups import Group

# Degrees of the Lebedev rules with positive weights.
_LEBEDEV = (3, 5, 7, 9, 11, 15, 17, 19, 21, 23, 29, 31, 35, 41, 47, 53, 59,
            65, 71, 77, 83, 89, 95, 101, 107, 113, 119, 125, 131)


@lru_cache(maxsize=None)
def sphere_samples(group: Group, max_degree: int,
                   samples: int) -> tuple[Tensor, Tensor]:
    r"""At least :obj:`samples` points on the sphere with quadrature weights,
    exact for functions of degree :math:`2 L`, the same on every machine.

    For a finite group the set is invariant under it (a union of orbits). For
    SO(2) and its extensions the points lie on rings around the axis, evenly
    spaced, and the set is invariant under the discrete parts. For SO(3) and
    O(3) it is a Lebedev rule, invariant under the cube's group.

    Shapes:
        - **output:** :math:`[N, 3]`, :math:`[N]`, float64
    """
    if group.axis is not None:
        return _rings(group.axis, max_degree, samples)
    for degree in _LEBEDEV:
        if degree < 2 * max_degree:
            continue
        points, weight = lebedev_rule(degree)
        points, weight = points.T, weight / weight.sum()
        if group.is_finite:
            points, weight = _symmetrised(points, weight, group)
        if len(points) >= samples:
            return torch.from_numpy(points), torch.from_numpy(weight)
    raise ValueError(f"Expected at most {len(points)} 'samples' for {group} "
                     f"(got {samples})")


def _symmetrised(points, weight, group: Group):
    """The union of the images under a finite group."""
    g = group.elements.numpy()
    images = np.einsum('gij,nj->gni', g, points).reshape(-1, 3)
    weight = np.tile(weight, len(g)) / len(g)
    pairs = cKDTree(images).query_pairs(1e-6, output_type='ndarray')
    first = np.arange(len(images))
    np.minimum.at(first, pairs[:, 1], pairs[:, 0])
    keep, index = np.unique(first, return_inverse=True)
    return images[keep], np.bincount(index, weight)


def _rings(axis: Tensor, max_degree: int, samples: int):
    """Gauss-Legendre rings of an even number of points about the axis."""
    rings = max_degree + 1
    turns = max(2 * max_degree + 1, -(-samples // rings))
    turns += turns % 2  # even: the set has the mirror, flip and inversion
    height, weight = np.polynomial.legendre.leggauss(rings)
    angle = 2 * np.pi * np.arange(turns) / turns
    radius = np.sqrt(1 - height**2)[:, None]
    points = np.stack([
        radius * np.cos(angle), radius * np.sin(angle),
        np.broadcast_to(height[:, None], (rings, turns))
    ], axis=-1).reshape(-1, 3)
    weight = np.repeat(weight, turns)
    points = points @ frame(axis.numpy()).T
    return torch.from_numpy(points), torch.from_numpy(weight / weight.sum())
