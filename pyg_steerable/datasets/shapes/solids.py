"""Point clouds on simple solids, made here."""
from __future__ import annotations

import numpy as np
import torch

from ... import checks
from .points import PointClouds

__all__ = ['generate_shapes']

SHAPES = ('ball', 'box', 'cylinder', 'cone', 'torus', 'tetrahedron',
          'pyramid', 'table', 'chair', 'cross')


def generate_shapes(num: int, num_points: int = 1024, seed: int = 0
                    ) -> PointClouds:
    """Clouds on the surfaces of simple upright solids of random proportions
    (z is up), in the unit ball: generated, for trying things out offline.

    Args:
        num (int): The number of clouds; classes take turns.
        num_points (int, optional): (default: :obj:`1024`)
        seed (int, optional): (default: :obj:`0`)

    Raises:
        ValueError: If a number is negative or too large.
    """
    num = checks.integer('num', num, 0, 2**20)
    num_points = checks.integer('num_points', num_points)
    checks.amount('clouds', 8, num, num_points)
    seed = checks.integer('seed', seed, 0)
    rng = np.random.default_rng(seed)
    label = np.arange(num) % len(SHAPES)
    points = np.empty((num, num_points, 3), np.float32)
    for i, c in enumerate(label):
        points[i] = _normalised(_shape(SHAPES[c], num_points, rng))
    return PointClouds(torch.from_numpy(points),
                       torch.from_numpy(label), list(SHAPES))


def _normalised(points):
    points = points - (points.max(0) + points.min(0)) / 2
    return points / np.linalg.norm(points, axis=1).max()


def _shape(name, n, rng):
    if name == 'ball':
        return _directions(n, rng) * rng.uniform(0.7, 1.3, 3)
    if name == 'torus':
        minor = rng.uniform(0.15, 0.45)
        angle = rng.uniform(0, 2 * np.pi, 4 * n)
        # Accepted in proportion to the surface at each angle.
        angle = angle[rng.uniform(0, 1 + minor, 4 * n) <
                      1 + minor * np.cos(angle)][:n]
        around = rng.uniform(0, 2 * np.pi, n)
        ring = 1 + minor * np.cos(angle)
        return np.stack([ring * np.cos(around), ring * np.sin(around),
                         minor * np.sin(angle)], 1)
    if name in ('cylinder', 'cone'):
        return _turned(n, rng.uniform(0.3, 0.7), rng.uniform(0.8, 2.),
                       name == 'cone', rng)
    return _on_triangles(_triangles(name, rng), n, rng)


def _directions(n, rng):
    x = rng.normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _turned(n, radius, height, cone, rng):
    """The surface of an upright cylinder or cone."""
    slant = np.hypot(radius, height) if cone else 2 * height
    caps = radius if cone else 2 * radius
    side = rng.uniform(size=n) < slant / (slant + caps)
    angle, u = rng.uniform(0, 2 * np.pi, n), rng.uniform(size=n)
    z = np.where(side, u, rng.integers(2, size=n) if not cone else 0.)
    r = np.sqrt(u)
    if cone:
        z = np.where(side, 1 - r, 0.)
    else:
        r = np.where(side, 1., r)
    return np.stack([radius * r * np.cos(angle), radius * r * np.sin(angle),
                     height * z], 1)


def _box(centre, size):
    """The twelve triangles of a box."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1)
                        for z in (-1, 1)]) / 2 * size + centre
    faces = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6),
             (0, 2, 6, 4), (1, 3, 7, 5)]
    return [corners[[a, b, c]] for f in faces
            for a, b, c in ((f[0], f[1], f[2]), (f[0], f[2], f[3]))]


def _triangles(name, rng):
    w, d, h = rng.uniform(0.7, 1.3, 3)
    thin = rng.uniform(0.06, 0.14)
    if name == 'box':
        return _box((0, 0, 0), (w, d, h))
    if name == 'cross':
        return (_box((0, 0, 0), (w, thin * 2, thin * 2)) +
                _box((0, 0, 0), (thin * 2, d, thin * 2)) +
                _box((0, 0, 0), (thin * 2, thin * 2, h)))
    if name in ('table', 'chair'):
        top = h if name == 'table' else h / 2
        legs = [t for x in (-1, 1) for y in (-1, 1) for t in
                _box((x * (w - thin) / 2, y * (d - thin) / 2, top / 2),
                     (thin, thin, top))]
        back = [] if name == 'table' else _box(
            (0, (d - thin) / 2, top + h / 2), (w, thin, h))
        return legs + back + _box((0, 0, top), (w, d, thin))
    sides = 3 if name == 'tetrahedron' else 4
    turn = np.arange(sides) * 2 * np.pi / sides
    base = np.stack([w * np.cos(turn), d * np.sin(turn), 0 * turn], 1)
    tip = np.array([0., 0., 1.3 * h])
    walls = [np.stack([base[i], base[(i + 1) % sides], tip])
             for i in range(sides)]
    floor = [base[[0, i, i + 1]] for i in range(1, sides - 1)]
    return walls + floor


def _on_triangles(triangles, n, rng):
    """Points spread evenly over a surface of triangles."""
    a, b, c = np.stack(triangles, 1)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    pick = rng.choice(len(a), n, p=area / area.sum())
    u, v = rng.uniform(size=(2, n, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return a[pick] + u * (b - a)[pick] + v * (c - a)[pick]
