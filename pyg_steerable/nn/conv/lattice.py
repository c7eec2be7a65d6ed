"""Steerable convolutions on voxels, as tensors or as graphs."""
from __future__ import annotations

from math import isclose

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.typing import OptPairTensor

from ... import checks
from ...graph.lattice.check import can_look
from ...graph.lattice.data import NUMBERS, LatticeData, check_lattice
from ...graph.lattice.stencil import (
    Stencil,
    check_fits,
    check_same_box,
    short,
)
from ...ops.lattice import lattice_conv
from ...ops.limits import limits_of
from ...ops.precision import as_weights
from ...symmetry.fields import FieldType
from ...symmetry.grid import box_symmetries
from ..field import Grid, strided_grid
from ..kernel import BasisSpec, LatticeKernel, SteerableBasis
from ..kernel.spec import read_spec
from .base import FieldConv

ORDERS = ('auto', 'graph', 'dense')
BACKENDS = ('auto', 'reference')


def _one_more(x: Tensor, dim: int) -> Tensor:
    """Zeros after the last entry of a dimension."""
    # Not F.pad: in PyTorch 2.6 and before it refuses empty dimensions.
    shape = (*x.shape[:dim], 1, *x.shape[dim + 1:])
    return torch.cat([x, x.new_zeros(shape)], dim)


def _matrices(weight: Tensor) -> Tensor:
    """The kernel as a matrix for each offset, [K, d_in, d_out]."""
    return weight.flatten(2).permute(2, 1, 0).contiguous()


