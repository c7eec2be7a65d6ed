"""What every layer is: a map between field types."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..ops.lattice_edges import Triple, triple
from ..symmetry.fields import FieldType, check_same_group
from ..symmetry.grid import Voxels, cube_symmetries
from .constants import ConstantModule

#: Numbers of voxels along *(z, y, x)*.
Grid = Triple

#: What layers of any type are tried with.
ANY = '1x0e + 1x1o'
#: The rows of examples.
ROWS = 10
#: Larger grids are no examples.
MAX_SIDE = 256


class Example(NamedTuple):
    """What a module takes and gives: arguments, and how these and the
    outputs transform. A type is a :class:`FieldType`, :obj:`'pos'` for
    positions, :class:`Voxels`, any other object with a :obj:`group` and an
    :obj:`act(x, R)`, :obj:`None` for what the group leaves alone, or, for a
    list or tuple of arguments, a list or tuple of types; :obj:`allowed` are
    the matrices that can act at all (on a grid), if not all.
    """
    inputs: tuple
    in_types: tuple
    out_types: tuple
    allowed: Tensor | None = None

    def beside(self, *inputs) -> Example:
        """With further arguments, which the group leaves alone."""
        return self._replace(inputs=self.inputs + inputs,
                             in_types=self.in_types + len(inputs) * (None, ))


class FieldModule(ConstantModule):
    r"""A module that maps fields of one type to fields of another one and
    commutes with their group,

    .. math::
        f(\rho_{in}(g) \mathbf{x}) = \rho_{out}(g) f(\mathbf{x}),
        \quad g \in G.

    Subclasses call :meth:`set_types`, look at their input with
    :meth:`check_input`, and say in :meth:`example` what they take, if it is
    more than fields; :func:`pyg_steerable.testing.assert_equivariant` then
    tests them, and other layers know how to feed them.

    .. code-block:: python

        class Half(FieldModule):
            def __init__(self, field_type):
                super().__init__()
                self.set_types(field_type)

            def forward(self, x):
                self.check_input(x)
                return x / 2

    It needs no arguments, so that it can be a second base class:
    :obj:`class Conv(MessagePassing, FieldModule)`.

    Attributes:
        in_type (FieldType or None): The type of the input; :obj:`None` for
            fields of any type, which come out as they go in.
        out_type (FieldType or None): The type of the output.
        channel_axis (int): Where the fields lie: the last dimension, or the
            second one, which voxels have, [B, d, D, H, W].
        flat_maps (tuple[str]): The parameters that are flat vectors of the
            weights of linear maps, which weight decay is for.
    """
    in_type: FieldType | None = None
    out_type: FieldType | None = None
    channel_axis: int = -1
    flat_maps: tuple[str, ...] = ()

    def set_types(self, in_type: FieldType,
                  out_type: FieldType | None = None) -> None:
        """Sets the types of input and output, one if they are the same.

        Raises:
            TypeError: If one is no field type.
            ValueError: If they belong to different groups.
        """
        in_type = FieldType.wrap(in_type)
        out_type = in_type if out_type is None else FieldType.wrap(out_type)
        check_same_group(in_type, out_type)
        self.in_type, self.out_type = in_type, out_type

    def check_input(self, x: Tensor, name: str = 'x') -> None:
        """Raises an error unless :obj:`x` is a dense tensor of floating
        numbers that holds fields of :obj:`in_type`, where the module is.
        """
        if self.in_type is None:
            checks.tensor(name, x, what='a tensor of fields')
        else:
            self.in_type.check(x, name, self.channel_axis)
        own = self._own_tensor()
        if own is not None:
            checks.same_device(**{name: x, type(self).__name__: own})

    def _own_tensor(self) -> Tensor | None:
        """Some tensor of the module: it is where all are."""
        for module in self.modules():
            for own in (*module._buffers.values(),
                        *module._parameters.values()):
                if own is not None:
                    return own
        return None

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights; without any, that of the constants."""
        for tensors in (self.parameters(), self.buffers()):
            for own in tensors:
                if own.is_floating_point():
                    return own.dtype
        return torch.get_default_dtype()

    # Grids #################################################################

    def grid_after(self, grid: Grid) -> Grid | None:
        """The grid of the output of a layer of voxels, or :obj:`None` where
        it is not as large on both sides of the centre, or the layer does not
        fit on it.
        """
        return grid

    def symmetries(self) -> Tensor:
        """The matrices that turn what a layer of voxels sees into itself."""
        return cube_symmetries()

    # Examples ##############################################################

    def example(self, generator: torch.Generator) -> Example:
        """Random input with its types, float64 on the CPU. By default rows
        of fields, or the smallest cube of voxels that fits.
        """
        in_type = FieldType(ANY) if self.in_type is None else self.in_type
        out_type = in_type if self.out_type is None else self.out_type
        if self.channel_axis == -1:
            return Example((random_fields(in_type, generator), ),
                           (in_type, ), (out_type, ))
        x = random_fields(in_type, generator, 1, *self._fitting_grid())
        return Example((x.movedim(-1, 1), ), (Voxels(in_type), ),
                       (Voxels(out_type), ), self.symmetries())

    def _fitting_grid(self) -> Grid:
        """The smallest cube that leaves more than one voxel."""
        for side in range(2, MAX_SIDE):
            grid = self.grid_after(3 * (side, ))
            if grid is not None and min(grid) > 1:
                return 3 * (side, )
        raise ValueError(f'Expected a layer that keeps the centre of some '
                         f'cube of less than {MAX_SIDE} voxels along each '
                         f'axis (got {self}). Take paddings that fit its '
                         f'strides')


def random_fields(field_type: FieldType, generator: torch.Generator,
                  *shape: int) -> Tensor:
    """Normal fields in the last dimension, by default :obj:`ROWS` of them."""
    return torch.randn(*(shape or (ROWS, )), field_type.dim,
                       generator=generator, dtype=torch.float64, device='cpu')


def random_positions(generator: torch.Generator, rows: int = ROWS) -> Tensor:
    """Normal points in space, [N, 3]."""
    return torch.randn(rows, 3, generator=generator, dtype=torch.float64,
                       device='cpu')


def strided_grid(grid: Grid, kernel_size, stride, padding) -> Grid | None:
    """The grid of the output of a stencil, for
    :meth:`FieldModule.grid_after`; numbers may be triples.
    """
    out = []
    for n, *numbers in zip(grid, *map(_triple, (kernel_size, stride,
                                                padding))):
        size, step, zeros = numbers
        steps, left = divmod(n + 2 * zeros - size, step)
        if n < size or left:
            return None
        out.append(steps + 1)
    return triple(out)


def _triple(number) -> Grid:
    return number if isinstance(number, tuple) else 3 * (number, )
