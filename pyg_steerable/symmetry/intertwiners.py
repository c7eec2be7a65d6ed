r"""Canonical bases of the equivariant linear and bilinear maps.

The maps :math:`U \otimes V \to W` that commute with G are the invariants of
:math:`W \otimes U \otimes V`. Their projector is a Haar average, computed
exactly as a finite sum (:meth:`Group.design`), and is unique; the basis is
its skipping Cholesky factor in the fixed order of coordinates, so that it is
the same on every machine and for any choice of generators.
"""
from __future__ import annotations

import math

import numpy as np
import torch
from e3nn import o3
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..cache import remember
from .fields import FieldType
from .groups import Group
from .representations import Representation, rep_degree, rep_matrix

# A coordinate opens a new basis vector if more than this squared length of
# it is left. Any value below 1 / n finds all; this one is far from the
# simple fractions that occur, so that rounding cannot change the choice.
_PIVOT = 7.3e-4

#: The projector of a tensor product is a matrix of this many rows at most.
MAX_PRODUCT = 2**13


def linear_basis(V, W, group: Group | str) -> Tensor:
    r"""The equivariant linear maps :math:`\mathrm{Hom}_G(V, W)`:
    :math:`\rho_W(g) B = B \rho_V(g)`.

    Args:
        V, W: Representations: an irrep (:obj:`"1o"`), irreps, a
            :class:`Representation` or a :class:`FieldType`.
        group (Group or str): The group.

    Shapes:
        - **output:** :math:`[s, d_W, d_V]` float64, orthonormal in the
          Frobenius product
    """
    group = Group.wrap(group)
    reps = (_as_rep(W, group), _as_rep(V, group))
    return _invariants(reps, group).clone()


def bilinear_basis(U, V, W, group: Group | str) -> Tensor:
    r"""The equivariant bilinear maps
    :math:`\mathrm{Hom}_G(U \otimes V, W)`.

    Args:
        U, V, W: Representations, as in :func:`linear_basis`.
        group (Group or str): The group.

    Shapes:
        - **output:** :math:`[s, d_W, d_U, d_V]` float64, orthonormal in the
          Frobenius product
    """
    group = Group.wrap(group)
    reps = (_as_rep(W, group), _as_rep(U, group), _as_rep(V, group))
    return _invariants(reps, group).clone()


def _as_rep(value, group: Group):
    """A single block as it is, anything else as a whole field type."""
    if isinstance(value, (o3.Irrep, Representation)):
        return value
    field_type = FieldType(value, group)
    if len(field_type) == 1 and field_type.blocks[0][0] == 1:
        return field_type.blocks[0][1]
    return field_type


def _order(rep) -> tuple:
    return (rep.dim, str(rep))


@remember(megabytes=16)
def _invariants(reps: tuple, group: Group) -> Tensor:
    # Orthogonal representations are their own duals, so the order of the
    # factors matters for the layout only: compute each set once.
    order = sorted(range(len(reps)), key=lambda i: _order(reps[i]))
    if order != list(range(len(reps))):
        basis = _invariants(tuple(reps[i] for i in order), group)
        back = [0] * len(reps)
        for new, old in enumerate(order):
            back[old] = new + 1
        return basis.permute(0, *back).contiguous()
    if group.dim == 3 and all(isinstance(r, o3.Irrep) for r in reps):
        return _closed_form(reps, group)
    return _canonical(_projector(reps, group), [rep.dim for rep in reps])


def _degree(rep) -> int:
    return rep.max_degree if isinstance(rep, FieldType) else rep_degree(rep)


def _matrix(rep, R: Tensor) -> Tensor:
    return rep.matrix(R) if isinstance(rep, FieldType) else rep_matrix(rep, R)


