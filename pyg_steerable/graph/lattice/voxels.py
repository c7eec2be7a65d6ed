"""Voxels as graphs, and back."""
from __future__ import annotations

import torch
from torch import Tensor

from ... import checks
from .data import NUMBERS, LatticeData, check_lattice, lattice_graph


def voxel_to_graph(voxels: Tensor, kernel_size=3, *,
                   mask: Tensor | None = None, **kwargs) -> LatticeData:
    r"""The graph of a voxel tensor.

    Args:
        voxels (Tensor): The voxels; the last three axes are *(z, y, x)*.
        kernel_size (int or tuple[int], optional): The sizes of the stencil,
            odd. (default: :obj:`3`)
        mask (Tensor, optional): Which voxels become nodes.
            (default: all)
        **kwargs (optional): :obj:`stride`, :obj:`padding`, :obj:`spacing`,
            :obj:`dilate` and :obj:`list_edges` of :func:`lattice_graph`.

    Shapes:
        - **voxels:** :math:`[C, D, H, W]`, **mask:** :math:`[D, H, W]` bool

    Raises:
        ValueError: If shapes do not fit or voxels are not finite.
    """
    checks.tensor('voxels', voxels, NUMBERS, 'a tensor of voxels')
    if voxels.dim() != 4:
        raise ValueError(f"Expected 'voxels' of shape [C, D, H, W] (got "
                         f"{list(voxels.shape)}). Batches are made of the "
                         f"graphs, by PyG's Batch or DataLoader")
    if mask is None:
        mask = torch.ones(voxels.shape[1:], dtype=torch.bool,
                          device=voxels.device)
    checks.tensor('mask', mask, NUMBERS, 'a tensor of truth values')
    checks.same_device(mask=mask, voxels=voxels)
    if mask.shape != voxels.shape[1:] or mask.dtype != torch.bool:
        raise ValueError(f"Expected 'mask' of shape {list(voxels.shape[1:])} "
                         f"and dtype bool (got {list(mask.shape)} and "
                         f"{mask.dtype})")
    checks.has_values('voxels', voxels, 'which voxels there are')
    checks.has_values('mask', mask, 'which voxels there are')
    return lattice_graph(mask.nonzero(), voxels.shape[1:], voxels[:, mask].T,
                         kernel_size=kernel_size, **kwargs)


def graph_to_voxel(data: LatticeData, x: Tensor | None = None,
                   targets: bool = False) -> Tensor:
    r"""The voxel tensor of a graph, zero where there is no node.

    Args:
        data (LatticeData): The graph, or a batch of them.
        x (Tensor, optional): Features of its nodes. (default:
            :obj:`data.x`)
        targets (bool, optional): Whether they belong to the nodes of the
            output. (default: :obj:`False`)

    Shapes:
        - **output:** :math:`[C, D, H, W]`, or :math:`[B, C, D, H, W]` for a
          batch
    """
    check_lattice(data, 'data')
    targets = checks.flag('targets', targets)
    if x is None and 'x' not in data:
        raise ValueError("Expected 'data' with features 'x' (got none). "
                         "Pass them as 'x'")
    out = data.scatter(data.x if x is None else x, targets).contiguous()
    return out if data.is_batch else out[0]
