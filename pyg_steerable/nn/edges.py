"""Reading and checking the edges that PyG users pass."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse, to_edge_index


def as_pair(name: str, value) -> tuple:
    r"""What PyG takes for source and target nodes: a tensor or a pair."""
    if isinstance(value, Tensor):
        return (value, value)
    if (isinstance(value, (tuple, list)) and len(value) == 2
            and all(v is None or isinstance(v, Tensor) for v in value)):
        return tuple(value)
    raise TypeError(f"Expected '{name}' to be a tensor, or a pair of tensors "
                    f"for source and target nodes (got "
                    f"{type(value).__name__})")


def read_edges(edge_index, edge_attr, edge_weight, flow: str):
    r"""Edge indices, in any of PyG's forms, as one plain tensor
    :math:`[2, E]`. A sparse matrix is a transposed adjacency, as in PyG; its
    values become the edge weights or attributes that are not given.
    """
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    elif is_sparse(edge_index):
        if flow != 'source_to_target':
            raise ValueError("Expected flow 'source_to_target' with a sparse "
                             "adjacency matrix (got 'target_to_source'). "
                             "Pass 'edge_index' of shape [2, E] instead")
        edge_index, value = to_edge_index(edge_index)
        edge_index = edge_index.flip(0)
        if value is not None and value.dim() > 1 and edge_attr is None:
            edge_attr = value
        if value is not None and value.dim() == 1 and edge_weight is None:
            edge_weight = value
    if (not isinstance(edge_index, Tensor) or edge_index.dim() != 2
            or edge_index.shape[0] != 2):
        got = (list(edge_index.shape) if isinstance(edge_index, Tensor) else
               type(edge_index).__name__)
        raise ValueError(f"Expected 'edge_index' of shape [2, E] (got {got})")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"Expected 'edge_index' to hold integers (got "
                        f"{edge_index.dtype}). Convert it with '.long()'")
    return edge_index.long(), edge_attr, edge_weight


def check_edges(edges: Tensor, pos, edge_attr, edge_weight,
                everywhere: bool) -> None:
    """Raises a ValueError if something has not one row per edge, or an index
    lies outside the nodes. The latter needs the values: it is left out while
    compiling and, unless asked for, off the CPU.
    """
    for name, value in (('edge_attr', edge_attr),
                        ('edge_weight', edge_weight)):
        if value is not None and (value.shape[:1] != edges.shape[1:]
                                  or name == 'edge_weight'
                                  and value.numel() != edges.shape[1]):
            raise ValueError(f"Expected '{name}' to have one row for each of "
                             f"the {edges.shape[1]} edges (got "
                             f"{list(value.shape)})")
    if torch.compiler.is_compiling():
        return
    if everywhere:
        for p in pos:
            if not bool(p.isfinite().all()):
                bad = int((~p.isfinite()).any(-1).nonzero()[0])
                raise ValueError(f"Expected finite positions 'pos' (got "
                                 f"{p[bad].tolist()} at node {bad})")
    if edges.numel() == 0 or not (everywhere or edges.device.type == 'cpu'):
        return
    for k in range(2):
        low, high = (int(t) for t in edges[k].aminmax())
        if low < 0 or high >= len(pos[k]):
            raise ValueError(
                f"Expected 'edge_index[{k}]' in [0, {len(pos[k])}), the "
                f"number of nodes (got values from {low} to {high})")
