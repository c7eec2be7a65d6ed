"""Measuring equivariance."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import checks
from ..symmetry.groups import Group, read_matrices
from .cases import Case, _cases, _dtype_of

#: The relative error that passes as rounding.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def equivariance_error(module: Callable, group: Group | str | None = None, *,
                       in_types: Sequence | None = None,
                       out_types: Sequence | None = None,
                       inputs: Sequence | None = None,
                       elements: Tensor | None = None, num_samples: int = 6,
                       dtype: torch.dtype | None = None,
                       seed: int = 0) -> float:
    r"""The largest relative error of equivariance,

    .. math::
        \max_g \frac{\lVert f(g \mathbf{x}) - g f(\mathbf{x}) \rVert}
        {\lVert f(\mathbf{x}) \rVert},

    at random inputs over the generators, the components and random elements
    of a group; positions are moved by a random translation as well.

    Every layer, basis, kernel and network of this package (and any other
    :class:`~pyg_steerable.nn.FieldModule`) has an :obj:`example` of its
    inputs and their types, and so has a :class:`torch.nn.Sequential` of them;
    for any other callable name types in :obj:`in_types` and
    :obj:`out_types`. What lives on a grid is turned by those elements that
    are symmetries of the grid, and its parts that do not (kernels, at random
    positions) by all. The module is copied first, stays in train or eval mode
    as it is, and draws the same random numbers (dropout) in every call.

    Args:
        module (callable): What to test.
        group (Group or str, optional): Where elements come from. A larger
            group than that of the types shows the absence of equivariance.
            (default: the group of the types)
        in_types (list, optional): For each argument a :class:`FieldType` (or
            what it is made from, if :obj:`group` is given), :obj:`"pos"` for
            positions :math:`[N, 3]`, :class:`Voxels`, or :obj:`None` for
            what the group leaves alone, which then needs :obj:`inputs`.
            (default: those of the module)
        out_types (list, optional): The same for the output, or for each of a
            tuple of outputs. (default: those of the module)
        inputs (list, optional): The arguments. (default: normal
            distributed)
        elements (Tensor, optional): Orthogonal matrices to use instead of
            elements of :obj:`group`, :math:`[n, 3, 3]`; they need not lie in
            it.
        num_samples (int, optional): The number of random elements.
            (default: :obj:`6`)
        dtype (torch.dtype, optional): Where the copy of the module and its
            inputs are moved to. (default: that of the module's parameters)
        seed (int, optional): Of inputs and elements. (default: :obj:`0`)

    Shapes:
        - **output:** a number

    Raises:
        TypeError: If the types of a callable are neither known nor given, or
            one of them is no type.
        ValueError: If inputs are missing for a type :obj:`None`, or no
            element of the group but the identity can act on a grid.
    """
    return _worst(module, group, in_types, out_types, inputs, elements,
                  num_samples, dtype, seed)[0]


def assert_equivariant(module: Callable, group: Group | str | None = None, *,
                       tol: float | None = None,
                       dtype: torch.dtype | None = None, **kwargs) -> None:
    r"""Raises unless :func:`equivariance_error` is within rounding.

    Args:
        module (callable): What to test.
        group (Group or str, optional): Where elements come from.
            (default: the group of the module's types)
        tol (float, optional): (default: :obj:`1e-10` for float64 and
            :obj:`1e-5` for float32)
        dtype (torch.dtype, optional): See :func:`equivariance_error`.
        **kwargs (optional): Additional arguments of
            :func:`equivariance_error`.

    Raises:
        AssertionError: If the error is larger (or not a number). States it,
            the tolerance and the group element.
    """
    dtype = _dtype_of(module, kwargs.get('inputs'), dtype)
    # Lower precision than float32 passes with 64 roundings.
    tol = (TOLERANCE.get(dtype, 64 * torch.finfo(dtype).eps) if tol is None
           else checks.real('tol', tol, 0))
    arguments = {'in_types': None, 'out_types': None, 'inputs': None,
                 'elements': None, 'num_samples': 6, 'seed': 0}
    unknown = set(kwargs) - set(arguments)
    if unknown:
        raise TypeError(f"Expected arguments of 'equivariance_error' (got "
                        f"{sorted(unknown)})")
    error, g = _worst(module, group, dtype=dtype, **{**arguments, **kwargs})
    if not error <= tol:
        name = getattr(module, '__name__', type(module).__name__)
        of = '' if group is None else f' under {Group.wrap(group)}'
        raise AssertionError(
            f"Expected '{name}' to be equivariant{of} with a relative error "
            f"up to {tol:.1e} in {dtype} (got {error:.1e} at the element "
            f"{[[round(a, 6) for a in row] for row in g.tolist()]})")


def _elements(case: Case, group, num_samples: int, seed: int) -> Tensor:
    if group is None:
        types = [t for t in case.in_types + case.out_types
                 if hasattr(t, 'group')]
        if not types:
            raise TypeError("Expected a 'group' where no FieldType among the "
                            "types names it (got None)")
        group = types[0].group
    group = Group.wrap(group)
    if case.allowed is None:
        generator = torch.Generator('cpu').manual_seed(seed + 1)
        return torch.cat([group.generators, group.components[:8],
                          group.sample(num_samples, generator=generator)])
    return case.allowed[[group.contains(R) for R in case.allowed]]


def _move(x, kind, R: Tensor, shift: Tensor):
    if kind is None:
        return x
    if kind == 'pos':
        return x @ R.to(x.dtype).T + shift.to(x.dtype)
    if type(kind) is type(x):  # a list or a tuple of arguments
        moved = [_move(*both, R, shift) for both in zip(x, kind)]
        return type(x)(*moved) if hasattr(x, '_fields') else type(x)(moved)
    return kind.act(x, R)


def _call(case: Case, inputs) -> tuple:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        out = case.function(*inputs)
    return tuple(out) if isinstance(out, (tuple, list)) else (out, )


def _relative(difference: Tensor, reference: Tensor) -> Tensor:
    error, norm = difference.double().norm(), reference.double().norm()
    return torch.where(error == 0, error, error / norm)


def _worst(module, group, in_types, out_types, inputs, elements, num_samples,
           dtype, seed) -> tuple[float, Tensor]:
    """The largest error, and the element where it occurs."""
    num_samples = checks.integer('num_samples', num_samples, 0, 2**16)
    seed = checks.integer('seed', seed, 0, 2**62)
    if elements is not None:
        elements = read_matrices('elements', elements).reshape(-1, 3, 3)
    found, tried = [], 0
    for case in _cases(module, group, in_types, out_types, inputs, dtype,
                       seed):
        here = (_elements(case, group, num_samples, seed)
                if elements is None else _allowed(case, elements))
        if len(here):
            found.append(_worst_of(case, here, seed))
        moves = (here - torch.eye(3, dtype=here.dtype)).abs().amax((1, 2)) > 0
        tried += len(here) if case.allowed is None else int(moves.sum())
    if tried < 1:
        raise ValueError(f"Expected elements, besides the identity, that turn "
                         f"the grid of '{type(module).__name__}' into itself "
                         f"(got none). Test it with another group")
    return max(found, key=lambda f: f[0] if f[0] == f[0] else float('inf'))


def _allowed(case: Case, elements: Tensor) -> Tensor:
    if case.allowed is None:
        return elements
    distance = (elements[:, None] - case.allowed).abs().amax((-1, -2))
    return elements[distance.amin(1) < 1e-6]


def _worst_of(case: Case, elements: Tensor, seed: int
              ) -> tuple[float, Tensor]:
    generator = torch.Generator('cpu').manual_seed(seed + 2)
    before, errors = _call(case, case.inputs), []
    if len(before) != len(case.out_types):
        raise ValueError(f"Expected one of 'out_types' for each output (got "
                         f"{len(case.out_types)} and {len(before)})")
    for R in elements:
        shift = torch.randn(3, generator=generator, dtype=torch.float64,
                            device='cpu')
        after = _call(case, [_move(x, kind, R, shift) for x, kind in
                             zip(case.inputs, case.in_types)])
        errors.append(torch.stack([
            _relative(b - _move(a, kind, R, shift), a)
            for a, b, kind in zip(before, after, case.out_types)
        ]).max())
    worst = int(torch.stack(errors).nan_to_num(nan=torch.inf).argmax())
    return float(errors[worst]), elements[worst]
