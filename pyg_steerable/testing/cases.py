"""What is tested: a function, inputs, and how both transform."""
from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..nn import LatticeBlock, LatticeSteerableConv
from ..nn.pointwise.dropout import LatticeDropout
from ..nn.pointwise.gates import LatticeGate
from ..symmetry.fields import FieldType

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


def _side(kernel_size: int, stride: int, padding: int) -> int:
    """Voxels along an axis of which a stride keeps the centre."""
    size = kernel_size - 2 * padding + 2 * stride
    while size < kernel_size:
        size += stride
    return size


def _on_grid(module, conv, generator) -> Case:
    """Voxels of a size of which a stride keeps the centre."""
    one = getattr(module, 'field_type', None)
    in_type = getattr(module, 'in_type', one)
    out_type = getattr(module, 'out_type', one)
    grid, allowed = (3, 3, 3), cube_symmetries()
    if conv is not None:
        own = conv.stencil
        grid = tuple(_side(*numbers) for numbers in zip(
            own.kernel_size, own.stride, own.padding))
        # Axes may change places where they are alike.
        for numbers in (grid, own.kernel_size, own.stride, own.padding,
                        own.ratios):
            side = torch.tensor(numbers[::-1], dtype=torch.float64,
                                device='cpu')
            same = (allowed.abs() @ side - side).abs() <= 1e-6 * side
            allowed = allowed[same.all(1)]
    voxels = torch.randn(1, in_type.dim, *grid, device='cpu',
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