def _closed_form(reps: tuple, group: Group) -> Tensor:
    """Schur's lemma and the Wigner 3j symbols."""
    ls = [ir.l for ir in reps]
    parity = 1
    for ir in reps:
        parity *= ir.p
    dims = [2 * l + 1 for l in ls]
    forbidden = len(group.components) == 2 and parity != 1
    if len(ls) == 2:
        forbidden |= ls[0] != ls[1]
    else:
        forbidden |= not abs(ls[0] - ls[1]) <= ls[2] <= ls[0] + ls[1]
    if forbidden:
        return torch.zeros(0, *dims, dtype=torch.float64, device='cpu')
    if len(ls) == 2:
        eye = torch.eye(dims[0], dtype=torch.float64, device='cpu')
        return eye[None] / dims[0]**0.5
    with torch.device('cpu'):  # whatever the default device
        C = o3.wigner_3j(*ls, dtype=torch.float64)
    first = C.flatten()[C.flatten().abs() > 1e-6][0]
    return _clean(C * first.sign() / C.norm())[None]


@remember(megabytes=2)
def _design(group: Group, degree: int) -> tuple[Tensor, Tensor]:
    """Equal groups may list their elements in different orders."""
    return group.design(degree)


@remember(megabytes=8)
def _on_design(rep, group: Group, degree: int) -> tuple[Tensor, Tensor]:
    """The elements of a design, and the matrices of a representation."""
    g, _ = _design(group, degree)
    return g, _matrix(rep, g)


def _projector(reps: tuple, group: Group) -> Tensor:
    """The Haar average of the tensor product of the representations."""
    size = math.prod(rep.dim for rep in reps)
    if size > MAX_PRODUCT:
        raise ValueError(f"Expected representations whose dimensions multiply "
                         f"to {MAX_PRODUCT} at most (got "
                         f"{' x '.join(str(rep.dim) for rep in reps)} = "
                         f"{size}). Split them into smaller ones")
    degree = 0 if group.is_finite else sum(_degree(rep) for rep in reps)
    design, weight = _design(group, degree)
    factors = []
    for rep in reps:
        g, matrix = _on_design(rep, group, degree)
        # Its design may have been forgotten, and listed anew in another
        # order, since.
        factors.append(matrix if g is design else _matrix(rep, design))
    left = weight[:, None, None] * factors[0]
    for factor in factors[1:-1]:
        left = torch.einsum('gab,gcd->gacbd', left, factor)
        left = left.flatten(3, 4).flatten(1, 2)
    a, b = left.shape[-1], factors[-1].shape[-1]
    P = left.flatten(1).T @ factors[-1].flatten(1)
    P = P.view(a, a, b, b).permute(0, 2, 1, 3).reshape(a * b, a * b)
    return (P + P.T) / 2


def _canonical(projector: Tensor, dims: list[int]) -> Tensor:
    """An orthonormal basis of the image of a projector: Gram-Schmidt on its
    columns in order, i.e. a Cholesky factorisation that skips zero pivots.
    """
    P = projector.numpy()
    rank = int(P.trace().round())
    threshold = min(_PIVOT, 0.3 / max(1, len(P)))
    # Coordinates that the projector does not mix can be treated apart.
    _, block = connected_components(np.abs(P) > 1e-12, directed=False)
    order = np.argsort(block, kind='stable')
    vectors = []
    for at in np.split(order, np.cumsum(np.bincount(block))[:-1]):
        rest = P[np.ix_(at, at)]
        for i in range(len(at)):
            if rest[i, i] > threshold:
                q = np.zeros(len(P))
                q[at] = row = rest[i] / np.sqrt(rest[i, i])
                rest -= np.outer(row, row)
                vectors.append((at[i], q))
    if len(vectors) != rank:
        raise ValueError(f"Expected a group whose 'matrices' are exact enough "
                         f"to tell its equivariant maps apart (got "
                         f"{len(vectors)} maps of {rank}). Give generators "
                         f"in float64")
    basis = np.zeros((rank, len(P)))
    for n, (_, q) in enumerate(sorted(vectors, key=lambda v: v[0])):
        basis[n] = q
    return _clean(torch.from_numpy(basis)).view(rank, *dims)


def _clean(basis: Tensor) -> Tensor:
    """Rounding noise becomes an exact zero."""
    return torch.where(basis.abs() < 1e-12, 0., basis)
