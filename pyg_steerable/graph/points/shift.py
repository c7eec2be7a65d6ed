"""Periodic images in Cartesian coordinates, and where data keep cells."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ... import checks

#: What :obj:`data.pbc` may hold.
TRUTH = (torch.bool, *checks.INTEGERS)


def edge_shift(offset: Tensor, cell: Tensor, batch: Tensor | None = None
               ) -> Tensor:
    r"""The vectors from nodes to their periodic images, for the argument
    :obj:`edge_shift` of convolutions, from the offsets that searches with a
    cell return,

    .. math::
        \mathbf{s}_{ij} = \sum_a o_{ij, a} \, \mathbf{c}_a, \qquad
        \mathbf{r}_{ij} = \mathbf{p}_j + \mathbf{s}_{ij} - \mathbf{p}_i ,

    where :math:`j` is the neighbour and :math:`i` the node it belongs to,
    for either :obj:`flow`. Differentiable in the cell, for stresses.

    .. code-block:: python

        edge_index, offset = radius_graph(pos, 5., batch, cell=cell)
        shift = edge_shift(offset, cell, batch[edge_index[0]])
        out = conv(x, pos, edge_index, edge_shift=shift)

    Args:
        offset (Tensor): How often each lattice vector is added, whole
            numbers.
        cell (Tensor): Lattice vectors as rows, of one or of every cloud.
        batch (Tensor, optional): The cloud of each *edge*; needed for more
            than one cell. (default: :obj:`None`)

    Shapes:
        - **offset:** :math:`[E, 3]`, **cell:** :math:`[3, 3]`,
          :math:`[B, 3, 3]` or :math:`[3 B, 3]`, **batch:** :math:`[E]`,
          **output:** :math:`[E, 3]`

    Raises:
        ValueError: If a shape does not fit, or there are several cells and
            no batch.
        TypeError: If an argument is no tensor, or of another kind of numbers.
    """
    checks.tensor('offset', offset, checks.INTEGERS + checks.FLOATING)
    checks.shaped('offset', offset, (None, 3), '[E, 3]')
    cell = read_cell(cell)
    if batch is None:
        if len(cell) != 1:
            raise ValueError(f"Expected 'batch', the cloud of each edge, with "
                             f"{len(cell)} cells (got None). Pass "
                             f"batch[edge_index[0]]")
        return offset.to(cell.dtype) @ cell[0]
    batch = checks.indices('batch', batch, None if len(cell) == 1 else
                           len(cell), offset.shape[0],
                           f'[{offset.shape[0]}], the cloud of each edge')
    if len(cell) == 1:  # the same for all
        return offset.to(cell.dtype) @ cell[0]
    return (offset.to(cell.dtype)[:, None] @ cell[batch])[:, 0]


def read_cell(cell) -> Tensor:
    """Cells of clouds :math:`[B, 3, 3]`, or one under the other."""
    checks.tensor('cell', cell, checks.FLOATING, 'a tensor of lattice vectors')
    if cell.dim() not in (2, 3) or cell.shape[-1] != 3 or (
            cell.shape[-2] != 3 if cell.dim() == 3 else cell.shape[0] % 3):
        raise ValueError(f"Expected 'cell' of shape [3, 3] or [B, 3, 3], "
                         f"lattice vectors as rows (got "
                         f"{list(cell.shape)})")
    return cell.reshape(-1, 3, 3)


def num_clouds(data: Data) -> int:
    """The clouds of data or a batch."""
    batch = data.get('batch')
    if isinstance(data, Batch):
        return data.num_graphs
    return 1 if batch is None or not len(batch) else int(batch.max()) + 1


def periodic_options(data: Data) -> dict:
    """The arguments :obj:`cell` and :obj:`pbc` of searches, from the
    attributes of data or a batch; empty if there is no cell.
    """
    cell, pbc = data.get('cell'), data.get('pbc')
    if cell is None:
        return {}
    size = num_clouds(data)
    cell = read_cell(cell)
    if len(cell) != size:
        raise ValueError(f"Expected 'data.cell' of shape [1, 3, 3] in each of "
                         f"{size} objects (got {list(data.cell.shape)})")
    if pbc is None:
        return {'cell': cell}
    try:
        pbc = torch.as_tensor(pbc)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"Expected 'data.pbc' to be a bool, or one for each "
                        f"axis (got {checks.show(pbc)})") from error
    checks.tensor('data.pbc', pbc, TRUTH, 'a bool, or one for each axis,')
    if pbc.numel() not in (size, 3 * size):
        raise ValueError(f"Expected 'data.pbc' of shape [1, 3], a bool for "
                         f"each axis (got {list(pbc.shape)})")
    checks.has_values('data.pbc', pbc, 'the graph')
    pbc = pbc.to(cell.device).bool().reshape(size, -1).expand(size, 3)
    return {'cell': cell, 'pbc': pbc}