class LatticeSteerableConv(FieldConv):
    r"""The steerable convolution on voxels from the `"3D Steerable CNNs:
    Learning Rotationally Equivariant Features in Volumetric Data"
    <https://arxiv.org/abs/1807.02547>`_ paper, for any closed subgroup of
    O(3) and any steerable basis,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)}
        k(\mathbf{p}_j - \mathbf{p}_i) \, \mathbf{x}_j + \mathbf{b}

    where :math:`\mathcal{N}(i)` are the voxels in the box of a
    :class:`~pyg_steerable.graph.Stencil` around the voxel *i* and :math:`k`
    is evaluated at its offsets
    (:class:`~pyg_steerable.kernels.LatticeKernel`). It commutes with
    translations by voxels and, to rounding, with those elements of the group
    that map the box to itself (rotations by :math:`90^{\circ}`,
    reflections); with the others as far as the kernel is resolved.

    .. code-block:: python

        conv = LatticeSteerableConv(in_type, out_type, kernel_size=5)
        out = conv(voxels)                     # [B, C, D, H, W] in and out
        out = conv(data.x, data)               # the graph of VoxelToGraph
        plain = conv.to_conv3d()               # a torch.nn.Conv3d

        conv = LatticeSteerableConv(in_type, out_type, (1, 5, 5))
        out = conv(images.unsqueeze(2))        # [B, C, 1, H, W] in and out
        plain = conv.to_conv2d()               # a torch.nn.Conv2d

    All have the same parameters and, to rounding, the same result at all
    voxels that there are; voxels that are no nodes count as zero. The
    axes of voxels are *(z, y, x)*, see :mod:`pyg_steerable.graph.lattice`.

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        kernel_size (int or tuple[int], optional): The sizes of the stencil
            along *(z, y, x)*, odd. A box of *(1, 5, 5)* is a planar
            convolution, steerable under those elements of the group that map
            the plane of *x* and *y* to itself. (default: :obj:`5`)
        stride (int or tuple[int], optional): One number is not for axes
            along which the stencil is one voxel thick, see
            :class:`~pyg_steerable.graph.Stencil`. (default: :obj:`1`)
        padding (int or tuple[int], optional): Voxels of zeros around the
            grid, one number as for :obj:`stride`.
            (default: :obj:`kernel_size // 2`)
        spacing (float or tuple[float], optional): The distance of voxels
            along *(z, y, x)*. Only ratios matter: kernels are in units of
            the smallest. (default: :obj:`1.0`)
        kernel (str, BasisSpec or SteerableBasis, optional):
            :obj:`"harmonic"`, the basis of the paper, :obj:`"implicit"`, the
            one of `"Implicit Neural Convolutional Kernels"
            <https://arxiv.org/abs/2212.06096>`_, what makes one for the types
            of this layer (:obj:`ImplicitBasis.spec(hidden=32)`), or any
            basis. (default: :obj:`"harmonic"`)
        root_weight (bool, optional): If set to :obj:`True`, an equivariant
            linear map is added to the centre of the kernel.
            (default: :obj:`False`)
        bias (bool, optional): If set to :obj:`False`, the layer adds no
            bias to invariant components. (default: :obj:`True`)
        order (str, optional): How graphs are evaluated: :obj:`"graph"`,
            neighbours are gathered and multiplied, see
            :func:`~pyg_steerable.ops.lattice.lattice_conv`;
            :obj:`"dense"`, :func:`~torch.nn.functional.conv3d` on the whole
            grid; :obj:`"auto"`, the second where more than two fifths of the
            voxels are nodes. (default: :obj:`"auto"`)
        backend (str, optional): :obj:`"reference"` for plain messages.
            (default: :obj:`"auto"`)
        **options (optional): Those of a basis that is given by name:
            :obj:`cutoff`, the highest harmonics of the shells
            (:func:`~pyg_steerable.kernels.lattice_harmonics`),
            :obj:`hidden`..., and :obj:`groups`, for kernels that keep
            channels apart (:class:`~pyg_steerable.kernels.LatticeKernel`).

    Shapes:
        - **input:** voxels :math:`(B, d_{in}, D, H, W)`, or node features
          :math:`(|\mathcal{V_s}|, d_{in})` and a
          :class:`~pyg_steerable.graph.lattice.LatticeData`
        - **output:** voxels :math:`(B, d_{out}, D', H', W')`, or node
          features :math:`(|\mathcal{V_t}|, d_{out})`

    Raises:
        ValueError: If types belong to different groups, the stencil is even
            or larger than the grid, or shapes or the graph's stencil do not
            fit.
    """
    channel_axis = 1
    propagate_type = {
        'x': OptPairTensor,
        'edge_offset': Tensor,
        'weight': Tensor,
    }

    kernel: LatticeKernel
    #: Whether neighbours are those along the edges of a lattice backwards.
    is_transposed = False

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 kernel_size=5, *, stride=1, padding=None, spacing=1.,
                 kernel: SteerableBasis | BasisSpec | str = 'harmonic',
                 root_weight: bool = False, bias: bool = True,
                 order: str = 'auto', backend: str = 'auto', **options):
        checks.choice('order', order, ORDERS)
        checks.choice('backend', backend, BACKENDS)
        super().__init__(aggr='sum')
        self._set_types(FieldType.wrap(in_type), FieldType.wrap(out_type),
                        root_weight)
        self.stencil = Stencil(kernel_size, stride, padding, spacing)
        self.order, self.backend = order, backend
        if isinstance(kernel, SteerableBasis) and options:
            raise TypeError(f'Expected the options of a basis with its name '
                            f'(got {sorted(options)} and {kernel})')
        basis: SteerableBasis
        groups: int | str = 1
        if isinstance(kernel, SteerableBasis):
            basis = kernel
        else:
            spec = read_spec(kernel, **options)
            basis = spec.for_stencil(self.in_type, self.out_type,
                                     max(self.stencil.kernel_size))
            groups = spec.groups
        self._set_maps(LatticeKernel(basis, self.in_type, self.out_type,
                                     self._relative_positions(),
                                     self._share * self._gain(), groups),
                       bias)

    def _relative_positions(self) -> Tensor:
        return self.stencil.positions()

    def _gain(self) -> float:
        return 1.

    def _where(self) -> str:
        return f' at the offsets of {self.stencil}'

    def _dense_maps(self, x: Tensor | None = None
                   ) -> tuple[Tensor, Tensor | None]:
        r"""The kernel at all offsets, with that of the root,
        :math:`[d_{out}, d_{in}, s_z, s_y, s_x]`, and the bias of all
        components, :math:`[d_{out}]`, if there is one; for an input :obj:`x`
        of training, where they depend on it.
        """
        weight = self.kernel.sampled()
        if self.root_weight:
            around = weight.shape[2] // 2
            weight = weight + F.pad(self.lin.matrix().unsqueeze(-1),
                                    (around, around))
        return (weight.unflatten(-1, self.stencil.kernel_size),
                self.lin.bias_vector())

    def dense_weight(self) -> Tensor:
        """The first of :meth:`_dense_maps`."""
        return self._dense_maps()[0]

    def dense_bias(self) -> Tensor | None:
        """The second of :meth:`_dense_maps`."""
        return self._dense_maps()[1]

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        return self._convolve(x, lattice)

    def _convolve(self, x: Tensor, lattice: LatticeData | None, *size
                  ) -> Tensor:
        if lattice is None:
            self._check_voxels(x)
            return self._on_voxels(x, *self._dense_maps(x), *size)
        self._check_lattice(lattice)
        sources, targets = lattice.coord, lattice.targets[0]
        if self.is_transposed:
            sources, targets = targets, sources
        self._check_rows(x, sources.shape[0])
        weight, bias = self._dense_maps(x)
        if self._wants_messages:
            out = self._sum_messages(x, lattice, _matrices(weight),
                                     targets.shape[0])
        elif self._prefers_voxels(lattice):
            return self._through_voxels(x, lattice, weight, bias)
        else:
            out = lattice_conv(x, _matrices(weight), lattice.edges,
                               self.is_transposed)
        return out if bias is None else out + bias

    def _on_voxels(self, x: Tensor, weight: Tensor, bias: Tensor | None
                   ) -> Tensor:
        return self._call(F.conv3d, x, weight, bias)

    def _call(self, function, x: Tensor, weight: Tensor, bias: Tensor | None,
              *args) -> Tensor:
        """A convolution of PyTorch's; the input is dim 1 of the result and
        of the weight's two first dimensions.
        """
        x = as_weights(x, weight.dtype)
        if x.device.type == 'cpu' and weight.requires_grad:
            # Channels last: oneDNN then takes half the time for the
            # gradient of the weights. (vmap knows no memory formats.)
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        args = (self.stencil.stride, self.stencil.padding, *args)
        if weight.numel():
            return function(x, weight, bias, *args)
        # conv3d does not know fields of no components: one more on each side.
        x, weight = _one_more(x, 1), _one_more(_one_more(weight, 0), 1)
        bias = None if bias is None else _one_more(bias, 0)
        out = function(x, weight, bias, *args)
        return out[:, :self.out_type.dim]

    def _through_voxels(self, x: Tensor, lattice: LatticeData, weight: Tensor,
                        bias: Tensor | None) -> Tensor:
        voxels = self._on_voxels(lattice.scatter(x), weight, bias)
        return lattice.gather(voxels, targets=True)

    def _prefers_voxels(self, lattice: LatticeData) -> bool:
        if self.order == 'dense' and not self._may_be_dense(lattice):
            raise ValueError("Expected all edges, each once, for 'order' "
                             "'dense' (got a lattice with some left out). "
                             "Use 'order' 'graph'")
        most = limits_of(lattice.coord.device).dense_above
        return self.order == 'dense' or (
            self.order == 'auto' and lattice.occupancy > most
            and lattice.lists_all_edges)

    @staticmethod
    def _may_be_dense(lattice: LatticeData) -> bool:
        return not can_look(lattice.coord) or lattice.lists_all_edges

    def _sum_messages(self, x: Tensor, lattice: LatticeData, weight: Tensor,
                      num_targets: int) -> Tensor:
        if 'edge_index' not in lattice:
            raise ValueError("Expected a lattice with 'edge_index' for plain "
                             "messages (got none). Build it with "
                             "'list_edges=True'")
        edges = lattice.edge_index
        return self._propagate(
            edges.flip(0) if self.is_transposed else edges, x=(x, None),
            edge_offset=lattice.edge_offset, weight=weight,
            size=(len(x), num_targets))

    def message(self, x_j: Tensor, edge_offset: Tensor,
                weight: Tensor) -> Tensor:
        x_j = x_j.to(weight.dtype).unsqueeze(-2)
        return (x_j @ weight[edge_offset]).squeeze(-2)

    def _check_lattice(self, lattice: LatticeData) -> None:
        check_lattice(lattice)
        own, stencil = self.stencil, lattice.geometry.stencil
        check_same_box(own, stencil, 'layer')
        if not all(isclose(a, b, rel_tol=1e-6)
                   for a, b in zip(own.ratios, stencil.ratios)):
            raise ValueError(
                f"Expected a lattice with the ratios of the layer's "
                f"'spacing', {own.spacing} (got {stencil.spacing}). Build "
                f"both with the same spacing")

    def _check_rows(self, x: Tensor, expected: int) -> None:
        checks.tensor('x', x, NUMBERS, 'a tensor of features')
        checks.shaped('x', x, (expected, self.in_type.dim),
                      "[N, d], one row of 'in_type' for each voxel")
        checks.same_device(x=x, weights=self.kernel.positions)

    def _check_voxels(self, x: Tensor) -> None:
        checks.tensor('x', x, NUMBERS, 'a tensor of voxels')
        if x.dim() != 5 or x.shape[1] != self.in_type.dim:
            raise ValueError(f'Expected voxels of shape [B, '
                             f'{self.in_type.dim}, D, H, W], fields of type '
                             f'{self.in_type} (got {list(x.shape)}). For '
                             f'node features pass the lattice, too')
        checks.same_device(x=x, weights=self.kernel.positions)
        self._check_fits(x)

    def _check_fits(self, x: Tensor) -> None:
        check_fits(self.stencil, x.shape[2:])

    def grid_after(self, grid: Grid) -> Grid | None:
        own = self.stencil
        return strided_grid(grid, own.kernel_size, own.stride, own.padding)

    def symmetries(self) -> Tensor:
        """Axes may change places where they are alike."""
        own = self.stencil
        return box_symmetries(own.kernel_size, own.stride, own.padding,
                              own.ratios)

    @torch.no_grad()
    def to_conv3d(self) -> torch.nn.Conv3d:
        """A plain convolution with the same result on voxels. It shares no
        parameters with the layer.
        """
        return self._export(torch.nn.Conv3d)

    @torch.no_grad()
    def to_conv2d(self) -> torch.nn.Conv2d:
        """A plain convolution of images with the same result on grids that
        are one voxel thick along *z*. It shares no parameters with the layer.

        Raises:
            ValueError: If the stencil is not one voxel thick along *z*.
        """
        return self._export(torch.nn.Conv2d)

    def _export(self, cls):
        own, (weight, bias) = self.stencil, self._dense_maps()
        if self.is_transposed:
            weight = weight.transpose(0, 1)
        numbers: list[tuple[int, ...]] = [own.kernel_size, own.stride,
                                          own.padding]
        if cls in (torch.nn.Conv2d, torch.nn.ConvTranspose2d):
            if own.kernel_size[0] > 1 or own.padding[0] > 0:
                raise ValueError(
                    f"Expected a layer of 'kernel_size' 1 and 'padding' 0 "
                    f"along z for a convolution of images (got {own}). Build "
                    f"it with 'kernel_size' (1, "
                    f"{own.kernel_size[1]}, {own.kernel_size[2]})")
            numbers, weight = [n[1:] for n in numbers], weight.squeeze(2)
        plain = cls(self.in_type.dim, self.out_type.dim, *numbers,
                    bias=bias is not None, device=weight.device,
                    dtype=weight.dtype)
        plain.weight.copy_(weight)
        if bias is not None:
            plain.bias.copy_(bias)
        return plain

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_type}, {self.out_type}, '
                f'kernel_size={short(self.stencil.kernel_size)}, '
                f'stride={short(self.stencil.stride)})')
