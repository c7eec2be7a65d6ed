"""Equivariance as a movie."""
from __future__ import annotations

import math
import os
import os.path as osp
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..datasets.shapes.rotation import rotate_voxels
from ..datasets.shapes.tetris import TETRIS, tetris_voxels
from ..nn import Gate, LatticeLowPass, LatticeSteerableConv
from ..symmetry.fields import FieldType
from ..symmetry.generators import rotation
from ..symmetry.groups import read_matrices
from .drawing import call_user, new_figure, read_vector, show_image

#: Of the networks of the movie.
MAX_CHANNELS = 256


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
    weight = next(iter(getattr(net, 'parameters', list)()), voxels)
    voxels = voxels.to(weight.dtype)
    checks.finite('voxels', voxels, 'channel')
    frames = []
    for R in read_matrices('rotations', rotations).reshape(-1, 3, 3):
        turned = rotate_voxels(voxels, R)
        fields = call_user('net', net, 'voxels [1, C, S, S, S]',
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
    axis = read_vector('axis', axis).tolist()
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
    figure = new_figure(9.6, 5.4)
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
    show_image(row[0], frame.voxels.sum((0, 1)),
               first.voxels.sum((0, 1)).max(), extent, 'Greys', 0.)
    scalar, vector = places
    for ax, title, now, start in zip(
            row[1:], (f'{name} output', 'rotated back'), frame[1:],
            first[1:]):
        ax.set_title(title, fontsize=11)
        now, start = now.sum(1), start.sum(1)  # over z
        show_image(ax, now[scalar], start[scalar].abs().max(), extent)
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
