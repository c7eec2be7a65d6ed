"""Smoothing, subsampling and pooling of voxels, as tensors or as graphs."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.utils import scatter

from ... import checks
from ...graph.lattice.data import LatticeData, check_lattice
from ...graph.lattice.stencil import Stencil, check_same_box, short
from ...ops.lattice import lattice_conv
from ...ops.precision import at_least_float32, full_precision
from ...symmetry.grid import box_symmetries
from ..field import Example, FieldModule, Grid, strided_grid

#: Of a low-pass filter: half of a stencil's largest size.
MAX_SCALE = 24.


class LatticeFilter(FieldModule):
    r"""A filter that is a product of three lines of weights, the same for
    all channels,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{\mathbf{k}} a_{k_z} b_{k_y} c_{k_x}
        \mathbf{x}_{t i - p + \mathbf{k}}.

    It commutes with everything that acts on the components of fields. On
    graphs, voxels that are no nodes count as zero.

    Args:
        line (Tensor or tuple[Tensor]): The weights, symmetric, an odd
            number; or three of them along *(z, y, x)*.
        stride, padding (optional): Numbers, or three of them along
            *(z, y, x)*, see :class:`~pyg_steerable.graph.Stencil`.

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`, or node features
          :math:`(|\mathcal{V_s}|, C)` and a
          :class:`~pyg_steerable.graph.lattice.LatticeData` with the
          filter's stencil
        - **output:** voxels :math:`(B, C, D', H', W')`, or node features
          :math:`(|\mathcal{V_t}|, C)`
    """
    line_z: Tensor
    line_y: Tensor
    line_x: Tensor
    channel_axis = 1

    def __init__(self, line: Tensor | Sequence[Tensor], stride=1,
                 padding=None):
        super().__init__()
        lines: Sequence[Tensor] = (3 * (line, ) if isinstance(line, Tensor)
                                   else line)
        if len(lines) != 3:
            raise ValueError(f"Expected 'line' to be a vector of weights, or "
                             f"three of them along (z, y, x) (got "
                             f"{len(lines)} of them)")
        for axis, weights in zip('zyx', lines):
            _check_line(weights)
            self.register_constant(f'line_{axis}', weights)
        self.stencil = Stencil([len(line) for line in lines], stride, padding)

    @property
    def lines(self) -> tuple[Tensor, Tensor, Tensor]:
        """The weights along *(z, y, x)*."""
        return self.line_z, self.line_y, self.line_x

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        if lattice is None:
            return self._along_axes(x)
        check_lattice(lattice)
        checks.tensor('x', x, what='a tensor of features')
        rows = lattice.coord.shape[0]
        checks.shaped('x', x, (rows, None),
                      f'[{rows}, C], one row for each voxel')
        check_same_box(self.stencil, lattice.geometry.stencil, 'filter')
        z, y, x_ = (line.to(x.dtype) for line in self.lines)
        weight = (z[:, None, None] * y[:, None] * x_).flatten()
        return lattice_conv(x, weight, lattice.edges)

    def _along_axes(self, x: Tensor) -> Tensor:
        check_dense(x)
        sizes, pads = self.stencil.kernel_size, self.stencil.padding
        if any(n + 2 * p < s for n, p, s in zip(x.shape[2:], pads, sizes)):
            raise ValueError(
                f'Expected voxels with at least {short(sizes)} voxels along '
                f'each axis, padding included (got {list(x.shape)}). Pad '
                f'them with zeros')
        # One product of matrices for each axis is many times faster than
        # grouped convolutions or shifted copies, above all in backward.
        with full_precision(x):
            Mz, My, Mx = (self._matrix(axis, n, x.dtype)
                          for axis, n in enumerate(x.shape[2:]))
            planes = Mz @ x.flatten(3).flatten(0, 1)
            planes = planes.unflatten(0, x.shape[:2]).unflatten(
                3, x.shape[3:])
            return My @ planes @ Mx.T

    def _matrix(self, axis: int, size: int, dtype: torch.dtype) -> Tensor:
        """The filter along an axis of so many voxels, [out, size]."""
        own, line = self.stencil, self.lines[axis]
        length, step, pad = (numbers[axis] for numbers in (
            own.kernel_size, own.stride, own.padding))
        out = (size + 2 * pad - length) // step + 1
        first = step * torch.arange(out, device=line.device) - pad
        k = torch.arange(size, device=line.device) - first.unsqueeze(1)
        line = F.pad(line, (0, 1))  # its last weight is none
        inside = (k >= 0) & (k < length)
        return line[k.where(inside, length)].to(dtype)

    def grid_after(self, grid: Grid) -> Grid | None:
        own = self.stencil
        return strided_grid(grid, own.kernel_size, own.stride, own.padding)

    def symmetries(self) -> Tensor:
        """Axes may change places where they are alike."""
        own = self.stencil
        return box_symmetries(own.kernel_size, own.stride, own.padding)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(kernel_size='
                f'{short(self.stencil.kernel_size)}, '
                f'stride={short(self.stencil.stride)})')


def _check_line(line) -> None:
    """Raises an error unless these are weights that commute with groups."""
    checks.tensor('line', line, what='a vector of weights')
    checks.shaped('line', line, (None, ), '[s]')
    checks.finite('line', line)
    if not torch.equal(line, line.flip(0)):
        raise ValueError(f"Expected 'line' to be symmetric (got "
                         f"{checks.show(line.tolist())}): others do not "
                         f"commute with the group")


def check_dense(x: Tensor) -> None:
    """Raises a ValueError unless x has the shape of voxels."""
    checks.tensor('x', x, what='a tensor of voxels')
    if x.dim() != 5:
        raise ValueError(f'Expected voxels of shape [B, C, D, H, W] (got '
                         f'{list(x.shape)}). For node features pass the '
                         f'lattice, too')


class LatticeLowPass(LatticeFilter):
    r"""The Gaussian low-pass filter before subsampling from the `"3D
    Steerable CNNs" <https://arxiv.org/abs/1807.02547>`_ paper: of width

    .. math::
        \sigma = \tfrac{1}{2} \sqrt{scale^2 - 1}

    voxels, cut off at :math:`2.5 \, \sigma`, so that a grid of :obj:`scale`
    times the spacing resolves what is left. Without it subsampling breaks
    the equivariance under rotations.

    Args:
        scale (float or tuple[float], optional): Up to one, nothing is
            smoothed; *(1, 2, 2)* smooths images. (default: :obj:`2.0`)
        stride (int or tuple[int], optional): Keep every so many voxels, see
            :class:`~pyg_steerable.graph.Stencil`. (default: :obj:`1`)
        padding (int or tuple[int], optional): (default: half of the filter)

    Shapes:
        - See :class:`LatticeFilter`; the filter has 5 voxels along an axis
          for a scale of 2.
    """
    def __init__(self, scale: float | Sequence[float] = 2., stride=1,
                 padding=None):
        scales = scale if isinstance(scale, (tuple, list)) else 3 * (scale, )
        super().__init__([_gaussian(scale) for scale in scales], stride,
                         padding)


def _gaussian(scale: float) -> Tensor:
    """The low-pass filter along an axis."""
    scale = checks.real('scale', scale, above=0., most=MAX_SCALE)
    sigma = 0.5 * max(0., scale**2 - 1)**0.5
    size = int(1 + 2 * 2.5 * sigma)
    reach = size // 2  # an even size is one less than the next odd one
    place = torch.arange(-reach, reach + 1, dtype=torch.float64, device='cpu')
    line = torch.exp(-0.5 * (place / max(sigma, 1e-9)).square())
    return line / line.sum()


class LatticeAvgPool(LatticeFilter):
    r"""Average pooling of voxels, with zeros outside of the grid counted as
    in :class:`torch.nn.AvgPool3d`.

    Args:
        kernel_size (int or tuple[int], optional): The sizes of the stencil,
            odd. (default: :obj:`3`)
        stride (int or tuple[int], optional): See
            :class:`~pyg_steerable.graph.Stencil`. (default: :obj:`2`)
        padding (int or tuple[int], optional):
            (default: :obj:`kernel_size // 2`)

    Shapes:
        - See :class:`LatticeFilter`.
    """
    def __init__(self, kernel_size=3, stride=2, padding=None):
        sizes = Stencil(kernel_size, stride, padding).kernel_size
        super().__init__([torch.full((s, ), 1 / s, dtype=torch.float64,
                                     device='cpu') for s in sizes],
                         stride, padding)


class LatticeGlobalPool(FieldModule):
    r"""One vector for each grid: the mean (or sum) over all voxels there
    are. On graphs these are the nodes.

    Args:
        reduce (str, optional): :obj:`"mean"` or :obj:`"sum"`; nothing else
            commutes with the group. (default: :obj:`"mean"`)

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`, or features of the
          lattice's output :math:`(|\mathcal{V_t}|, C)` and the lattice
        - **output:** :math:`(B, C)`
    """
    channel_axis = 1

    def __init__(self, reduce: str = 'mean'):
        super().__init__()
        self.reduce = checks.choice('reduce', reduce, ('mean', 'sum'))

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        if lattice is None:
            check_dense(x)
            out = getattr(x.to(at_least_float32(x)), self.reduce)((2, 3, 4))
            return out.to(x.dtype)
        check_lattice(lattice)
        checks.tensor('x', x, what='a tensor of features')
        batch = lattice.edges.batch_dst
        checks.shaped('x', x, (batch.shape[0], None),
                      f"[{batch.shape[0]}, C], one row for each voxel of the "
                      f"lattice's output")
        return scatter(x.to(at_least_float32(x)), batch, 0,
                       lattice.num_lattices, self.reduce).to(x.dtype)

    def example(self, generator: torch.Generator) -> Example:
        """Voxels, and one vector for each grid."""
        example = super().example(generator)
        return example._replace(out_types=(example.in_types[0].field_type, ))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.reduce!r})'
