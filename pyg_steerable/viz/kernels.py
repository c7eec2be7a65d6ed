"""Pictures of kernels: entries as images, and what they make of a vector."""
from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..nn.kernel import HarmonicBasis, SteerableKernel
from ..symmetry.fields import FieldType
from .drawing import call_user, new_figure, read_vector, show_image

_AXES = 'xyz'
#: Points along an axis of a picture.
MAX_RESOLUTION = 2**11
#: Farther from the origin than any kernel reaches.
MAX_EXTENT = 1e9


def kernel_of(module: Callable) -> Callable:
    r"""The kernel of a convolution, or the kernel itself, in eval mode (a
    copy: looking at it must not change any statistic): a function from
    relative positions :math:`[E, 3]` to matrices
    :math:`[E, d_{out}, d_{in}]`.
    """
    kernel = checks.function('module', getattr(module, 'kernel', module),
                             'a convolution or a kernel')
    if isinstance(kernel, torch.nn.Module):
        return copy.deepcopy(kernel).eval()
    return kernel


@torch.no_grad()
def sample_plane(module: Callable, normal: str = 'z', extent: float = 2.,
                 resolution: int = 61, offset: float = 0.,
                 attr: Tensor | None = None) -> Tensor:
    r"""A kernel on a plane through (or beside) the origin.

    Args:
        module (callable): A convolution or a kernel.
        normal (str, optional): The axis that the plane is perpendicular to.
            The other two, in the order of *x, y, z*, are columns and rows.
            (default: :obj:`"z"`)
        extent (float, optional): How far the plane reaches, in the unit of
            positions (voxels on a lattice). (default: :obj:`2.0`)
        resolution (int, optional): The number of points along each axis.
            (default: :obj:`61`)
        offset (float, optional): The place of the plane on its normal.
            (default: :obj:`0.0`)
        attr (Tensor, optional): The attributes :math:`\mathbf{z}` of a
            kernel that takes them. (default: :obj:`None`)

    Shapes:
        - **attr:** :math:`[d_z]`, **output:**
          :math:`[R, R, d_{out}, d_{in}]`

    Raises:
        ValueError: If there is no such axis, or a size is not positive.
    """
    across = _across(normal)
    extent = checks.real('extent', extent, most=MAX_EXTENT, above=0)
    resolution = checks.integer('resolution', resolution, 2, MAX_RESOLUTION)
    offset = checks.real('offset', offset, -MAX_EXTENT, MAX_EXTENT)
    if attr is not None:
        checks.tensor('attr', attr)
        checks.has_values('attr', attr, 'the kernel')
        checks.shaped('attr', attr, (None, ), '[d_z]')
    kernel = kernel_of(module)
    like = next(iter(getattr(kernel, 'parameters', list)()), torch.empty(0))
    line = torch.linspace(-extent, extent, resolution).to(like)
    rows, columns = torch.meshgrid(line, line, indexing='ij')
    pos = torch.full((resolution, resolution, 3), offset).to(like)
    pos[..., across[0]], pos[..., across[1]] = columns, rows
    pos = pos.view(-1, 3)
    args = (pos, ) if attr is None else (
        pos, attr.to(like).expand(len(pos), -1))
    values = call_user('module', kernel, 'positions [E, 3]', *args)
    if not isinstance(values, Tensor) or values.dim() != 3 or (
            len(values) != len(pos)):
        raise TypeError(f"Expected 'module' to make matrices [E, d_out, "
                        f"d_in] of positions [E, 3] (got "
                        f"{checks.show(values)})")
    return values.cpu().unflatten(0, (resolution, resolution))


def _across(normal: str) -> list[int]:
    """The axes of the plane with this normal."""
    checks.choice('normal', normal, ('x', 'y', 'z'))
    return [i for i in range(3) if _AXES[i] != normal]


def plot_slices(module: Callable, normal: str = 'z', extent: float = 2.,
                resolution: int = 61, offset: float = 0.,
                attr: Tensor | None = None) -> Any:
    r"""All entries of a kernel on a plane, as images: rows are components of
    the output, columns those of the input; red is positive, blue negative,
    all on one scale. Scalars are named 1, vectors x, y, z, tensors by degree
    and component.

    Args:
        module, normal, extent, resolution, offset, attr: See
            :func:`sample_plane`.

    Returns:
        matplotlib.figure.Figure: The picture.
    """
    values = sample_plane(module, normal, extent, resolution, offset, attr)
    d_out, d_in = values.shape[2:]
    figure = new_figure(2 + 1.2 * d_in, 1 + 1.2 * d_out)
    axes = figure.subplots(d_out, d_in, squeeze=False)
    for i, row in enumerate(axes):
        for j, ax in enumerate(row):
            image = show_image(ax, values[..., i, j], values.abs().max(),
                               extent)
    for ax, name in zip(axes[-1], _components(module, 'in_type', d_in)):
        ax.set_xlabel(name, fontsize=14)
    for ax, name in zip(axes[:, 0], _components(module, 'out_type', d_out)):
        ax.set_ylabel(name, rotation=0, ha='right', va='center',
                      fontsize=14)
    figure.supxlabel('component of the input')
    figure.supylabel('component of the output')
    figure.colorbar(image, ax=axes, label='kernel', aspect=30)
    first, second = (_AXES[i] for i in _across(normal))
    figure.suptitle(f'{first} to the right, {second} up, {normal} = '
                    f'{offset:g}', fontsize=12)
    return figure


