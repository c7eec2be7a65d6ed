"""The surface of a mesh on voxels."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from ... import checks
from .voxels import VoxelData

__all__ = ['MeshToVoxels']

#: Points on the surface of a mesh, in all and at once.
_MOST_POINTS, _AT_ONCE = 2**28, 2**18


class MeshToVoxels(BaseTransform):
    r"""The surface of a mesh, :obj:`data.pos` and :obj:`data.face`, as
    :obj:`data.voxels` :math:`[1, S, S, S]`: each voxel holds the part of its
    :math:`2^3` halves that the surface goes through.

    The centroid of the surface goes to the centre of the grid, and the
    farthest corner, in any direction, as far as the faces of the grid: where
    things are and how large does not depend on how a mesh is rotated. The
    sum does: oblique faces go through more voxels.

    Args:
        size (int, optional): The number of voxels *S*. (default: :obj:`64`)

    Raises:
        ValueError: If the size is not positive, or a mesh has no area.
    """
    def __init__(self, size: int = 64):
        self.size = checks.integer('size', size, 1, 512)

    def forward(self, data: Data) -> VoxelData:
        pos, face = checks.attributes('data', data, 'pos', 'face')
        checks.has_values('pos', checks.positions('pos', pos), 'the surface')
        checks.finite('pos', pos, 'corner')
        checks.tensor('face', face, checks.INTEGERS)
        checks.shaped('face', face, (3, None), '[3, F]')
        checks.has_values('face', face, 'the surface')
        checks.indices('face', face.flatten().cpu(), len(pos))
        fine = 2 * self.size
        corners = pos.double().cpu()[face.long().cpu()]  # [3, F, 3]
        a, b, c = corners
        area = torch.linalg.cross(b - a, c - a).norm(dim=1, keepdim=True)
        if not 0 < float(area.sum()) < float('inf'):
            raise ValueError(f'Expected a mesh with a surface (got one of '
                             f'area {float(area.sum()) / 2})')
        centre = (corners.mean(0) * area).sum(0) / area.sum()
        radius = (corners - centre).norm(dim=-1).max()
        corners = ((corners - centre) / radius + 1) / 2 * fine
        there = _rasterise(corners, fine).view(3 * (self.size, 2))
        voxels = there.sum((1, 3, 5), dtype=torch.uint8).float() / 8
        rest = {key: value for key, value in data.to_dict().items()
                if key not in ('pos', 'face')}
        return VoxelData(voxels=voxels.unsqueeze(0).to(pos.device), **rest)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.size})'


def _rasterise(corners: Tensor, size: int) -> Tensor:
    """Which cells of unit size triangles go through, [size, size, size], by
    points on them that are at most half a cell apart: faces are cut into
    :math:`4^k` equal ones.
    """
    a, b, c = corners
    edge = torch.stack([(b - a).norm(dim=1), (c - b).norm(dim=1),
                        (a - c).norm(dim=1)]).amax(0)
    level = (2 * edge).clamp(min=1).log2().ceil().long()
    work = int((4**level).sum()) // 2 + len(level)
    if work > _MOST_POINTS:
        raise ValueError(f'Expected a surface that {_MOST_POINTS} points '
                         f'cover (got one that needs about {work}). Take a '
                         f"smaller 'size', or fewer faces inside of it")
    there = torch.zeros(size**3, dtype=torch.bool)
    for k in level.unique().tolist():
        n = 2**k
        i, j = torch.tril_indices(n + 1, n + 1)
        share = torch.stack([n - i, i - j, j], 1).double() / n
        here = (level == k).nonzero().flatten()
        for faces in here.split(max(1, _AT_ONCE // len(share))):
            for part in share.split(_AT_ONCE):
                points = torch.einsum('pc,cfx->pfx', part, corners[:, faces])
                x, y, z = points.floor_().long().clamp_(
                    0, size - 1).flatten(0, 1).T
                there[(z * size + y) * size + x] = True
    return there
