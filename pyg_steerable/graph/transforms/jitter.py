"""Noise on positions."""
from __future__ import annotations

import torch
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from ... import checks
from .reading import LONGEST, positions_of


@functional_transform('gaussian_jitter')
class Jitter(BaseTransform):
    r"""Displaces each point by normal noise (functional name:
    :obj:`gaussian_jitter`),

    .. math::
        \mathbf{p}_i \mapsto \mathbf{p}_i + \boldsymbol{\delta}_i
        \min(1, c / |\boldsymbol{\delta}_i|), \qquad
        \boldsymbol{\delta}_i \sim \mathcal{N}(0, \sigma^2 \mathbf{1}).

    Lengths are clipped, not coordinates: the noise has no preferred
    direction. Fields stay as they are, and so does a cell.

    Args:
        std (float, optional): The standard deviation :math:`\sigma` of each
            coordinate. (default: :obj:`0.01`)
        clip (float, optional): The longest displacement :math:`c`.
            (default: :obj:`0.05`)

    Raises:
        ValueError: If :obj:`std` is negative or :obj:`clip` not positive.
    """
    def __init__(self, std: float = 0.01, clip: float | None = 0.05):
        self.std = checks.real('std', std, 0., LONGEST)
        self.clip = None if clip is None else min(
            checks.positive('clip', clip), LONGEST)

    def forward(self, data: Data) -> Data:
        pos = positions_of(data)
        noise = self.std * torch.randn_like(pos)
        if self.clip is not None:
            length = noise.norm(dim=-1, keepdim=True)
            noise = noise * (self.clip / length.clamp(min=self.clip))
        data.pos = pos + noise
        return data

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({self.std}, clip={self.clip})'
