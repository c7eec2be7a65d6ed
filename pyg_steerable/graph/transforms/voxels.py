"""Voxels as graphs, and back, as transforms."""
from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from ... import checks
from ..lattice.data import NUMBERS, LatticeData, check_lattice, lattice_graph
from ..lattice.stencil import Stencil, short
from ..lattice.voxels import graph_to_voxel, voxel_to_graph

#: Of a stencil, beside its sizes.
_STENCIL = ('stride', 'padding', 'spacing')


@functional_transform('voxel_to_graph')
class VoxelToGraph(BaseTransform):
    r"""Turns voxels into a graph of voxels (functional name:
    :obj:`voxel_to_graph`).

    Takes :obj:`data.voxels` :math:`[C, D, H, W]` and, if there,
    :obj:`data.mask` :math:`[D, H, W]` of the voxels to keep; or
    :obj:`data.coord` :math:`[N, 3]`, :obj:`data.x` and :obj:`data.grid`.
    A tensor stands for the voxels alone. Returns a :class:`LatticeData` with
    all other attributes. Batches by PyG's
    :class:`~torch_geometric.data.Batch` and loaders.

    Args:
        kernel_size (int or tuple[int], optional): The sizes of the stencil,
            odd. (default: :obj:`3`)
        occupied (bool, optional): If set to :obj:`True`, voxels that are
            zero in all channels are no nodes, where there is no mask.
            (default: :obj:`False`)
        **kwargs (optional): :obj:`stride`, :obj:`padding`, :obj:`spacing`,
            :obj:`dilate` and :obj:`list_edges` of :func:`lattice_graph`.
    """
    def __init__(self, kernel_size=3, *, occupied: bool = False, **kwargs):
        self.occupied = checks.flag('occupied', occupied)
        for key in kwargs:
            checks.choice('kwargs', key, (*_STENCIL, 'dilate', 'list_edges'))
        self.stencil = Stencil(kernel_size, **{  # fails here, not later
            key: kwargs.pop(key) for key in _STENCIL if key in kwargs})
        self.kwargs = {**kwargs, **vars(self.stencil)}

    def forward(self, data: Data | Tensor) -> LatticeData:
        if not isinstance(data, (Data, Tensor)):
            raise TypeError(f"Expected 'data' to be a Data or a tensor of "
                            f"voxels (got {checks.show(data)})")
        given = ({'voxels': data} if isinstance(data, Tensor) else
                 data.to_dict())
        if 'voxels' in given:
            voxels, mask = given.pop('voxels'), given.pop('mask', None)
            if mask is None and self.occupied:
                checks.tensor('voxels', voxels, NUMBERS, 'a tensor of voxels')
                mask = (voxels != 0).any(0)
            out = voxel_to_graph(voxels, mask=mask, **self.kwargs)
        elif 'coord' in given and 'grid' in given:
            grid = given.pop('grid')
            if isinstance(grid, Tensor):
                grid = grid.flatten().tolist()
            out = lattice_graph(given.pop('coord'), grid,
                                given.pop('x', None), **self.kwargs)
        else:
            raise ValueError(f"Expected 'voxels', or 'coord' and 'grid', in "
                             f"the data (got {sorted(given)})")
        for key, value in given.items():
            if key in vars(LatticeData):
                raise ValueError(f"Expected attributes of other names than "
                                 f"those of LatticeData (got '{key}'). "
                                 f"Rename it")
            if key not in out:
                out[key] = value
        return out

    def __repr__(self) -> str:
        size = short(self.stencil.kernel_size)
        return f'{self.__class__.__name__}(kernel_size={size})'


@functional_transform('graph_to_voxel')
class GraphToVoxel(BaseTransform):
    r"""Turns a graph of voxels back into :obj:`data.voxels`, zero where
    there was no node, and :obj:`data.mask` (functional name:
    :obj:`graph_to_voxel`). Undoes :class:`VoxelToGraph` exactly, but for the
    values of voxels outside a mask. All other attributes stay.
    """
    _graph = ('x', 'pos', 'coord', 'coord_dst', 'pos_dst', 'batch_dst',
              'edge_index', 'edge_offset', 'stencil', 'origin', 'batch',
              'ptr')

    def forward(self, data: LatticeData) -> Data:
        check_lattice(data, 'data')
        ones = data.coord.new_ones(len(data.coord), 1).bool()
        return Data(voxels=graph_to_voxel(data),
                    mask=graph_to_voxel(data, ones).squeeze(-4),
                    **{key: value for key, value in data.to_dict().items()
                       if key not in self._graph})
