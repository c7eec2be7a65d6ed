"""Representations: how the fields of a block transform."""
from __future__ import annotations

from functools import lru_cache

import torch
from e3nn import o3
from torch import Tensor

from .. import checks
from .generators import GOLDEN
from .groups import Group, read_array

#: The highest degree of the spherical harmonics at hand (e3nn's limit).
MAX_DEGREE = 11
#: The largest representation that is read from matrices.
MAX_DIM = 256


def on_cpu(matrix) -> Tensor:
    """In float64 on the CPU, whatever the default device."""
    if isinstance(matrix, Tensor):
        return matrix.detach().to('cpu', torch.float64)
    return torch.as_tensor(matrix, dtype=torch.float64, device='cpu')


@lru_cache(maxsize=MAX_DEGREE + 1)
def _probe(degree: int) -> tuple[Tensor, Tensor]:
    """Points on the sphere and the pseudo-inverse of the harmonics there."""
    n = 4 * degree + 8
    i = torch.arange(n, dtype=torch.float64, device='cpu') + 0.5
    z, phi = 1 - 2 * i / n, GOLDEN * i  # a Fibonacci spiral
    r = (1 - z * z).sqrt()
    x = torch.stack([r * phi.cos(), r * phi.sin(), z], dim=-1)
    Y = o3.spherical_harmonics(degree, x, normalize=False)
    return x, torch.linalg.pinv(Y)


def wigner_D(irrep: o3.Irrep, R: Tensor) -> Tensor:
    r"""The representation matrix :math:`D^{(l, p)}(R)` of any orthogonal
    matrix, in e3nn's real basis, to float64 rounding.

    .. math::
        Y^l(R \mathbf{x}) = D^{(l)}(R) Y^l(\mathbf{x}), \qquad
        D^{(l, p)}(R) = D^{(l)}(R) \, (p (-1)^l)^{[\det R < 0]}

    is solved for :math:`D` at fixed points (Euler angles would lose half the
    digits near their poles).

    Shapes:
        - **R:** :math:`[*, 3, 3]`, **output:** :math:`[*, 2l+1, 2l+1]`
    """
    R = R.to('cpu', torch.float64)
    if irrep.l == 0:
        D = torch.ones(*R.shape[:-2], 1, 1, dtype=torch.float64, device='cpu')
    else:
        x, inverse = _probe(irrep.l)
        Y = o3.spherical_harmonics(irrep.l, x @ R.mT, normalize=False)
        D = (inverse @ Y).mT.contiguous()
    if irrep.p != (-1)**irrep.l:
        D = D * torch.linalg.det(R).sign()[..., None, None]
    return D


