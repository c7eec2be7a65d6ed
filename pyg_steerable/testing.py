r"""Measuring equivariance, and a battery of tests to inherit from.

.. code-block:: python

    from pyg_steerable.testing import assert_equivariant, equivariance_error

    assert_equivariant(conv)                # under the group of its types
    equivariance_error(conv, 'O(3)')        # is it more symmetric than that?
"""
from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from . import checks
from .fields import FieldType
from .groups import Group, read_matrices
from .nn import LatticeBlock, LatticeSteerableConv
from .nn.lattice_block import LatticeDropout, LatticeGate

#: The relative error that passes as rounding.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}

_NODES, _EDGES = 10, 40


class Voxels(NamedTuple):
    """The type of fields on a grid, [B, d, D, H, W], with axes *(z, y, x)*:
    only the symmetries of the cube act on them.
    """
    field_type: FieldType

    def act(self, x: Tensor, R: Tensor) -> Tensor:
        """The fields turned, and the grid about its centre."""
        x = self.field_type.act(x.movedim(1, -1), R).movedim(-1, 1)
        # Axis a of x, y, z is axis 4 - a of the tensor.
        source = R.abs().argmax(dim=1).tolist()
        x = x.permute(0, 1, *(4 - source[2 - k] for k in range(3)))
        return x.flip([4 - a for a in range(3) if R[a].sum() < 0])


class Case(NamedTuple):
    """A function with inputs, and how these and the outputs transform;
    :obj:`allowed` says which matrices can act on them at all.
    """
    function: Callable
    inputs: tuple | None
    in_types: tuple
    out_types: tuple
    allowed: Tensor | None = None


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

    Convolutions, kernel bases and field-wise layers of this package know
    their types; for any other callable name them in :obj:`in_types` and
    :obj:`out_types`. Layers of lattices are turned by those elements that are
    symmetries of their grid, and their kernels, which have the whole group,
    at random positions. The module is copied first, stays in train or eval
    mode as it is, and draws the same random numbers (dropout) in every call.

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


# Cases #####################################################################


def _dtype_of(module, inputs=None, dtype=None) -> torch.dtype:
    if dtype is not None:
        return checks.choice('dtype', dtype, checks.FLOATING)
    tensors = list(inputs or [])
    if isinstance(module, torch.nn.Module):
        tensors = [*module.parameters(), *module.buffers(), *tensors]
    for t in tensors:
        if isinstance(t, Tensor) and t.is_floating_point():
            return t.dtype
    return torch.get_default_dtype()


def make_case(module: Callable, in_types=None, out_types=None, inputs=None,
              dtype: torch.dtype | None = None, seed: int = 0) -> Case:
    r"""The function to test with its types and random inputs.

    Raises:
        TypeError: If the types of a callable are neither known nor given.
    """
    return _cases(module, None, in_types, out_types, inputs, dtype, seed)[0]


def _cases(module, group, in_types, out_types, inputs, dtype, seed
           ) -> list[Case]:
    if not callable(module):
        raise TypeError(f"Expected 'module' to be a module or another "
                        f"callable (got {checks.show(module)})")
    if inputs is not None and not isinstance(inputs, (list, tuple)):
        raise TypeError(f"Expected 'inputs' to be a list of arguments (got "
                        f"{checks.show(inputs)})")
    dtype = _dtype_of(module, inputs, dtype)
    if isinstance(module, torch.nn.Module):
        module = copy.deepcopy(module).to(dtype)
    generator = torch.Generator('cpu').manual_seed(
        checks.integer('seed', seed, 0, 2**62))
    if in_types is None or out_types is None:
        cases = _known(module, generator)
    else:
        cases = [Case(module, None, in_types, out_types)]
    in_types = _read_types('in_types', in_types, group)
    out_types = _read_types('out_types', out_types, group)
    if in_types or out_types or inputs is not None:
        cases = cases[:1]
    return [_filled(case, in_types, out_types, inputs, dtype, generator)
            for case in cases]


