"""What is tested: a function, inputs, and how both transform."""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .. import checks
from ..nn.chain import as_field_module
from ..nn.field import FieldModule, random_fields, random_positions
from ..symmetry.fields import FieldType
from ..symmetry.grid import Voxels, box_symmetries


class Case(NamedTuple):
    """A function with inputs, and how these and the outputs transform;
    :obj:`allowed` says which matrices can act on them at all.
    """
    function: Callable
    inputs: tuple
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
    is_known = in_types is None or out_types is None
    cases = (_known(module, generator) if is_known else
             [Case(module, (), in_types, out_types)])
    in_types = _read_types('in_types', in_types, group)
    out_types = _read_types('out_types', out_types, group)
    if in_types or out_types or inputs is not None:
        cases = cases[:1]
    if inputs is None and not is_known:
        inputs = [_random(kind, generator) for kind in in_types or ()]
    return [_filled(case, in_types, out_types, inputs, dtype)
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


def _filled(case: Case, in_types, out_types, inputs, dtype) -> Case:
    in_types = tuple(case.in_types if in_types is None else in_types)
    out_types = tuple(case.out_types if out_types is None else out_types)
    inputs = case.inputs if inputs is None else inputs
    if len(inputs) != len(in_types):
        raise ValueError(f"Expected as many 'inputs' as 'in_types' (got "
                         f"{len(inputs)} and {len(in_types)})")

    def cast(x):
        floating = isinstance(x, Tensor) and x.is_floating_point()
        return x.to(dtype) if floating else x

    allowed = case.allowed
    if allowed is None and any(isinstance(t, Voxels)
                               for t in in_types + out_types):
        allowed = box_symmetries(*(x.shape[-3:] for x, t in
                                   zip(inputs, in_types)
                                   if isinstance(t, Voxels)))
    return Case(case.function, tuple(tree_map(cast, list(inputs))), in_types,
                out_types, allowed)


def _random(kind, generator) -> Tensor:
    if kind is None:
        raise ValueError("Expected 'inputs' for arguments of type None, "
                         "which the group leaves alone (got none)")
    if isinstance(kind, FieldType):
        return random_fields(kind, generator)
    if kind == 'pos':
        return random_positions(generator)
    raise ValueError("Expected 'inputs' for arguments on a grid, whose "
                     "size is not known (got none)")


def _known(module, generator) -> list[Case]:
    """What the module says itself; of one on a grid, which few elements turn
    into itself, also what those parts say that any element can act on.
    """
    module = as_field_module(module)
    case = Case(module, *module.example(generator))
    if case.allowed is None:
        return [case]
    parts = [Case(m, *m.example(generator)) for m in module.modules()
             if isinstance(m, FieldModule) and m is not module]
    return [case, *(part for part in parts if part.allowed is None)]
