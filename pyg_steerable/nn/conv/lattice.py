"""Steerable convolutions on voxels, as tensors or as graphs."""
from __future__ import annotations

from math import isclose

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import OptPairTensor

from ... import checks
from ...graph.lattice.check import can_look
from ...graph.lattice.data import NUMBERS, LatticeData, check_lattice
from ...graph.lattice.stencil import check_fits, check_stencil
from ...ops.lattice import lattice_conv
from ...ops.precision import as_weights
from ...symmetry.fields import FieldType, check_same_group
from ..kernel import (
    ImplicitBasis,
    LatticeKernel,
    SteerableBasis,
    lattice_harmonics,
)
from ..kernel.lattice import stencil_positions
from ..pointwise.linear import LinearTerm
from ..reach import warn_unreached
from .steerable import SteerableConv

PATHS = ('auto', 'graph', 'dense', 'reference')
#: Lattices with a larger part of all voxels go through conv3d. It multiplies
#: two to three times as fast, but at all voxels.
DENSE_ABOVE = 0.4


def _one_more(x: Tensor, dim: int) -> Tensor:
    """Zeros behind the last entry of a dimension."""
    # Not F.pad: in PyTorch 2.6 and before it refuses empty dimensions.
    shape = (*x.shape[:dim], 1, *x.shape[dim + 1:])
    return torch.cat([x, x.new_zeros(shape)], dim)