def _read_types(name: str, types, group) -> tuple | None:
    """The types of a user; a group makes any irreps one."""
    if types is None:
        return None
    if isinstance(types, (str, FieldType)) or not isinstance(types, Sequence):
        raise TypeError(f"Expected '{name}' to be a list with a type for each "
                        f"argument (got {checks.show(types)})")
    return tuple(t if t is None or isinstance(t, (FieldType, Voxels))
                 or isinstance(t, str) and t == 'pos'
                 else FieldType.wrap(t, group) for t in types)


def _filled(case: Case, in_types, out_types, inputs, dtype, generator
            ) -> Case:
    in_types = tuple(case.in_types if in_types is None else in_types)
    out_types = tuple(case.out_types if out_types is None else out_types)
    inputs = case.inputs if inputs is None else inputs
    if inputs is None:
        inputs = [_random(kind, generator) for kind in in_types]
    if len(inputs) != len(in_types):
        raise ValueError(f"Expected as many 'inputs' as 'in_types' (got "
                         f"{len(inputs)} and {len(in_types)})")
    inputs = tuple(
        x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x
        for x in inputs)
    return Case(case.function, inputs, in_types, out_types, case.allowed)


def _random(kind, generator, rows: int = _NODES) -> Tensor:
    if kind is None:
        raise ValueError("Expected 'inputs' for arguments of type None, "
                         "which the group leaves alone (got none)")
    if isinstance(kind, Voxels):
        raise ValueError("Expected 'inputs' for arguments on a grid, whose "
                         "size is not known (got none)")
    width = kind.dim if isinstance(kind, FieldType) else 3
    return torch.randn(rows, width, generator=generator, device='cpu',
                       dtype=torch.float64)


def _known(module, generator) -> list[Case]:
    """The types that the modules of this package name themselves."""
    if isinstance(module, LatticeSteerableConv):
        return [_on_grid(module, module, generator), _kernel(module.kernel)]
    if isinstance(module, LatticeBlock):
        return [_on_grid(module, module.conv, generator)]
    if isinstance(module, (LatticeGate, LatticeDropout)):
        return [_on_grid(module, None, generator)]
    if hasattr(module, 'edge_type') and hasattr(module, 'node_type'):
        return [_convolution(module, generator)]
    return [_pointwise(module)]


def _pointwise(module) -> Case:
    one = getattr(module, 'field_type', None)
    if hasattr(module, 'attr_type') and one is not None:  # a basis
        vector = FieldType('1o', one.group)
        return Case(module, None, (vector, module.attr_type), (one, ))
    in_type = getattr(module, 'in_type', one)
    out_type = getattr(module, 'out_type', one)
    if in_type is None or out_type is None:
        raise TypeError(
            f"Expected 'in_types' and 'out_types' for a callable that has no "
            f"'in_type' and 'out_type' of its own (got "
            f"{type(module).__name__})")
    return Case(module, None, (in_type, ), (out_type, ))


def cube_symmetries() -> Tensor:
    """The 48 matrices that permute and flip the axes of a grid, float64."""
    signs = torch.tensor(list(itertools.product([1., -1.], repeat=3)),
                         dtype=torch.float64, device='cpu')
    eye = torch.eye(3, dtype=torch.float64, device='cpu')
    axes = torch.stack([eye[list(order)]
                        for order in itertools.permutations(range(3))])
    return (signs[:, None, :, None] * axes).flatten(0, 1)