def _components(module: object, which: str, dim: int) -> list[str]:
    """Short names of the components, numbers where no type is known."""
    irreps = getattr(getattr(module, which, None), 'irreps', None)
    if irreps is None:
        return [str(i) for i in range(dim)]
    return [name for mul, ir in irreps for _ in range(mul) for name in {
        0: ['1'], 1: list(_AXES)}.get(
            ir.l, [f'{ir.l},{m}' for m in range(-ir.l, ir.l + 1)])]


def plot_arrows(modules: Mapping[str, Callable],
                vector: Sequence[float] = (0., 0., 1.),
                normals: str = 'zy', extent: float = 2.,
                resolution: int = 13, vector_in: int = 0,
                vector_out: int = 0) -> Any:
    r"""What kernels from vectors to vectors make of one vector at the
    origin, as arrows around it,

    .. math::
        \mathbf{v} \mapsto k(\mathbf{0} - \mathbf{p}) \, \mathbf{v},

    a column for each kernel, a row for each plane. Colours are the component
    along the normal of the plane, red in its direction.

    Args:
        modules (dict): Convolutions or kernels, by title.
        vector (tuple, optional): The vector. (default: :obj:`(0, 0, 1)`)
        normals (str, optional): The normals of the planes.
            (default: :obj:`"zy"`)
        extent, resolution: See :func:`sample_plane`.
        vector_in (int, optional): Where the vector starts among the
            components of the input. (default: :obj:`0`)
        vector_out (int, optional): The same for the output.
            (default: :obj:`0`)

    Returns:
        matplotlib.figure.Figure: The picture.
    """
    if not isinstance(modules, dict) or not modules:
        raise TypeError(f"Expected 'modules' to be a dict of convolutions or "
                        f"kernels by title, one or more (got "
                        f"{checks.show(modules)})")
    for normal in checks.text('normals', normals) or ['']:
        _across(normal)
    v = read_vector('vector', vector)
    resolution = checks.integer('resolution', resolution, 2, MAX_RESOLUTION)
    extent = checks.real('extent', extent, most=MAX_EXTENT, above=0)
    vector_in = checks.integer('vector_in', vector_in, 0)
    vector_out = checks.integer('vector_out', vector_out, 0)
    figure = new_figure(2.6 * len(modules) + 0.6, 2.6 * len(normals) + 0.3)
    axes = figure.subplots(len(normals), len(modules), squeeze=False)
    line = np.linspace(-extent, extent, resolution)
    for column, (title, module) in zip(axes.T, modules.items()):
        column[0].set_title(title)
        for ax, normal in zip(column, normals):
            k = sample_plane(module, normal, extent, resolution)
            k = k.flip(0, 1)  # from the origin to where the arrow is
            k = k[..., vector_out:vector_out + 3, vector_in:vector_in + 3]
            if k.shape[-2:] != (3, 3):
                raise ValueError(f"Expected 'vector_out' and 'vector_in' to "
                                 f"be where vectors of '{title}' start (got "
                                 f"{vector_out} and {vector_in})")
            _arrows(ax, line, k @ v.to(k), normal)
    for ax, normal in zip(axes[:, 0], normals):
        first, second = (_AXES[i] for i in _across(normal))
        ax.set_ylabel(f'{first} to the right, {second} up\n'
                      f'red: along {normal}, blue: against it')
    numbers = ', '.join(f'{n:g}' for n in v.tolist())
    figure.suptitle(f'What the vector ({numbers}) at the centre becomes',
                    fontsize=10)
    return figure


def _arrows(ax, line: np.ndarray, field: Tensor, normal: str) -> None:
    length = float(field.norm(dim=-1).max().clamp(min=1e-12))
    step = line[1] - line[0]
    components = field.movedim(-1, 0).numpy()
    ax.scatter(*np.meshgrid(line, line), s=22, cmap='coolwarm',
               c=components[_AXES.index(normal)], vmin=-length, vmax=length,
               linewidths=0)
    u, v = components[_across(normal)]
    ax.quiver(line, line, u, v, angles='xy', scale_units='xy',
              scale=length / (1.6 * step), width=0.008, minlength=0,
              pivot='mid')
    edge = line[-1] + step
    ax.set(xticks=[], yticks=[], aspect='equal', xlim=(-edge, edge),
           ylim=(-edge, edge))


def vector_kernels(radius: float = 1.) -> dict[str, SteerableKernel]:
    r"""The three kernels from vectors to vectors that SO(3) allows on a
    shell (Fig. 2 of the `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_ paper), of harmonics of degree 0, 1
    and 2: positive multiples of

    .. math::
        \mathbf{1}, \qquad \mathbf{v} \mapsto \hat{\mathbf{x}} \times
        \mathbf{v}, \qquad 3 \hat{\mathbf{x}} \hat{\mathbf{x}}^\top -
        \mathbf{1},

    the identity, a curl, and, like the second derivatives of a radial
    function less their trace, a gradient of the divergence.

    Args:
        radius (float, optional): The radius of the shell.
            (default: :obj:`1.0`)
    """
    radius = checks.scale('radius', radius)
    vectors, kernels = FieldType('1o', 'SO(3)'), {}
    north = torch.tensor([[0., 0., radius]])
    entries = {'identity': (0, 0), 'curl': (1, 0),
               'gradient of divergence': (2, 2)}  # positive there
    for degree, (name, entry) in enumerate(entries.items()):
        kernel = SteerableKernel(HarmonicBasis('SO(3)', 2, radius, shells=1,
                                               sigma=0.4), vectors, vectors)
        with torch.no_grad():
            weight: Any = kernel.eval().product.weight
            weight.copy_(torch.eye(3)[degree])
            weight.mul_(kernel(north)[0][entry].sign())
        kernels[name] = kernel
    return kernels
