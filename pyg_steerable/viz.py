r"""Pictures: kernels, and equivariance as a movie.

.. code-block:: python

    plot_arrows({'k': conv}, vector=(0, 0, 1)).savefig('arrows.png')
    plot_slices(conv).savefig('slices.png')
    equivariance_movie('movie.gif')

All of them at once: ``python -m pyg_steerable.viz --out pictures``. They need
matplotlib, which nothing else here does.
"""
from __future__ import annotations

import argparse
import copy
import math
import os
import os.path as osp
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import checks
from .datasets.tetris import TETRIS, tetris_voxels
from .datasets.voxels import rotate_voxels
from .fields import FieldType
from .generators import rotation
from .groups import read_matrices
from .kernels import HarmonicBasis, SteerableKernel
from .nn import Gate, LatticeLowPass, LatticeSteerableConv

_AXES = 'xyz'
#: Points along an axis of a picture.
MAX_RESOLUTION = 2**11
#: Of the networks of the movie.
MAX_CHANNELS = 256
#: Farther from the origin than any kernel reaches.
MAX_EXTENT = 1e9


def _figure(width: float, height: float, **kwargs) -> Any:
    """A figure without a window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Expected the package 'matplotlib', which draws "
                          "pictures (got none). Install it with 'pip install "
                          "matplotlib'") from error
    return Figure(figsize=(width, height), layout='constrained', **kwargs)


# Kernels #####################################################################


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
    values = _call('module', kernel, 'positions [E, 3]', *args)
    if not isinstance(values, Tensor) or values.dim() != 3 or (
            len(values) != len(pos)):
        raise TypeError(f"Expected 'module' to make matrices [E, d_out, "
                        f"d_in] of positions [E, 3] (got "
                        f"{checks.show(values)})")
    return values.cpu().unflatten(0, (resolution, resolution))


def _call(name: str, function: Callable, what: str, *args) -> Any:
    """What a user's callable makes of something, or an error that says what
    that was.
    """
    try:
        return function(*args)
    except (RuntimeError, AttributeError, LookupError) as error:
        raise TypeError(f"Expected '{name}' to take {what} (got "
                        f"{checks.show(function)}, which does not)"
                        ) from error


def _across(normal: str) -> list[int]:
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
    figure = _figure(2 + 1.2 * d_in, 1 + 1.2 * d_out)
    axes = figure.subplots(d_out, d_in, squeeze=False)
    for i, row in enumerate(axes):
        for j, ax in enumerate(row):
            image = _image(ax, values[..., i, j], values.abs().max(), extent)
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


def plot_arrows(modules: dict[str, Callable],
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
    vector = _vector('vector', vector)
    resolution = checks.integer('resolution', resolution, 2, MAX_RESOLUTION)
    extent = checks.real('extent', extent, most=MAX_EXTENT, above=0)
    vector_in = checks.integer('vector_in', vector_in, 0)
    vector_out = checks.integer('vector_out', vector_out, 0)
    figure = _figure(2.6 * len(modules) + 0.6, 2.6 * len(normals) + 0.3)
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
            _arrows(ax, line, k @ vector.to(k), normal)
    for ax, normal in zip(axes[:, 0], normals):
        first, second = (_AXES[i] for i in _across(normal))
        ax.set_ylabel(f'{first} to the right, {second} up\n'
                      f'red: along {normal}, blue: against it')
    numbers = ', '.join(f'{v:g}' for v in vector.tolist())
    figure.suptitle(f'What the vector ({numbers}) at the centre becomes',
                    fontsize=10)
    return figure


def _vector(name: str, value) -> Tensor:
    """Three numbers."""
    try:
        numbers = list(value)
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"Expected '{name}' to be three numbers (got "
                        f"{checks.show(value)})") from error
    vector = torch.tensor([checks.real(name, v) for v in numbers],
                          dtype=torch.get_default_dtype())
    return checks.shaped(name, vector, (3, ), '[3]')


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


def _image(ax, values: Tensor, limit: Tensor, extent: float,
           cmap: str = 'RdBu_r', least: float = -1.) -> Any:
    limit = max(float(limit), 1e-12)
    image = ax.imshow(values.numpy(), origin='lower',
                      extent=2 * (-extent, extent), cmap=cmap,
                      vmin=least * limit, vmax=limit, interpolation='nearest')
    ax.set(xticks=[], yticks=[])
    return image


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
            weight = kernel.eval().product.weight
            weight.copy_(torch.eye(3)[degree])
            weight.mul_(kernel(north)[0][entry].sign())
        kernels[name] = kernel
    return kernels


# Equivariance ################################################################


class SteerableDemo(torch.nn.Module):
    r"""Two steerable convolutions with random weights, from one scalar field
    to a scalar and a vector field: what the movie is about.

    Args:
        channels (int, optional): The scalar and vector fields in between,
            of each. (default: :obj:`4`)
        kernel_size (int, optional): (default: :obj:`5`)
    """
    def __init__(self, channels: int = 4, kernel_size: int = 5):
        super().__init__()
        channels = checks.integer('channels', channels, 1, MAX_CHANNELS)
        self.gate = Gate(FieldType(f'{channels}x0e + {channels}x1o',
                                   'SO(3)'))
        self.out_type = FieldType('0e + 1o', 'SO(3)')
        self.smooth = LatticeLowPass(2.)
        self.first = LatticeSteerableConv(FieldType('0e', 'SO(3)'),
                                          self.gate.in_type, kernel_size)
        self.second = LatticeSteerableConv(self.gate.out_type, self.out_type,
                                           kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.smooth(x))
        return self.second(self.gate(x.movedim(1, -1)).movedim(-1, 1))


def plain_demo(channels: int = 16, kernel_size: int = 5) -> torch.nn.Module:
    """The same with plain convolutions, whose kernels are not steerable."""
    channels = checks.integer('channels', channels, 1, MAX_CHANNELS)
    kernel_size = checks.integer('kernel_size', kernel_size, 1, 63)
    def conv(a, b):
        return torch.nn.Conv3d(a, b, kernel_size, padding=kernel_size // 2,
                               bias=False)

    return torch.nn.Sequential(LatticeLowPass(2.), conv(1, channels),
                               torch.nn.SiLU(), conv(channels, 4))


class Frame(NamedTuple):
    """The input, the output, and the output rotated back."""
    voxels: Tensor
    fields: Tensor
    back: Tensor


@torch.no_grad()
def rotated_frames(net: Callable, voxels: Tensor, out_type: FieldType,
                   rotations) -> list[Frame]:
    r"""Rotates a scalar input, applies a network, and rotates its output
    back: positions and components.

    Args:
        net (callable): From :math:`[1, C, S, S, S]` to the fields, on a grid
            with the same centre.
        voxels (Tensor): The input.
        out_type (FieldType): The type of the output.
        rotations (list): Orthogonal matrices.

    Shapes:
        - **voxels:** :math:`[C, S, S, S]`
    """
    checks.function('net', net)
    checks.tensor('voxels', voxels)
    checks.shaped('voxels', voxels, (None, None, None, None), '[C, S, S, S]')
    checks.has_values('voxels', voxels, 'the picture')
    out_type = FieldType.wrap(out_type)
    weights = getattr(net, 'parameters', list)()
    voxels = voxels.to(next(iter(weights), voxels).dtype)
    checks.finite('voxels', voxels, 'channel')
    frames = []
    for R in read_matrices('rotations', rotations).reshape(-1, 3, 3):
        turned = rotate_voxels(voxels, R)
        fields = _call('net', net, 'voxels [1, C, S, S, S]',
                       turned.unsqueeze(0))
        if not isinstance(fields, Tensor) or fields.shape[:2] != (
                1, out_type.dim) or fields.dim() != 5:
            raise TypeError(f"Expected 'net' to make fields of type "
                            f"{out_type}, a tensor [1, {out_type.dim}, S, S, "
                            f"S] (got {checks.show(fields)})")
        fields = fields[0].cpu()
        back = rotate_voxels(fields, R.T).movedim(0, -1)
        back = out_type.act(back, R.T).movedim(-1, 0)
        frames.append(Frame(turned.cpu(), fields, back))
    return frames


def changes(frames: Sequence[Frame]) -> list[float]:
    """The relative change of the output, rotated back, since the first
    frame; within the ball that no rotation moves out of the grid.
    """
    if not isinstance(frames, (list, tuple)) or not frames or not all(
            isinstance(f, Frame) for f in frames):
        raise TypeError(f"Expected 'frames' to be a list of frames, one or "
                        f"more, as 'rotated_frames' returns it (got "
                        f"{checks.show(frames)})")
    first = frames[0].back
    line = torch.linspace(-1, 1, first.shape[-1])
    z, y, x = torch.meshgrid(line, line, line, indexing='ij')
    ball = z**2 + y**2 + x**2 <= 1
    size = (first * ball).norm()
    if not 0 < size < math.inf:
        raise ValueError(f"Expected 'frames' with an output that is not zero "
                         f"(got one of norm {float(size)})")
    return [float(((f.back - first) * ball).norm() / size) for f in frames]


def equivariance_movie(path: str, net: Callable | None = None,
                       voxels: Tensor | None = None, *,
                       out_type: FieldType | None = None,
                       baseline: Callable | None = None, frames: int = 48,
                       axis: Sequence[float] = (1., 2., 3.),
                       fps: int = 12) -> list[float]:
    r"""The movie of the `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_ paper: the input makes a full turn;
    the output of a steerable network, rotated back, stays put, that of a
    conventional one does not.

    Sums over *z* are shown: of the first invariant component as colour, of
    the first vector field, if any, as arrows.

    Args:
        path (str): Where to write it, as GIF.
        net (callable, optional): From :math:`[1, C, S, S, S]` to fields on
            the same grid, at least one scalar.
            (default: :class:`SteerableDemo`)
        voxels (Tensor, optional): The input, scalars on a cube. (default: a
            shape of Tetris)
        out_type (FieldType, optional): The type of the output.
            (default: :obj:`net.out_type`)
        baseline (callable, optional): Another network with outputs of the
            same type. (default: :func:`plain_demo`)
        frames (int, optional): (default: :obj:`48`)
        axis (tuple, optional): The axis of the rotation.
            (default: :obj:`(1, 2, 3)`)
        fps (int, optional): Frames per second. (default: :obj:`12`)

    Returns:
        list[float]: The relative change of the output of :obj:`net`, rotated
        back, in each frame.

    Shapes:
        - **voxels:** :math:`[C, S, S, S]`

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If the output has no scalar field, or an argument does
            not fit.
    """
    frames = checks.integer('frames', frames, most=10**5)
    fps = checks.integer('fps', fps, most=1000)
    path = checks.path('path', path)
    if not path.endswith('.gif'):
        raise ValueError(f"Expected a 'path' ending in '.gif' (got "
                         f"'{path}')")
    axis = _vector('axis', axis).tolist()
    if not any(axis):
        raise ValueError(f"Expected 'axis' to be a direction (got {axis})")
    net = SteerableDemo() if net is None else net
    baseline = plain_demo() if baseline is None else baseline
    checks.function('net', net)
    checks.function('baseline', baseline)
    out_type = FieldType.wrap(getattr(net, 'out_type', None)
                              if out_type is None else out_type)
    places = [_first(out_type, degree) for degree in (0, 1)]
    if places[0] is None:
        raise ValueError(f"Expected an 'out_type' with a scalar field (got "
                         f"{out_type})")
    if voxels is None:
        cell = 4
        shapes = tetris_voxels(group='1', cell=cell, pad=6)
        voxels = shapes[list(TETRIS).index('chiral_1')].voxels
        voxels = voxels.roll(3 * (cell, ), (1, 2, 3))  # into the middle
    turns = [rotation(axis, 2 * math.pi * i / frames) for i in range(frames)]
    rows = {name: rotated_frames(f, voxels, out_type, turns)
            for name, f in (('steerable', net), ('conventional', baseline))}
    errors = {name: changes(row) for name, row in rows.items()}
    _write_movie(path, rows, errors, places, fps)
    return errors['steerable']


def _first(out_type: FieldType, degree: int) -> int | None:
    """Where the first field of a degree starts."""
    start = 0
    for mul, ir in out_type.irreps:
        if ir.l == degree:
            return start
        start += mul * ir.dim
    return None


def _write_movie(path: str, rows: dict[str, list[Frame]],
                 errors: dict[str, list[float]], places, fps: int) -> None:
    figure = _figure(9.6, 5.4)
    from matplotlib.animation import PillowWriter
    axes = figure.subplots(2, 4)
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    writer = PillowWriter(fps=fps)
    with writer.saving(figure, path, dpi=80):
        for i in range(len(rows['steerable'])):
            for row, (name, frames) in zip(axes, rows.items()):
                _draw_row(row, name, frames[i], frames[0], places)
                row[0].set_title(f'input, turned by '
                                 f'{360 * i / len(frames):.0f}°', fontsize=11)
                _draw_errors(row[3], errors, name, i)
            writer.grab_frame()


def _draw_row(row, name: str, frame: Frame, first: Frame, places) -> None:
    """The input, the output, and the output rotated back; scales are those
    of the first frame.
    """
    for ax in row:
        ax.clear()
    extent = (frame.voxels.shape[-1] - 1) / 2
    _image(row[0], frame.voxels.sum((0, 1)), first.voxels.sum((0, 1)).max(),
           extent, 'Greys', 0.)
    scalar, vector = places
    for ax, title, now, start in zip(
            row[1:], (f'{name} output', 'rotated back'), frame[1:],
            first[1:]):
        ax.set_title(title, fontsize=11)
        now, start = now.sum(1), start.sum(1)  # over z
        _image(ax, now[scalar], start[scalar].abs().max(), extent)
        if vector is not None:
            _flow(ax, now[vector:vector + 2], start[vector:vector + 2],
                  extent)


def _flow(ax, field: Tensor, first: Tensor, extent: float) -> None:
    """Every second arrow of the part of a field in the plane."""
    step = 2
    line = (np.arange(field.shape[-1]) - extent)[1::step]
    u, v = field[:, 1::step, 1::step].numpy()
    scale = float(first.norm(dim=0).max().clamp(min=1e-12)) / (2 * step)
    ax.quiver(line, line, u, v, angles='xy', scale_units='xy', scale=scale,
              width=0.008, minlength=0)


def _draw_errors(ax, errors: dict[str, list[float]], name: str, i: int
                 ) -> None:
    ax.clear()
    ax.set_title('relative change', fontsize=11)
    angle = 360 / len(errors[name]) * np.arange(len(errors[name]))
    for other, values in errors.items():
        ax.plot(angle, values, color='0.85')
        if other == name:
            ax.plot(angle[:i + 1], values[:i + 1], color='C3')
    top = max(max(values) for values in errors.values())
    ax.set(xlim=(0, 360), ylim=(0, 1.1 * top + 1e-12),
           xticks=[0, 90, 180, 270, 360], xlabel='angle [degrees]')


# Command #####################################################################


def main(argv: Sequence[str] | None = None) -> None:
    """Writes all pictures into a folder."""
    parser = argparse.ArgumentParser(
        prog='python -m pyg_steerable.viz',
        description='Draws steerable kernels and the equivariance movie.')
    parser.add_argument('--out', default='pictures',
                        help='the folder to write pictures into '
                        '(default: %(default)s)')
    parser.add_argument('--frames', type=int, default=48,
                        help='the number of frames of the movie, a full turn '
                        '(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='the seed of the random weights '
                        '(default: %(default)s)')
    args = parser.parse_args(argv)
    if args.frames < 1:
        parser.error(f'--frames must be positive (got {args.frames})')
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    kernels = vector_kernels()
    pictures = {'vector_kernels': plot_arrows(kernels)}
    for name, kernel in kernels.items():
        pictures[f'slices_{name.replace(" ", "_")}'] = plot_slices(kernel)
    demo = SteerableDemo()
    few = FieldType('0e + 1o', 'SO(3)')  # of many, nothing could be seen
    random = LatticeSteerableConv(few, few, 5)
    pictures['slices_random'] = plot_slices(random, extent=3.)
    for name, figure in pictures.items():
        path = osp.join(args.out, f'{name}.png')
        figure.savefig(path, dpi=100)
        print(path)
    path = osp.join(args.out, 'equivariance.gif')
    error = equivariance_movie(path, demo, frames=args.frames)
    print(f'{path}: relative change of at most {max(error):.3f}')


if __name__ == '__main__':
    main()