class Representation:
    r"""An orthogonal representation of G given by its matrices at the
    generators of G, e.g. a regular or a permutation representation.

    It is evaluated at any element through an equivariant map
    :math:`A: \bigoplus_l D^l \to \rho` onto it, found once:
    :math:`\rho(g) = A \, D(g) \, A^{\top}` (every representation of a closed
    subgroup is contained in one of O(3)). That the map exists proves that the
    matrices are a representation of G.

    Args:
        group (Group or str): The group G.
        matrices (Tensor): One orthogonal matrix for each of
            :obj:`group.generators`, :math:`[k, d, d]`.
        name (str, optional): What to print. (default: :obj:`"rho"`)

    Raises:
        ValueError: If the matrices are not orthogonal, not as many as the
            generators, or not a representation of G.
    """
    def __init__(self, group: Group | str, matrices, name: str = 'rho'):
        self.group = Group.wrap(group)
        self.name = checks.text('name', name)
        self.matrices = self._check(matrices)
        self.dim = self.matrices.shape[-1]
        self._irreps, self._map = self._cover()

    @property
    def degree(self) -> int:
        """The degree in the entries of g of the matrix at g."""
        return max(ir.l for ir in self._irreps)

    def _check(self, matrices) -> Tensor:
        generators = self.group.generators
        matrices = torch.from_numpy(read_array('matrices', matrices))
        if (matrices.dim() != 3 or len(matrices) != len(generators)
                or matrices.shape[1] != matrices.shape[2]
                or matrices.shape[1] == 0):
            raise ValueError(
                f"Expected 'matrices' of shape [{len(generators)}, d, d] with "
                f"d > 0, one for each generator of {self.group} (got "
                f"{list(matrices.shape)})")
        if matrices.shape[1] > MAX_DIM:
            raise ValueError(f"Expected 'matrices' with d <= {MAX_DIM} (got "
                             f"d = {matrices.shape[1]}). Split the "
                             f"representation into smaller ones first")
        eye = torch.eye(matrices.shape[1], dtype=torch.float64, device='cpu')
        deviation = (matrices @ matrices.mT - eye).abs()
        if not (deviation < 1e-6).all():
            error = float(deviation.max())
            raise ValueError(
                f"Expected orthogonal 'matrices', rho rho^T = 1 (got a "
                f"deviation of {error:.1e}). Change to a basis in which the "
                f"representation is orthogonal")
        return matrices.contiguous()

    def _cover(self) -> tuple[list[o3.Irrep], Tensor]:
        """Partial isometries from irreps that together reach all of rho."""
        maps, irreps, rank = [], [], 0
        rest = torch.eye(self.dim, dtype=torch.float64, device='cpu')
        for degree in range(MAX_DEGREE + 1):
            for parity in (1, -1):
                ir = o3.Irrep(degree, parity)
                for A in self._maps_from(ir):
                    # What is not reached yet is invariant, and the polar
                    # factor of an equivariant map is equivariant.
                    U, s, V = torch.linalg.svd(rest @ A, full_matrices=False)
                    U, V = U[:, s > 1e-3], V[s > 1e-3]
                    if len(V):
                        maps.append(U @ V)
                        irreps.append(ir)
                        rest, rank = rest - U @ U.T, rank + len(V)
                    if rank == self.dim:
                        return irreps, torch.cat(maps, dim=1)
        raise ValueError(
            f"Expected 'matrices' to be a representation of {self.group}, "
            f"i.e. to satisfy every relation that its generators satisfy, "
            f"contained in degrees up to {MAX_DEGREE} (got '{self.name}', of "
            f"which only {rank} of {self.dim} dimensions transform under the "
            f"group). Check the order of the matrices against "
            f"'group.generators'")

    def _maps_from(self, ir: o3.Irrep) -> Tensor:
        """A basis of the A with rho(g) A = A D(g), by null space."""
        d, D = self.dim, wigner_D(ir, self.group.generators)
        eye = torch.eye(d * ir.dim, dtype=torch.float64, device='cpu')
        normal = torch.zeros_like(eye)
        for rho, D_g in zip(self.matrices, D):
            K = torch.kron(rho, D_g)
            normal += 2 * eye - K - K.T
        value, vector = torch.linalg.eigh(normal)
        return vector[:, value < 1e-9].T.reshape(-1, d, ir.dim)

    def __call__(self, R) -> Tensor:
        r"""The matrices at elements of G.

        Shapes:
            - **R:** :math:`[*, 3, 3]`, **output:** :math:`[*, d, d]`

        Raises:
            ValueError: If a matrix does not belong to the group.
        """
        R = self.group.read('R', R)
        D = [wigner_D(ir, R) for ir in self._irreps]
        columns = self._map.split([ir.dim for ir in self._irreps], dim=1)
        mapped = torch.cat([A @ D_l for A, D_l in zip(columns, D)], dim=-1)
        return mapped @ self._map.T

    @classmethod
    def regular(cls, group: Group | str) -> Representation:
        r"""The regular representation of a finite group: functions on G,
        :math:`(\rho(g) f)(h) = f(g^{-1} h)`, :math:`d = |G|`.
        """
        group = Group.wrap(group)
        h = group.elements
        if len(h) > MAX_DIM:
            raise ValueError(f"Expected a 'group' of at most {MAX_DIM} "
                             f"elements (got {group} with {len(h)})")
        moved = torch.einsum('kij,njl->knil', group.generators, h)
        distance = (moved[:, :, None] - h).abs().amax((-1, -2))
        target = distance.argmin(dim=-1)  # g h_n = h_target
        matrices = torch.zeros(len(moved), len(h), len(h),
                               dtype=torch.float64, device='cpu')
        matrices.scatter_(1, target[:, None, :], 1.)
        return cls(group, matrices, name=f'regular({group.name})')

    def __eq__(self, other) -> bool:
        if not isinstance(other, Representation):
            return NotImplemented
        return (self.name == other.name and self.group == other.group
                and self.matrices.shape == other.matrices.shape
                and torch.allclose(self.matrices, other.matrices, atol=1e-9))

    def __hash__(self) -> int:
        return hash((self.name, self.dim, self.group))

    def __repr__(self) -> str:
        return self.name


def rep_matrix(rep: o3.Irrep | Representation, R: Tensor) -> Tensor:
    """The matrix of a block's representation, float64."""
    return rep(R) if isinstance(rep, Representation) else wigner_D(rep, R)


def rep_degree(rep: o3.Irrep | Representation) -> int:
    """The degree of :func:`rep_matrix` in the entries of R."""
    return rep.degree if isinstance(rep, Representation) else rep.l
