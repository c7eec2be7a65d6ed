r"""Reads groups and field types of `escnn <https://github.com/QUVA-Lab/escnn>`_.
The only file that imports escnn, and only when one of its objects arrives.

An escnn group is read through its matrices: a few elements that generate it,
their action on points, and their action on fields. Nothing is looked up by
name, so every 3-D gspace and every representation can be read, and feature
tensors keep escnn's layout.
"""
from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from .generators import GOLDEN, rotation
from .groups import Group
from .representations import MAX_DEGREE, Representation, wigner_D

_ATOL = 1e-7  # escnn computes some restrictions numerically


def _import_escnn():
    try:
        import escnn.group
        import escnn.gspaces
        import escnn.nn
    except ImportError as error:
        raise ImportError(
            f"Expected escnn to be importable ({error}). On Python 3.10 to "
            f"3.12: 'pip install \"numpy<2\" joblib pymanopt autograd' and "
            f"'pip install --no-deps escnn==1.0.11 lie_learn' (this leaves "
            f"out py3nj and with it the Fortran compiler)") from error
    return escnn


# Groups ####################################################################


def group_from_escnn(gspace) -> Group:
    r"""Returns the symmetry group of an escnn gspace.

    Its generators are the matrices by which a few generating elements of the
    escnn group act on points, in the order :math:`(x, y, z)`.

    Args:
        gspace (escnn.gspaces.GSpace3D or escnn.group.Group): A 3-D gspace,
            or one of escnn's groups that come as matrices: SO(3), O(3),
            octahedral or icosahedral.

    Raises:
        ImportError: If escnn is not installed (the message names the fix).
        TypeError: If it is neither, or an abstract group: escnn's SO(2) does
            not say about which axis it turns. Pass the gspace.
    """
    action = _action_on_points(gspace)
    return _group(action, _generating_elements(action.group))


def _action_on_points(gspace):
    escnn = _import_escnn()
    if isinstance(gspace, escnn.gspaces.GSpace3D):
        return gspace.basespace_action
    if isinstance(gspace, (escnn.group.SO3, escnn.group.O3)):
        return gspace.standard_representation()
    if isinstance(gspace, (escnn.group.Octahedral, escnn.group.Icosahedral)):
        return gspace.standard_representation
    raise TypeError(
        f'Expected a 3-D gspace of escnn, or its SO(3), O(3), octahedral or '
        f'icosahedral group (got {type(gspace).__name__} {gspace!r}). Other '
        f'groups do not say how they act on points: pass the gspace, e.g. '
        f'escnn.gspaces.rot2dOnR3()')


def _generating_elements(group) -> list:
    """Elements that generate an escnn group, topologically if continuous."""
    escnn = _import_escnn().group
    if not group.continuous:
        return list(group.generators)
    if isinstance(group, escnn.DirectProductGroup):
        return ([group.inclusion1(g) for g in _generating_elements(group.G1)] +
                [group.inclusion2(g) for g in _generating_elements(group.G2)])
    if isinstance(group, escnn.SO2):
        return [group.element(GOLDEN, 'radians')]
    if isinstance(group, escnn.O2):
        return [group.element((0, GOLDEN), 'radians'),
                group.element((1, 0.), 'radians')]
    turns = [rotation((0., 0., 1.), GOLDEN), rotation((1., 0., 0.), GOLDEN)]
    if isinstance(group, escnn.SO3):
        return [group.element(R, 'MAT') for R in turns]
    if isinstance(group, escnn.O3):
        return [group.element((0, R), 'MAT') for R in turns
                ] + [group.inversion]
    raise TypeError(f"Expected one of escnn's groups SO(2), O(2), SO(3), O(3),"
                    f" a finite one, or a product of these (got {group})")


def _matrices(representation, elements: list) -> Tensor:
    d = representation.size
    out = torch.empty(len(elements), d, d, dtype=torch.float64, device='cpu')
    for matrix, g in zip(out, elements):
        matrix.copy_(torch.as_tensor(representation(g)))
    return out


def _group(action, elements: list) -> Group:
    group = Group.from_generators(_matrices(action, elements))
    name = group.known_name or f'escnn {action.group.name}'
    return Group.from_generators(group.generators, name=name)


# Field types ###############################################################


def is_from_escnn(value) -> bool:
    """Whether a value is an object of escnn's, without importing escnn."""
    return type(value).__module__.split('.')[0] == 'escnn'


def read_field_type(field_type) -> tuple[list, Group]:
    """The blocks :obj:`(copies, representation)` of an escnn field type, and
    its group.

    Raises:
        ImportError: If escnn is not installed.
        TypeError: If it is no escnn field type, or not on a 3-D gspace.
        ValueError: If a representation is not orthogonal.
    """
    escnn = _import_escnn()
    if not isinstance(field_type, escnn.nn.FieldType):
        raise TypeError(f'Expected an escnn FieldType (got '
                        f'{type(field_type).__name__} {field_type!r})')
    action = _action_on_points(field_type.gspace)
    elements = _generating_elements(action.group)
    group = _group(action, elements)
    seen, blocks = {}, []
    for rho in field_type.representations:
        if rho not in seen:
            seen[rho] = _read(rho.name, _matrices(rho, elements), group)
        blocks += seen[rho]
    return merge_blocks(blocks), group


def _read(name: str, matrices: Tensor, group: Group) -> list:
    """The blocks :obj:`(1, representation)` of a representation."""
    irrep = _as_irrep(matrices, group)
    if irrep is not None:
        return [(1, irrep)]
    cuts = _cuts(matrices)
    if len(cuts) == 2:
        return [(1, Representation(group, matrices, name))]
    return [
        block for a, b in zip(cuts, cuts[1:])
        for block in _read(f'{name}[{a}:{b}]', matrices[:, a:b, a:b], group)
    ]


def _as_irrep(matrices: Tensor, group: Group) -> o3.Irrep | None:
    """The e3nn irrep with these matrices; of natural parity if both fit."""
    degree, even = divmod(matrices.shape[-1] - 1, 2)
    if even or degree > MAX_DEGREE:
        return None
    for parity in ((-1)**degree, -(-1)**degree):
        irrep = o3.Irrep(degree, parity)
        expected = wigner_D(irrep, group.generators)
        if torch.allclose(matrices, expected, rtol=0, atol=_ATOL):
            return irrep
    return None


def _cuts(matrices: Tensor) -> list[int]:
    """Where all matrices are block-diagonal, both ends included."""
    d = matrices.shape[-1]
    used = (matrices.abs() > _ATOL).any(dim=0) if len(matrices) else (
        torch.eye(d, dtype=torch.bool, device='cpu'))
    return [0] + [
        i for i in range(1, d)
        if not (used[:i, i:].any() or used[i:, :i].any())
    ] + [d]


def merge_blocks(blocks: list) -> list:
    """Equal neighbours become copies."""
    merged: list[tuple] = []
    for mul, rep in blocks:
        if merged and _same(merged[-1][1], rep):
            merged[-1] = (merged[-1][0] + mul, merged[-1][1])
        else:
            merged.append((mul, rep))
    return merged


def _same(a, b) -> bool:
    if isinstance(a, o3.Irrep) or isinstance(b, o3.Irrep):
        return type(a) is type(b) and a == b
    return a is b or a.matrices.shape == b.matrices.shape and torch.allclose(
        a.matrices, b.matrices, rtol=0, atol=_ATOL)
