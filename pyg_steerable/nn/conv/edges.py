"""Reading and checking the graphs that PyG users pass."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse

from ... import checks


def as_pair(name: str, value) -> tuple:
    r"""What PyG takes for source and target nodes: a tensor or a pair."""
    if isinstance(value, Tensor):
        return (value, value)
    if (isinstance(value, (tuple, list)) and len(value) == 2
            and all(v is None or isinstance(v, Tensor) for v in value)):
        return tuple(value)
    raise TypeError(f"Expected '{name}' to be a tensor, or a pair of tensors "
                    f"for source and target nodes (got {checks.show(value)})")


def read_edges(edge_index, edge_attr, edge_weight, edge_shift, pos,
               flow: str):
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
        if edge_shift is not None:
            raise ValueError("Expected no 'edge_shift' with a sparse "
                             "adjacency matrix (got both): its entries have "
                             "an order of their own, and one for all images "
                             "of a node. Pass 'edge_index' of shape [2, E] "
                             "instead")
        edge_index, value, sizes = _read_sparse(edge_index)
        expected = (pos[1].shape[0], pos[0].shape[0])
        if sizes != expected:
            raise ValueError(f"Expected 'edge_index', a sparse matrix, of "
                             f"shape {list(expected)}, the numbers of target "
                             f"and source nodes (got {list(sizes)})")
        if value is not None and value.dim() > 1 and edge_attr is None:
            edge_attr = value
        if value is not None and value.dim() == 1 and edge_weight is None:
            edge_weight = value
    elif not isinstance(edge_index, Tensor) or edge_index.dim() != 2 or (
            edge_index.shape[0] != 2):
        got = (list(edge_index.shape) if isinstance(edge_index, Tensor) else
               f'{type(edge_index).__name__}')
        raise ValueError(f"Expected 'edge_index' of shape [2, E] (got {got})")
    checks.tensor('edge_index', edge_index, checks.INTEGERS,
                  'a tensor of integers')
    return edge_index.long(), edge_attr, edge_weight


@torch.compiler.disable
def _read_sparse(adj):
    """Edges from sources to targets with their values, and the sizes; out of
    sight of torch.compile, which knows no sparse tensors.
    """
    if not isinstance(adj, Tensor):  # of torch_sparse
        row, col, value = adj.coo()
        return torch.stack([col, row]), value, tuple(adj.sizes()[:2])
    if adj.layout == torch.sparse_coo:
        if adj.is_coalesced() or adj.requires_grad:
            adj = adj.coalesce()
            index, value = adj.indices(), adj.values()
        else:  # entries that occur twice are two edges
            index, value = adj._indices(), adj._values()
    else:
        coo = adj.detach().to_sparse_coo()
        index, value = coo._indices(), adj.values()
        if adj.layout == torch.sparse_csc:  # values go by columns
            order = (index[1] * adj.shape[0] + index[0]).argsort()
            index = index[:, order]
    # Not as a view of something sparse.
    return index.flip(0), value.clone(), tuple(adj.shape[:2])


def check_edges(edges: Tensor, pos, edge_attr, edge_weight, edge_shift,
                everywhere: bool) -> None:
    """Raises an error if something has not one row per edge, or an index
    lies outside the nodes. The latter needs the values: it is left out where
    they cannot be looked at and, unless asked for, off the CPU.
    """
    num_edges = edges.shape[1]
    if edge_weight is not None:
        checks.tensor('edge_weight', edge_weight,
                      (*checks.FLOATING, *checks.INTEGERS, torch.bool))
    if edge_shift is not None:
        checks.tensor('edge_shift', edge_shift)
        checks.shaped('edge_shift', edge_shift, (num_edges, 3),
                      '[E, 3], one vector for each edge')
    for name, value in (('edge_attr', edge_attr),
                        ('edge_weight', edge_weight)):
        if value is not None and (value.shape[:1] != edges.shape[1:]
                                  or name == 'edge_weight'
                                  and value.numel() != num_edges):
            raise ValueError(f"Expected '{name}' to have one row for each of "
                             f"the {num_edges} edges (got "
                             f"{list(value.shape)})")
    if everywhere and not (torch.compiler.is_compiling()
                           or checks.is_traced(edges)):
        for p in pos:
            checks.finite('pos', p, 'node')
        if edge_shift is not None:
            checks.finite('edge_shift', edge_shift, 'edge')
        edges = edges.cpu()
    for k in range(2):
        checks.indices(f'edge_index[{k}]', edges[k], pos[k].shape[0])
