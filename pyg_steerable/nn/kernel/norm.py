"""Batch norm over edges."""
from __future__ import annotations

import torch
from torch import Tensor

from ...symmetry.fields import FieldType
from ..pointwise import FieldBatchNorm

# Where all neighbours are at one distance, deviations are rounding errors,
# which must stay small. Inputs are of the order of one.
_EPS = 1e-4


class EdgeNorm(FieldBatchNorm):
    """The batch norm of kernel networks. It starts from the statistics of
    typical edges (:meth:`calibrate`), which are a guess: those of the first
    batch of training take their place as they are.
    """
    def __init__(self, field_type: FieldType, affine: bool = True):
        super().__init__(field_type, eps=_EPS, affine=affine)

    def _step(self, batches: Tensor) -> float | Tensor:
        step = super()._step(batches)
        return torch.where(batches == 1, torch.ones_like(batches), step)