class LatticeSteerableConv(MessagePassing):
    r"""The steerable convolution on voxels from the `"3D Steerable CNNs:
    Learning Rotationally Equivariant Features in Volumetric Data"
    <https://arxiv.org/abs/1807.02547>`_ paper, for any closed subgroup of
    O(3) and any steerable basis,

    .. math::
        \mathbf{x}^{\prime}_i = \sum_{j \in \mathcal{N}(i)}
        k(\mathbf{p}_j - \mathbf{p}_i) \, \mathbf{x}_j + \mathbf{b}

    where :math:`\mathcal{N}(i)` are the voxels in a stencil of size
    :math:`s` around the voxel *i* and :math:`k` is evaluated at its
    :math:`s^3` offsets (:class:`~pyg_steerable.kernels.LatticeKernel`). It
    commutes with translations by voxels and, to rounding, with those
    elements of the group that map the lattice to itself (rotations by
    :math:`90^{\circ}`, reflections); with the others as far as the kernel
    is resolved.

    .. code-block:: python

        conv = LatticeSteerableConv(in_type, out_type, kernel_size=5)
        out = conv(voxels)                     # [B, C, D, H, W] in and out
        out = conv(data.x, data)               # the graph of VoxelToGraph
        plain = conv.to_conv3d()               # a torch.nn.Conv3d

    All three have the same parameters and, to rounding, the same result at
    all voxels that there are; voxels that are no nodes count as zero. The
    axes of voxels are *(z, y, x)*, see :mod:`pyg_steerable.graph.lattice`.

    Args:
        in_type (FieldType): The type of the input features.
        out_type (FieldType): The type of the output features.
        kernel_size (int, optional): The stencil size :math:`s`, odd.
            (default: :obj:`5`)
        stride (int, optional): (default: :obj:`1`)
        padding (int, optional): Voxels of zeros around the grid.
            (default: :obj:`kernel_size // 2`)
        spacing (float or tuple[float], optional): The distance of voxels
            along *(z, y, x)*. Only ratios matter: kernels are in units of
            the smallest. (default: :obj:`1.0`)
        kernel (str or SteerableBasis, optional): :obj:`"harmonic"`, the
            basis of the paper, :obj:`"implicit"`, the one of `"Implicit
            Neural Convolutional Kernels" <https://arxiv.org/abs/2212.06096>`_
            with its defaults, or any basis. (default: :obj:`"harmonic"`)
        cutoff (str, optional): The highest harmonics of the shells, see
            :func:`~pyg_steerable.kernels.lattice_harmonics`.
            (default: :obj:`"compromise"`)
        root_weight (bool, optional): If set to :obj:`True`, an equivariant
            linear map is added to the centre of the kernel.
            (default: :obj:`False`)
        bias (bool, optional): If set to :obj:`False`, the layer adds no
            bias to invariant components. (default: :obj:`True`)
        path (str, optional): How graphs are evaluated: :obj:`"graph"`,
            neighbours are gathered and multiplied, see
            :func:`~pyg_steerable.ops.lattice.lattice_conv`;
            :obj:`"dense"`, :func:`~torch.nn.functional.conv3d` on the whole
            grid; :obj:`"reference"`, plain messages; :obj:`"auto"`, the
            second where more than two fifths of the voxels are nodes.
            (default: :obj:`"auto"`)

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
    propagate_type = {
        'x': OptPairTensor,
        'edge_offset': Tensor,
        'weight': Tensor,
    }

    def __init__(self, in_type: FieldType, out_type: FieldType,
                 kernel_size: int = 5, *, stride: int = 1,
                 padding: int | None = None, spacing=1., kernel='harmonic',
                 cutoff: str = 'compromise', root_weight: bool = False,
                 bias: bool = True, path: str = 'auto'):
        checks.choice('path', path, PATHS)
        super().__init__(aggr='sum')
        # As in SteerableConv.
        type(self)._orig_propagate = MessagePassing.propagate
        self.in_type = FieldType.wrap(in_type)
        self.out_type = FieldType.wrap(out_type)
        check_same_group(self.in_type, self.out_type)
        self.kernel_size, self.stride, self.padding, self.spacing = (
            check_stencil(kernel_size, stride, padding, spacing))
        self.root_weight = checks.flag('root_weight', root_weight)
        self.order = path
        # Half of the variance from the root, where it has weights of its own.
        self._share = 0.5**0.5 if root_weight else 1.
        basis = self._basis(kernel, cutoff)
        self.kernel = LatticeKernel(
            basis, self.in_type, self.out_type,
            self._relative_positions(),
            self._share * self._gain())
        none = FieldType([], self.in_type.group)
        self.lin = LinearTerm(self.in_type if root_weight else none,
                              self.out_type, bias=checks.flag('bias', bias))
        self._scale_root()
        self._check_reached()

    def _check_reached(self) -> None:
        """Fields that are always zero are named."""
        if not self.in_type.dim:
            return
        unreached = [block for block in self.kernel.unreached
                     if block in self.lin.unreached]
        if unreached and len(unreached) == len(self.out_type):
            raise ValueError(f"Expected an 'out_type' with fields that an "
                             f"equivariant kernel leads to from "
                             f"{self.in_type} (got {self.out_type}). Give "
                             f"one of them fields of other degrees or parity")
        warn_unreached(type(self).__name__, unreached, self.out_type,
                       f'{self.in_type}')

    def _relative_positions(self) -> Tensor:
        return stencil_positions(self.kernel_size, self.spacing)

    def _gain(self) -> float:
        return 1.

    def _basis(self, kernel, cutoff):
        group = self.in_type.group
        degrees = (self.in_type.max_degree, self.out_type.max_degree)
        if isinstance(kernel, SteerableBasis):
            return kernel
        if not isinstance(kernel, str) or kernel not in ('harmonic',
                                                         'implicit'):
            raise ValueError(f"Expected 'kernel' to be 'harmonic', "
                             f"'implicit' or a SteerableBasis (got "
                             f"{checks.show(kernel)})")
        if kernel == 'harmonic':
            return lattice_harmonics(group, self.kernel_size, sum(degrees),
                                     cutoff)
        return ImplicitBasis(group, max_degree=max(*degrees, 1),
                             radius=max(1., self.kernel_size // 2))

    def _scale_root(self):
        with torch.no_grad():
            if self.lin.weight is not None:
                self.lin.weight.mul_(self._share)

    def reset_parameters(self):
        r"""Resets all learnable parameters of the module."""
        super().reset_parameters()
        self.kernel.reset_parameters()
        self.lin.reset_parameters()
        self._scale_root()

    def dense_weight(self) -> Tensor:
        r"""The kernel at all offsets, with that of the root,
        :math:`[d_{out}, d_{in}, s, s, s]`.
        """
        weight = self.kernel.sampled()
        if self.root_weight:
            around = weight.shape[2] // 2
            weight = weight + F.pad(self.lin.matrix().unsqueeze(-1),
                                    (around, around))
        return weight.unflatten(-1, 3 * (self.kernel_size, ))

    def dense_bias(self) -> Tensor | None:
        r"""The bias of all components, :math:`[d_{out}]`."""
        return self.lin.bias_vector()

    def forward(self, x: Tensor, lattice: LatticeData | None = None
                ) -> Tensor:
        if lattice is None:
            self._check_voxels(x)
            self._check_fits(x)
            return self._on_voxels(F.conv3d, x, self.dense_weight())
        self._check_lattice(lattice)
        self._check_rows(x, lattice.coord.shape[0])
        if self._wants_messages:
            return self._sum_messages(
                x, self._listed(lattice), lattice.edge_offset,
                lattice.num_targets)
        if self._prefers_voxels(lattice):
            voxels = self.forward(lattice.scatter(x))
            return lattice.gather(voxels, targets=True)
        return self._add_bias(lattice_conv(x, self._matrices(),
                                           lattice.edges))

    def _on_voxels(self, function, x: Tensor, weight: Tensor, *args
                   ) -> Tensor:
        x, bias = as_weights(x, weight.dtype), self.dense_bias()
        if weight.numel():
            return function(x, weight, bias, self.stride, self.padding, *args)
        # conv3d does not know fields of no components: one more on each side.
        x, weight = _one_more(x, 1), _one_more(_one_more(weight, 0), 1)
        bias = None if bias is None else _one_more(bias, 0)
        out = function(x, weight, bias, self.stride, self.padding, *args)
        return out[:, :self.out_type.dim]

    def _prefers_voxels(self, lattice: LatticeData) -> bool:
        if self.order == 'dense' and not self._may_be_dense(lattice):
            raise ValueError("Expected all edges, each once, for 'path' "
                             "'dense' (got a lattice with some left out). "
                             "Use 'path' 'graph'")
        return self.order == 'dense' or (
            self.order == 'auto' and lattice.occupancy > DENSE_ABOVE
            and lattice.lists_all_edges)

    @staticmethod
    def _may_be_dense(lattice: LatticeData) -> bool:
        return not can_look(lattice.coord) or lattice.lists_all_edges

    def _matrices(self) -> Tensor:
        """The kernel as a matrix for each offset, [s^3, d_in, d_out]."""
        return self.dense_weight().flatten(2).permute(2, 1, 0).contiguous()

    def _add_bias(self, out: Tensor) -> Tensor:
        bias = self.dense_bias()
        return out if bias is None else out + bias

    @staticmethod
    def _listed(lattice: LatticeData) -> Tensor:
        if 'edge_index' not in lattice:
            raise ValueError("Expected a lattice with 'edge_index' for plain "
                             "messages (got none). Build it with "
                             "'list_edges=True'")
        return lattice.edge_index

    def _sum_messages(self, x, edge_index, edge_offset, num_dst) -> Tensor:
        return self._add_bias(self.propagate(
            edge_index, x=(x, None), edge_offset=edge_offset,
            weight=self._matrices(), size=(len(x), num_dst)))

    def message(self, x_j: Tensor, edge_offset: Tensor,
                weight: Tensor) -> Tensor:
        x_j = x_j.to(weight.dtype).unsqueeze(-2)
        return (x_j @ weight[edge_offset]).squeeze(-2)

    # For explainers and hooks, and order 'reference'.
    _wants_messages = SteerableConv._wants_messages

    def _check_lattice(self, lattice: LatticeData) -> None:
        check_lattice(lattice)
        stencil = lattice.geometry
        has = (stencil.kernel_size, stencil.stride, stencil.padding)
        if has != (self.kernel_size, self.stride, self.padding):
            raise ValueError(
                f"Expected a lattice with the layer's 'kernel_size', "
                f"'stride' and 'padding', {self.kernel_size}, {self.stride} "
                f"and {self.padding} (got {has[0]}, {has[1]} and {has[2]}). "
                f"Build it with the same numbers")
        ratio = min(stencil.spacing) / min(self.spacing)
        if not all(isclose(a, ratio * b, rel_tol=1e-6)
                   for a, b in zip(stencil.spacing, self.spacing)):
            raise ValueError(
                f"Expected a lattice with the ratios of the layer's "
                f"'spacing', {self.spacing} (got {stencil.spacing}). Build "
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

    def _check_fits(self, x: Tensor) -> None:
        check_fits(self.kernel_size, x.shape[2:])

    @torch.no_grad()
    def to_conv3d(self) -> torch.nn.Conv3d:
        """A plain convolution with the same result on voxels. It shares no
        parameters with the layer.
        """
        return self._export(torch.nn.Conv3d, self.dense_weight())

    def _export(self, cls, weight: Tensor):
        bias = self.dense_bias()
        plain = cls(self.in_type.dim, self.out_type.dim, self.kernel_size,
                    self.stride, self.padding, bias=bias is not None,
                    device=weight.device, dtype=weight.dtype)
        plain.weight.copy_(weight)
        if bias is not None:
            plain.bias.copy_(bias)
        return plain

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.in_type}, {self.out_type}, '
                f'kernel_size={self.kernel_size}, stride={self.stride})')