def _on_grid(module, conv, generator) -> Case:
    """Voxels of a size of which a stride keeps the centre."""
    one = getattr(module, 'field_type', None)
    in_type = getattr(module, 'in_type', one)
    out_type = getattr(module, 'out_type', one)
    size, allowed = 3, cube_symmetries()
    if conv is not None:
        least = conv.kernel_size - 2 * conv.padding
        size = least + conv.stride * 2
        while size < conv.kernel_size:
            size += conv.stride
        # Axes may change places where their voxels are as far apart.
        spacing = torch.tensor(conv.spacing[::-1], dtype=torch.float64,
                               device='cpu')
        same = (allowed.abs() @ spacing - spacing).abs() < 1e-6 * spacing
        allowed = allowed[same.all(1)]
    voxels = torch.randn(1, in_type.dim, size, size, size, device='cpu',
                         generator=generator, dtype=torch.float64)
    return Case(module, (voxels, ), (Voxels(in_type), ), (Voxels(out_type), ),
                allowed)


def _kernel(kernel) -> Case:
    """A kernel at random positions, applied to fields."""
    def function(x, positions):
        positions = positions * kernel.basis.radius
        return (kernel(positions) @ x.unsqueeze(-1)).squeeze(-1)

    vector = FieldType('1o', kernel.in_type.group)
    return Case(function, None, (kernel.in_type, vector),
                (kernel.out_type, ))


def _convolution(conv, generator) -> Case:
    """A random graph, with attributes if the layer takes them."""
    edge_index = torch.randint(_NODES, (2, _EDGES), generator=generator,
                               device='cpu')
    edge_type, node_type = (t if t.dim else None
                            for t in (conv.edge_type, conv.node_type))
    inputs = (
        _random(conv.in_type, generator),
        conv.kernel.basis.radius * _random('pos', generator),
        edge_index,
        edge_type and _random(edge_type, generator, _EDGES),
        node_type and _random(node_type, generator),
    )

    def function(x, pos, edge_index, edge_attr, node_attr):
        return conv(x, pos, edge_index, edge_attr=edge_attr,
                    node_attr=node_attr)

    return Case(function, inputs,
                (conv.in_type, 'pos', None, edge_type, node_type),
                (conv.out_type, ))


# Measuring #################################################################


def _elements(case: Case, group, num_samples: int, seed: int) -> Tensor:
    if group is None:
        types = [getattr(t, 'field_type', t)
                 for t in case.in_types + case.out_types]
        types = [t for t in types if isinstance(t, FieldType)]
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
    if isinstance(kind, (FieldType, Voxels)):
        return kind.act(x, R)
    return x @ R.to(x.dtype).T + shift.to(x.dtype)


def _call(case: Case, inputs) -> tuple:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        out = case.function(*inputs)
    return out if isinstance(out, (tuple, list)) else (out, )


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
    found = []
    for case in _cases(module, group, in_types, out_types, inputs, dtype,
                       seed):
        here = (_elements(case, group, num_samples, seed)
                if elements is None else _allowed(case, elements))
        if len(here):
            found.append(_worst_of(case, here, seed))
    if not found or case.allowed is not None and len(here) == 1:
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
    errors = torch.stack(errors)
    worst = int(errors.nan_to_num(nan=torch.inf).argmax())
    return float(errors[worst]), elements[worst]


# The battery ###############################################################


class _Dtypes(TorchDispatchMode):
    """Records the floating types that operators return."""
    def __init__(self):
        super().__init__()
        self.seen: dict[torch.dtype, str] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor) and t.is_floating_point():
                self.seen.setdefault(t.dtype, str(func))
        return out


