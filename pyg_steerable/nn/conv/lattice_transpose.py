"""The transposed convolution of voxels."""
from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import checks
from ...graph.lattice.data import LatticeData
from ...graph.lattice.stencil import short
from ...ops.lattice_edges import triple
from ..field import Grid
from .lattice import LatticeSteerableConv


class LatticeSteerableConvTranspose(LatticeSteerableConv):
    r"""The transposed of a strided :class:`LatticeSteerableConv`: from the
    coarse voxels back to the fine ones,

    .. math::
        \mathbf{x}^{\prime}_j = \sum_{i: j \in \mathcal{N}(i)}
        k(\mathbf{p}_i - \mathbf{p}_j) \, \mathbf{x}_i + \mathbf{b}.

    It runs along the edges of the lattice of the strided convolution in the
    other direction, so that decoders need no lattices of their own.

    .. code-block:: python

        coarse = down(x, lattice)      # LatticeSteerableConv(..., stride=2)
        fine = up(coarse, lattice)     # on the voxels of x
        fine = up(voxels, size=(32, 32, 32))

    Args:
        in_type, out_type, kernel_size, stride, padding, **kwargs: See
            :class:`LatticeSteerableConv`.

    Shapes:
        - **input:** voxels :math:`(B, d_{in}, D, H, W)`, or features of the
          lattice's output :math:`(|\mathcal{V_t}|, d_{in})` and the lattice
        - **output:** voxels :math:`(B, d_{out}, D', H', W')`, or features
          :math:`(|\mathcal{V_s}|, d_{out})`
    """
    is_transposed = True

    def _relative_positions(self) -> Tensor:
        return -super()._relative_positions()

    def _gain(self) -> float:
        # Of the offsets, each voxel is reached by this part only.
        return prod(self.stencil.stride)**0.5

    def forward(self, x: Tensor, lattice: LatticeData | None = None,
                size: tuple[int, int, int] | None = None) -> Tensor:
        return self._convolve(x, lattice, size)

    def _on_voxels(self, x: Tensor, weight: Tensor, bias: Tensor | None,
                   size: Sequence[int] | None = None) -> Tensor:
        return self._call(F.conv_transpose3d, x, weight.transpose(0, 1), bias,
                          self._surplus(x.shape[2:], size))

    def _through_voxels(self, x: Tensor, lattice: LatticeData, weight: Tensor,
                        bias: Tensor | None) -> Tensor:
        voxels = lattice.scatter(x, targets=True)
        return lattice.gather(self._on_voxels(voxels, weight, bias,
                                              lattice.grid))

    def _check_fits(self, x: Tensor) -> None:
        """Any coarse grid that has a fine one."""
        least = self._least(x.shape[2:])
        if min(least) < 1:
            raise ValueError(f"Expected voxels enough for 'padding' "
                             f"{short(self.stencil.padding)} (got "
                             f"{list(x.shape)})")

    def _least(self, coarse) -> list[int]:
        own = self.stencil
        return [(n - 1) * t + s - 2 * p for n, t, s, p in zip(
            coarse, own.stride, own.kernel_size, own.padding)]

    def _surplus(self, coarse, size) -> tuple[int, ...]:
        """Voxels that the strided convolution leaves out at the end."""
        least = self._least(coarse)
        size = least if size is None else checks.integers('size', size, 3)
        surplus = tuple(n - m for n, m in zip(size, least))
        stride = self.stencil.stride
        if not all(0 <= n < t for n, t in zip(surplus, stride)):
            raise ValueError(f"Expected 'size' to be from {least}, and less "
                             f"than {short(stride)} larger (got {size})")
        return surplus

    def grid_after(self, grid: Grid) -> Grid | None:
        fine = triple(self._least(grid))
        return fine if min(fine) > 0 else None

    def to_conv3d(self):
        """See :meth:`to_conv_transpose3d`."""
        raise TypeError("Expected 'to_conv_transpose3d' for a transposed "
                        "convolution (got 'to_conv3d')")

    def to_conv2d(self):
        """See :meth:`to_conv_transpose2d`."""
        raise TypeError("Expected 'to_conv_transpose2d' for a transposed "
                        "convolution (got 'to_conv2d')")

    @torch.no_grad()
    def to_conv_transpose3d(self) -> torch.nn.ConvTranspose3d:
        """A plain transposed convolution with the same result on voxels."""
        return self._export(torch.nn.ConvTranspose3d)

    @torch.no_grad()
    def to_conv_transpose2d(self) -> torch.nn.ConvTranspose2d:
        """The same of images, see :meth:`to_conv2d` of
        :class:`LatticeSteerableConv`.
        """
        return self._export(torch.nn.ConvTranspose2d)
