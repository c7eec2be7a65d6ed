r"""Closed subgroups of O(3), each given by a few generating matrices.

A group here is a *set of orthogonal matrices*, nothing more: it is found from
its generators (finite closure, or the continuous group that they generate
topologically) and is used through three questions only: which elements does
it have, is this matrix one of them, and over which elements must a
polynomial be averaged to get its Haar average (:meth:`Group.design`).
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from .. import checks
from .generators import (
    MAX_FINITE_ORDER,
    Vector,
    candidates,
    frame,
    named_generators,
    rotations,
)

_TOLERANCE = 1e-4  # distance below which two matrices are the same element

#: The most elements that can be drawn, and the highest degree averaged, at
#: once.
MAX_SAMPLE, MAX_DESIGN_DEGREE = 2**22, 96


def read_orthogonal(name: str, matrices, what: str = 'matrix'
                    ) -> tuple[np.ndarray, float]:
    """The nearest orthogonal matrices, :math:`[n, 3, 3]` float64, and how
    far the given ones are from them.
    """
    array = read_array(name, matrices)
    if array.size == 0:
        return np.zeros((0, 3, 3)), 0.
    if array.ndim != 3 or array.shape[1:] != (3, 3):
        raise ValueError(f"Expected '{name}' to be a list of 3x3 matrices "
                         f"(got shape {list(array.shape)})")
    with np.errstate(invalid='ignore', over='ignore'):  # NaN fails below
        error = np.abs(array @ array.transpose(0, 2, 1) -
                       np.eye(3)).max((1, 2))
    if not (error < 1e-5).all():
        i = int(np.argmax(~(error < 1e-5)))
        raise ValueError(
            f"Expected every {what} in '{name}' to be orthogonal, R R^T = 1 "
            f"(got {what} {i} with a deviation of {error[i]:.1e}). Make it "
            f"orthogonal first, e.g. by its polar decomposition")
    return nearest_orthogonal(array), float(error.max())


def nearest_orthogonal(matrices) -> np.ndarray:
    """The polar factors, :math:`[n, 3, 3]`."""
    u, _, v = np.linalg.svd(np.asarray(matrices))
    return u @ v


def read_matrices(name: str, R) -> Tensor:
    r"""Orthogonal matrices of a user.

    Shapes:
        - **R** and **output:** :math:`[*, 3, 3]`, float64 on the CPU
    """
    array = read_array(name, R)
    if array.ndim < 2 or array.shape[-2:] != (3, 3):
        raise ValueError(f"Expected '{name}' of shape [*, 3, 3] (got "
                         f"{list(array.shape)})")
    read_orthogonal(name, array.reshape(-1, 3, 3))
    return torch.from_numpy(array)


def read_array(name: str, matrices) -> np.ndarray:
    """Matrices of a user as a NumPy array in float64."""
    def plain(m):
        if not isinstance(m, Tensor):
            return m
        checks.has_values(name, m, 'the group')
        checks.tensor(name, m, checks.FLOATING + checks.INTEGERS)
        return m.detach().cpu().double().numpy()

    try:
        if isinstance(matrices, (list, tuple)):
            matrices = [plain(m) for m in matrices]
        array = np.asarray(plain(matrices))
        if array.size and array.dtype.kind not in 'iuf':
            raise TypeError(f'numbers of type {array.dtype}')
        return array.astype(float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected '{name}' to be a list of real matrices, "
                        f"3x3 for elements (got {checks.show(matrices)})"
                        ) from error


def _is_in(candidates: np.ndarray, elements: np.ndarray,
           tol: float = _TOLERANCE) -> np.ndarray:
    # |A - B|^2 = 6 - 2 tr(A^T B) for orthogonal A, B.
    overlap = candidates.reshape(-1, 9) @ elements.reshape(-1, 9).T
    return (6 - 2 * overlap < tol * tol).any(axis=1)


def _is_repeated(matrices: np.ndarray) -> np.ndarray:
    """Which matrices occur earlier in the list."""
    flat = matrices.reshape(-1, 9)
    same = 6 - 2 * flat @ flat.T < _TOLERANCE**2
    return np.tril(same, -1).any(axis=1)


def _closure(generators: np.ndarray) -> np.ndarray | None:
    """All products of the generators, or None if there are too many."""
    elements, used = np.eye(3)[None], []
    for g in generators:
        # One that is there already brings nothing; any other at least
        # doubles the group.
        if not _is_in(g[None], elements)[0]:
            used.append(g)
            products = _products(np.stack(used))
            if products is None:
                return None
            elements = products
    return elements


def _products(generators: np.ndarray) -> np.ndarray | None:
    elements = np.eye(3)[None]
    frontier = elements
    while len(frontier) and len(generators):
        products = (frontier[:, None] @ generators[None]).reshape(-1, 3, 3)
        products = products[~_is_in(products, elements)]
        frontier = products[~_is_repeated(products)]
        elements = np.concatenate([elements, frontier])
        if len(elements) > MAX_FINITE_ORDER:
            return None
    return elements


def _is_closed(elements: np.ndarray, generators: np.ndarray,
               coarse: bool) -> bool:
    """Whether products hit elements better than by chance: 710 rotations by
    1 radian come within 6e-5 of the identity, yet generate SO(2).
    """
    n, flat = len(elements), elements.reshape(-1, 9)
    limit = max(1e-4 / n, 2e-7 * n if coarse else 0.)
    for g in generators:
        products = (elements @ g).reshape(-1, 9)
        nearest = (products @ flat.T).argmax(axis=1)
        if not np.abs(products - flat[nearest]).max() < limit:
            return False
    return True


#: An orthonormal basis of the symmetric 3x3 matrices without trace, [5, 9].
_TRACELESS = np.array([[[0, 1, 0], [1, 0, 0], [0, 0, 0]],
                       [[0, 0, 0], [0, 0, 1], [0, 1, 0]],
                       [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
                       [[1, 0, 0], [0, -1, 0], [0, 0, 0]],
                       [[1, 0, 0], [0, 1, 0], [0, 0, -2]]
                       ]).reshape(5, 9) / np.sqrt([[2], [2], [2], [2], [6]])


def _fixed_line(generators: np.ndarray) -> np.ndarray | None:
    """The axis of the continuous group that the generators generate, a unit
    vector, or None if it has all rotations.
    """
    # The only symmetric S without trace with g S g^T = S is 3 v v^T - 1.
    constraint = np.concatenate([(np.kron(g, g) - np.eye(9)) @ _TRACELESS.T
                                 for g in generators])
    _, s, rows = np.linalg.svd(constraint)
    if s[-1] > 1e-6:
        return None
    value, vectors = np.linalg.eigh((rows[-1] @ _TRACELESS).reshape(3, 3))
    v = vectors[:, np.abs(value).argmax()]
    return v if v[np.abs(v) > 1e-6][0] > 0 else -v


class Group:
    r"""A closed subgroup :math:`G \leq \mathrm{O}(3)`.

    .. code-block:: python

        Group('SO(2)')             # rotations about z
        Group('C6', axis='x')      # six-fold rotations about x
        Group.from_generators([R1, R2], name='mine')

    Names: :obj:`M` mirrors along X (:math:`x \mapsto -x`), :obj:`F` is the
    rotation by :math:`\pi` about X, :obj:`Inv` is :math:`\mathbf{x} \mapsto
    -\mathbf{x}`, :obj:`SO(2)`, :obj:`C<n>` and :obj:`D<n>` turn about Z
    (:obj:`D<n>` contains :obj:`F`), :obj:`T`, :obj:`O`, :obj:`I` are the
    rotations of the tetrahedron, cube and icosahedron with two-fold axes
    along X, Y and Z, and :obj:`AxB` is the group that A and B generate.
    (Names and conventions of `"Implicit Neural Convolutional Kernels for
    Steerable CNNs" <https://arxiv.org/abs/2212.06096>`_, Fig. 3.)

    Two groups are equal if they are the same set of matrices, whatever their
    names and generators.

    Args:
        name (str): The name, see above.
        axis (str or list[float], optional): Conjugates the whole group by
            the smallest rotation that takes z to this axis: :obj:`'x'`,
            :obj:`'y'`, :obj:`'z'` or three numbers. (default: :obj:`'z'`)

    Raises:
        ValueError: If the name is unknown (the message lists them) or the
            axis is not a direction.
    """
    def __init__(self, name: str, axis: str | Sequence[float] = 'z'):
        if not isinstance(name, str):
            raise TypeError(f"Expected 'name' to be a string such as 'SO(2)' "
                            f"(got {type(name).__name__})")
        R = frame(axis)
        generators = [R @ g @ R.T for g in named_generators(name)]
        if not np.allclose(R, np.eye(3)):
            axis = axis if isinstance(axis, str) else [
                round(float(a), 6) for a in axis
            ]
            name = f'{name}, axis={axis}'
        self._setup(name, generators)

    @classmethod
    def from_generators(cls, matrices, name: str | None = None) -> Group:
        r"""The smallest closed group that contains the given orthogonal
        :math:`3 \times 3` matrices.

        Args:
            matrices (list or Tensor): Orthogonal matrices,
                :math:`[k, 3, 3]`. One rotation by an angle that is no
                rational multiple of :math:`2 \pi` generates all rotations
                about its axis. Generators whose products number more than
                1,000 are read this way.
            name (str, optional): What to print. (default: :obj:`None`)

        Raises:
            ValueError: If a matrix is not orthogonal.
        """
        if name is not None:
            checks.text('name', name)
        generators, error = read_orthogonal('matrices', matrices,
                                            'generator')
        if len(generators) > MAX_FINITE_ORDER:
            raise ValueError(f"Expected at most {MAX_FINITE_ORDER} 'matrices' "
                             f"(got {len(generators)}). A few generate the "
                             f"group, e.g. Group.from_generators([R1, R2])")
        group = cls.__new__(cls)
        group._setup(name, generators, coarse=error > 1e-12)
        return group

    @classmethod
    def wrap(cls, group: Group | str) -> Group:
        """Returns a :class:`Group` from a group or its name.

        Raises:
            TypeError: If it is neither.
            ValueError: If there is no group of this name.
        """
        if isinstance(group, cls):
            return group
        if not isinstance(group, str):
            raise TypeError(f"Expected 'group' to be a Group or the name of "
                            f"one, such as 'SO(2)' (got "
                            f"{checks.show(group)})")
        return _named(group)

    @property
    def known_name(self) -> str | None:
        """The name above that has this set of matrices, if any, whatever it
        is called and however it was made; of several that with the fewest
        factors.
        """
        return next((name for name in candidates(self.order)
                     if _named(name) == self), None)

    def _setup(self, name, generators, coarse: bool = False):
        self._generators = np.asarray(generators, dtype=float).reshape(
            -1, 3, 3)
        self._elements = _closure(self._generators)
        if self._elements is not None and not _is_closed(
                self._elements, self._generators, coarse):
            self._elements = None
        self._axis = None
        if self._elements is not None:
            self._cosets = self._elements
            self.dim = 0
        else:
            self._axis = _fixed_line(self._generators)
            self.dim = 3 if self._axis is None else 1
            self._cosets = self._continuous_cosets()
        self.name = name or self._default_name()

    # Structure #############################################################

    @staticmethod
    def _classes(axis: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        """(sign on the axis, determinant) of matrices that fix it."""
        sign = np.einsum('i,nij,j->n', axis, matrices, axis)
        det = np.linalg.det(matrices)
        return np.stack([sign, det], axis=1)

    def _continuous_cosets(self) -> np.ndarray:
        """One element of each connected component."""
        if self._axis is None:
            cosets = [np.eye(3)]
            if (np.linalg.det(self._generators) < 0).any():
                cosets.append(-np.eye(3))
            return np.stack(cosets)
        R = frame(self._axis)
        representatives = {  # (sign on the axis, determinant)
            (1, 1): np.eye(3),
            (1, -1): R @ np.diag([-1., 1., 1.]) @ R.T,
            (-1, 1): R @ np.diag([1., -1., -1.]) @ R.T,
            (-1, -1): -np.eye(3),
        }
        found = {(1, 1)}
        for sign, det in np.round(self._classes(self._axis,
                                                self._generators)):
            found |= {(int(sign) * s, int(det) * d) for s, d in found}
        return np.stack([representatives[c] for c in sorted(found)[::-1]])

    def _default_name(self) -> str:
        if self.order != math.inf:
            return f'<finite group of order {self.order}>'
        kind = 'SO(2)' if self.dim == 1 else 'SO(3)'
        return f'<{kind} with {len(self._cosets)} components>'

    @property
    def generators(self) -> Tensor:
        """The generating matrices, :math:`[k, 3, 3]`, float64."""
        return torch.from_numpy(self._generators.copy())

    @property
    def order(self) -> int | float:
        """The number of elements, :obj:`math.inf` for a continuous group."""
        return math.inf if self._elements is None else len(self._elements)

    @property
    def is_finite(self) -> bool:
        """Whether the group has finitely many elements."""
        return self._elements is not None

    @property
    def elements(self) -> Tensor:
        r"""All elements of a finite group, :math:`[|G|, 3, 3]`, float64.

        Raises:
            ValueError: If the group is continuous.
        """
        if self._elements is None:
            raise ValueError(f"Expected a finite group (got {self}, which has "
                             f"infinitely many elements). Use "
                             f"'group.sample(n)' instead")
        return torch.from_numpy(self._elements.copy())

    @property
    def axis(self) -> Tensor | None:
        """The axis of a group whose continuous part is SO(2)."""
        return None if self._axis is None else torch.from_numpy(
            self._axis.copy())

    @property
    def components(self) -> Tensor:
        r"""One element of each connected component, :math:`[c, 3, 3]`."""
        return torch.from_numpy(self._cosets.copy())

    def contains(self, R, tol: float = 1e-5) -> bool:
        """Whether the orthogonal matrix :obj:`R` belongs to the group, up to
        an entry-wise tolerance.
        """
        tol = checks.real('tol', tol, above=0)
        R = read_matrices('R', R)
        if R.dim() != 2:
            raise ValueError(f"Expected 'R' of shape [3, 3] (got "
                             f"{list(R.shape)})")
        return bool(self._members(nearest_orthogonal(R[None]), tol)[0])

    def _members(self, g: np.ndarray, tol: float) -> np.ndarray:
        """Which orthogonal matrices :math:`[n, 3, 3]` are elements."""
        if self._elements is not None:
            rows = max(1, 2**20 // len(self._elements))
            parts = [_is_in(g[i:i + rows], self._elements, 3 * tol)
                     for i in range(0, len(g), rows)]
            return np.concatenate([np.zeros(0, bool), *parts])
        if self._axis is None:
            return (len(self._cosets) == 2) | (np.linalg.det(g) > 0)
        classes = self._classes(self._axis, g).round()
        off_axis = g @ self._axis - classes[:, :1] * self._axis
        allowed = self._classes(self._axis, self._cosets).round()
        return (np.abs(off_axis).max(1, initial=0) < tol) & (
            classes[:, None] == allowed).all(2).any(1)

    def read(self, name: str, R) -> Tensor:
        r"""Elements of the group, given as matrices: what is not one is an
        error that names the argument.

        Args:
            name (str): What the argument is called.
            R (Tensor): One element or any number of them.

        Shapes:
            - **R** and **output:** :math:`[*, 3, 3]`, float64 on the CPU

        Raises:
            ValueError: If a matrix does not belong to the group.
        """
        R = read_matrices(name, R)
        flat = nearest_orthogonal(R.reshape(-1, 3, 3))
        good = self._members(flat, 1e-5)
        if not good.all():
            bad = int(np.argmin(good))
            matrix = [[round(a, 6) for a in row] for row in
                      flat[bad].tolist()]
            raise ValueError(f"Expected '{name}' to be elements of {self}, "
                             f"for which the action is defined (got {matrix} "
                             f"as number {bad})")
        return R

    def is_subgroup_of(self, other: Group | str) -> bool:
        """Whether every element is also one of the group :obj:`other`."""
        other = Group.wrap(other)
        if self.dim > other.dim:
            return False
        if (self._axis is not None and other._axis is not None
                and abs(abs(self._axis @ other._axis) - 1) > 1e-8):
            return False
        return bool(other._members(self._cosets, 1e-5).all())

    def __eq__(self, other) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        # As many elements, all of them in the other group.
        return self is other or (self.dim == other.dim and
                                 len(self._cosets) == len(other._cosets) and
                                 self.is_subgroup_of(other))

    @cached_property
    def _hash(self) -> int:
        """From the elements: means of fixed functions over all of them, in
        coarse steps. (Groups that differ by rounding are equal. Where it
        carries a mean over a step, which is rare, their hashes differ: a
        dictionary then holds both.)
        """
        cosets = self._cosets
        if self._axis is not None:  # the axis, up to its sign
            cosets = np.outer(self._axis, self._axis)[None]
        elif self.dim == 3:
            cosets = cosets[:0]
        wave = np.random.default_rng(0).normal(size=(9, 8))
        mean = np.cos(cosets.reshape(-1, 9) @ wave + 0.5).sum(0)
        steps = np.floor(64 * mean / max(1, len(cosets)) + 0.3183).tolist()
        improper = int((np.linalg.det(self._cosets) < 0).sum())
        return hash((self.dim, len(self._cosets), improper, *steps))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f'Group({self.name})'

    # Sampling and averaging ################################################

    def sample(self, n: int = 1, *, generator: torch.Generator | None = None,
               dtype: torch.dtype = torch.float64) -> Tensor:
        r"""Draws elements from the Haar (uniform) measure.

        Args:
            n (int): The number of elements.
            generator (torch.Generator, optional): The source of randomness.
            dtype (torch.dtype, optional): (default: :obj:`torch.float64`)

        Shapes:
            - **output:** :math:`[n, 3, 3]`

        Raises:
            ValueError: If :obj:`n` is negative or above 4,194,304.
        """
        n = checks.integer('n', n, 0, MAX_SAMPLE)
        checks.generator('generator', generator)
        checks.choice('dtype', dtype, checks.FLOATING)
        pick = torch.randint(len(self._cosets), (n, ), generator=generator,
                             device='cpu')
        g = torch.from_numpy(self._cosets)[pick]
        if self._axis is not None:
            angle = 2 * math.pi * torch.rand(n, generator=generator,
                                             dtype=torch.float64,
                                             device='cpu')
            g = _rotations_about(self._axis, angle) @ g
        elif self.dim == 3:
            q = torch.randn(n, 4, generator=generator, dtype=torch.float64,
                            device='cpu')
            g = _from_quaternion(q) @ g
        return g.to(dtype)

    def design(self, degree: int) -> tuple[Tensor, Tensor]:
        r"""A finite set of elements, with weights, whose weighted mean of any
        polynomial in the matrix entries of total degree :math:`\leq`
        :obj:`degree` is its Haar average over the group: all elements of a
        finite group, equally spaced angles for SO(2), Euler angles with
        Gauss-Legendre nodes for SO(3).

        Shapes:
            - **output:** :math:`[n, 3, 3]` and :math:`[n]`, float64

        Raises:
            ValueError: If the degree is negative or above 96.
        """
        degree = checks.integer('degree', degree, 0, MAX_DESIGN_DEGREE)
        cosets = torch.from_numpy(self._cosets)
        if self.dim == 0:
            g, weight = cosets.clone(), torch.ones(len(cosets),
                                                   dtype=torch.float64,
                                                   device='cpu')
        else:
            angles = torch.arange(degree + 1, dtype=torch.float64,
                                  device='cpu') * (2 * math.pi / (degree + 1))
            if self._axis is not None:
                turns = _rotations_about(self._axis, angles)
                weight = torch.ones(len(turns), dtype=torch.float64,
                                    device='cpu')
            else:
                turns, weight = _euler_design(angles, degree)
            g = (turns[:, None] @ cosets[None]).reshape(-1, 3, 3)
            weight = weight.repeat_interleave(len(cosets))
        return g, weight / weight.sum()


@lru_cache(maxsize=256)
def _named(name: str) -> Group:
    return Group(name)


def _rotations_about(axis: Vector, angle: Tensor) -> Tensor:
    return torch.from_numpy(rotations(axis, angle.numpy()))


def _from_quaternion(q: Tensor) -> Tensor:
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack([
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    ], dim=-1).view(*q.shape[:-1], 3, 3)


def _euler_design(angles: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    node, share = np.polynomial.legendre.leggauss(degree // 2 + 1)
    beta = torch.from_numpy(np.arccos(node))
    around_z = _rotations_about((0., 0., 1.), angles)
    around_x = _rotations_about((1., 0., 0.), beta)
    g = torch.einsum('aij,bjk,ckl->bacil', around_z, around_x, around_z)
    weight = torch.from_numpy(share).repeat_interleave(len(angles)**2)
    return g.reshape(-1, 3, 3), weight