class EquivariantLayerTests:
    r"""Tests that any equivariant layer should pass, for pytest: inherit and
    define :meth:`make`.

    .. code-block:: python

        class TestMyLayer(EquivariantLayerTests):
            outside = 'O(3)'

            def make(self):
                return MyLayer(FieldType('2x0e + 1x1o', 'SO(2)'))

    Attributes:
        outside (str, Group or None): Elements of this group must *not*
            commute with the layer.
        options (dict): Additional arguments of :func:`equivariance_error`,
            e.g. :obj:`in_types`, and :obj:`tol`, the tolerance of the tests
            in float64.
        least_outside (float): The least error outside.
        smooth (bool): Whether to compare first derivatives with finite
            differences.
    """
    outside = None
    options: dict = {}
    smooth = True
    least_outside = 1e-2

    def make(self) -> torch.nn.Module:
        """Builds the layer (in float32, torch's default)."""
        raise TypeError("Expected a subclass of EquivariantLayerTests to "
                        "define 'make' (got none)")

    def _build(self, seed: int = 0) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.make()
            with torch.no_grad():  # biases must matter
                for p in module.parameters():
                    p.add_(0.1 * torch.randn_like(p))
        return module

    def _case(self, module, dtype=torch.float64) -> Case:
        keys = ('in_types', 'out_types', 'inputs')
        given = {k: self.options[k] for k in keys if k in self.options}
        return make_case(module, dtype=dtype, **given)

    def _outputs(self, module) -> Tensor:
        case = self._case(module)
        out = _call(case, case.inputs)
        return torch.cat([o.flatten() for o in out])

    def _options(self, *without: str) -> dict:
        """Those that one of the tests takes; it sets the dtype itself."""
        return {k: v for k, v in self.options.items()
                if k not in ('dtype', *without)}

    def test_equivariance_float32(self):
        options = self._options('tol')
        if 'tol' in self.options:  # not tighter than float32 can be
            options['tol'] = max(self.options['tol'],
                                 TOLERANCE[torch.float32])
        assert_equivariant(self._build(), dtype=torch.float32, **options)

    def test_equivariance_float64(self):
        # Built in float32: its constants must not be rounded for good.
        assert_equivariant(self._build().double(), **self._options())

    def test_equivariance_in_eval_mode(self):
        assert_equivariant(self._build().double().eval(), **self._options())

    def test_no_equivariance_outside(self):
        import pytest
        if self.outside is None:
            pytest.skip('equivariant under all of O(3)')
        error = equivariance_error(self._build().double(), self.outside,
                                   **self._options('tol'))
        assert error > self.least_outside, (
            f'Expected no equivariance under {self.outside}, i.e. an error '
            f'above {self.least_outside} (got {error:.1e}): the layer is '
            f'more symmetric than that, or sees nothing')

    def test_derivatives(self):
        import pytest
        if not self.smooth:
            pytest.skip('not differentiable')
        module = self._build().double().eval()
        case = self._case(module)
        index = [k for k, x in enumerate(case.inputs)
                 if isinstance(x, Tensor) and x.is_floating_point()]

        def function(*moving):
            inputs = list(case.inputs)
            for k, x in zip(index, moving):
                inputs[k] = x
            return case.function(*inputs)

        moving = [case.inputs[k].clone().requires_grad_() for k in index]
        assert torch.autograd.gradcheck(function, moving, fast_mode=True), (
            'Expected derivatives that agree with finite differences')

    def test_copies(self):
        module = self._build()
        expected = self._outputs(module)
        for kind, other in [('deepcopy', copy.deepcopy(module)),
                            ('pickle', pickle.loads(pickle.dumps(module)))]:
            error = (self._outputs(other) - expected).abs().max()
            assert error == 0, (f'Expected the same output of a copy made by '
                                f'{kind} (got a difference of {error:.1e})')

    def test_state_dict(self):
        module = self._build()
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        other = self._build(seed=1)
        other.load_state_dict(torch.load(file, weights_only=True))
        error = (self._outputs(other) - self._outputs(module)).abs().max()
        assert error == 0, (f'Expected the same output with a loaded state '
                            f'dict (got a difference of {error:.1e})')

    def test_float64_stays_float64(self):
        module = self._build().double()
        case = self._case(module)
        with _Dtypes() as dtypes:
            _call(case, case.inputs)
        other = {str(dtype): name for dtype, name in dtypes.seen.items()
                 if dtype != torch.float64}
        assert not other, (f'Expected float64 throughout (got other numbers '
                           f'from these operators: {other})')
