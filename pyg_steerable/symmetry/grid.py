"""Fields on a grid, and what turns a grid into itself."""
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .fields import FieldType
from .groups import Group


class Voxels(NamedTuple):
    """The type of fields on a grid, [B, d, D, H, W], with axes *(z, y, x)*:
    only the symmetries of the cube act on them.
    """
    field_type: FieldType

    @property
    def group(self) -> Group:
        """The group of the fields."""
        return self.field_type.group

    def act(self, x: Tensor, R: Tensor) -> Tensor:
        """The fields turned, and the grid about its centre."""
        x = self.field_type.act(x.movedim(1, -1), R).movedim(-1, 1)
        # Axis a of x, y, z is axis 4 - a of the tensor.
        source = R.abs().argmax(dim=1).tolist()
        x = x.permute(0, 1, *(4 - source[2 - k] for k in range(3)))
        return x.flip([4 - a for a in range(3) if R[a].sum() < 0])


def cube_symmetries() -> Tensor:
    """The 48 matrices that permute and flip the axes of a grid, float64."""
    signs = torch.tensor(list(itertools.product([1., -1.], repeat=3)),
                         dtype=torch.float64, device='cpu')
    eye = torch.eye(3, dtype=torch.float64, device='cpu')
    axes = torch.stack([eye[list(order)]
                        for order in itertools.permutations(range(3))])
    return (signs[:, None, :, None] * axes).flatten(0, 1)


def box_symmetries(*numbers: Sequence[float]) -> Tensor:
    """Those of :func:`cube_symmetries` that exchange only axes with the same
    numbers along *(z, y, x)*, such as the spacing of voxels.
    """
    symmetries = cube_symmetries()
    for triple in numbers:
        axes = torch.tensor(triple[::-1], dtype=torch.float64, device='cpu')
        moved = symmetries.abs() @ axes
        same = (moved - axes).abs() <= 1e-6 * axes
        symmetries = symmetries[same.all(1)]
    return symmetries
