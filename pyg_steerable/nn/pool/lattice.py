"""Smoothing, subsampling and pooling of voxels, as tensors or as graphs."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.utils import scatter

from ... import checks
from ...graph.lattice.data import LatticeData, check_lattice
from ...graph.lattice.stencil import check_stencil
from ...ops.lattice import lattice_conv
from ...ops.precision import at_least_float32, full_precision
from ..field import Example, FieldModule, Grid, strided_grid

#: Of a low-pass filter: half of a stencil's largest size.
MAX_SCALE = 24.


class LatticeFilter(FieldModule):
    r"""A filter that is a product of three equal lines of weights, the same
    for all channels,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{\mathbf{k}} a_{k_z} a_{k_y} a_{k_x}
        \mathbf{x}_{t i - p + \mathbf{k}}.

    It commutes with everything that acts on the components of fields. On
    graphs, voxels that are no nodes count as zero.

    Args:
        line (Tensor): The weights :math:`a`, symmetric, an odd number.
        stride (int, optional): (default: :obj:`1`)
        padding (int, optional): (default: half of the line)

    Shapes:
        - **input:** voxels :math:`(B, C, D, H, W)`, or node features
          :math:`(|\mathcal{V_s}|, C)` and a
          :class:`~pyg_steerable.graph.lattice.LatticeData` with the
          filter's stencil
        - **output:** voxels :math:`(B, C, D', H', W')`, or node features
          :math:`(|\mathcal{V_t}|, C)`
    """
    channel_axis = 1

    def __init__(self, line: Tensor, stride: int = 1,
                 padding: int | None = None):
        super().__init__()
        checks.tensor('line', line, what='a vector of weights')
        checks.shaped('line', line, (None, ), '[s]')
        checks.finite('line', line)
        if not torch.equal(line, line.flip(0)):
            raise ValueError(f"Expected 'line' to be symmetric (got "
                             f"{checks.show(line.tolist())}): others do not "
                             f"commute with the group")
        self.kernel_size, self.stride, self.padding, _ = check_stencil(
            len(line), stride, padding, 1.)
        self.register_constant('line', line)

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        if lattice is None:
            return self._along_axes(x)
        check_lattice(lattice)
        checks.tensor('x', x, what='a tensor of features')
        rows = lattice.coord.shape[0]
        checks.shaped('x', x, (rows, None),
                      f'[{rows}, C], one row for each voxel')
        has = lattice.geometry
        wanted = (self.kernel_size, self.stride, self.padding)
        if (has.kernel_size, has.stride, has.padding) != wanted:
            raise ValueError(
                f"Expected a lattice with the filter's 'kernel_size', "
                f"'stride' and 'padding', {wanted} (got {has}). Build it "
                f"with the same numbers")
        line = self.line.to(x.dtype)
        weight = (line[:, None, None] * line[:, None] * line).flatten()
        return lattice_conv(x, weight, lattice.edges)

    def _along_axes(self, x: Tensor) -> Tensor:
        check_dense(x)
        if min(x.shape[2:]) + 2 * self.padding < self.kernel_size:
            raise ValueError(
                f'Expected voxels with at least {self.kernel_size} voxels '
                f'along each axis, padding included (got {list(x.shape)}). '
                f'Pad them with zeros')
        # One product of matrices for each axis is many times faster than
        # grouped convolutions or shifted copies, above all in backward.
        with full_precision(x):
            Mz, My, Mx = (self._matrix(n, x.dtype) for n in x.shape[2:])
            planes = Mz @ x.flatten(3).flatten(0, 1)
            planes = planes.unflatten(0, x.shape[:2]).unflatten(
                3, x.shape[3:])
            return My @ planes @ Mx.T

    def _matrix(self, size: int, dtype: torch.dtype) -> Tensor:
        """The filter along an axis of so many voxels, [out, size]."""
        out = (size + 2 * self.padding - self.kernel_size) // self.stride + 1
        device = self.line.device
        first = self.stride * torch.arange(out, device=device) - self.padding
        k = torch.arange(size, device=device) - first.unsqueeze(1)
        line = F.pad(self.line, (0, 1))  # its last weight is none
        inside = (k >= 0) & (k < self.kernel_size)
        return line[k.where(inside, self.kernel_size)].to(dtype)

    def grid_after(self, grid: Grid) -> Grid | None:
        return strided_grid(grid, self.kernel_size, self.stride, self.padding)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(kernel_size={self.kernel_size}, '
                f'stride={self.stride})')


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
        scale (float, optional): Up to one, nothing is smoothed.
            (default: :obj:`2.0`)
        stride (int, optional): Keep every so many voxels.
            (default: :obj:`1`)
        padding (int, optional): (default: half of the filter)

    Shapes:
        - See :class:`LatticeFilter`; the filter's stencil is
          :obj:`kernel_size`, 5 for a scale of 2.
    """
    def __init__(self, scale: float = 2., stride: int = 1,
                 padding: int | None = None):
        scale = checks.real('scale', scale, above=0., most=MAX_SCALE)
        sigma = 0.5 * max(0., scale**2 - 1)**0.5
        size = int(1 + 2 * 2.5 * sigma)
        reach = size // 2  # an even size is one less than the next odd one
        place = torch.arange(-reach, reach + 1, dtype=torch.float64,
                             device='cpu')
        line = torch.exp(-0.5 * (place / max(sigma, 1e-9)).square())
        super().__init__(line / line.sum(), stride, padding)


class LatticeAvgPool(LatticeFilter):
    r"""Average pooling of voxels, with zeros outside of the grid counted as
    in :class:`torch.nn.AvgPool3d`.

    Args:
        kernel_size (int, optional): The stencil size, odd.
            (default: :obj:`3`)
        stride (int, optional): (default: :obj:`2`)
        padding (int, optional): (default: :obj:`kernel_size // 2`)

    Shapes:
        - See :class:`LatticeFilter`.
    """
    def __init__(self, kernel_size: int = 3, stride: int = 2,
                 padding: int | None = None):
        kernel_size = check_stencil(kernel_size, stride, padding, 1.)[0]
        line = torch.full((kernel_size, ), 1 / kernel_size,
                          dtype=torch.float64, device='cpu')
        super().__init__(line, stride, padding)


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
