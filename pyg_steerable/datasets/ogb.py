"""Integer features for OGB's atom and bond encoders."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from .. import checks

__all__ = ['OGBFeatures']

# Last entry of OGB's vocabularies, 'misc': unknown.
_CHIRALITY, _CHARGE, _RADICAL, _HYBRIDISATION = 4, 11, 5, 5
_STEREO_ANY = 5
#: Rings are found by dense matrices: enough for molecules.
_MOST = 4096


@functional_transform('qm9_ogb_features')
class OGBFeatures(BaseTransform):
    r"""Adds integer features for the encoders of the `"Open Graph Benchmark"
    <https://arxiv.org/abs/2005.00687>`_, as far as QM9 graphs know them
    (functional name: :obj:`qm9_ogb_features`).

    :obj:`x_ogb` long ``[n, 9]`` is for ``ogb.graphproppred.mol_encoder.
    AtomEncoder``, :obj:`edge_attr_ogb` long ``[2b, 3]`` for ``BondEncoder``.

    Aromatic bonds are those of :obj:`edge_attr`. Graphs of
    :func:`~pyg_steerable.datasets.load_qm9` have them from every source;
    those of PyG's own ``QM9``, where it was read with RDKit, have none.

    Derived: atomic number, degree (with hydrogens), number of hydrogen
    neighbours, aromatic, in a ring; bond type. Formal charge, if the graph
    has :obj:`charge` (the sample and :obj:`'qm9pack'` do).

    **Not available** without a chemistry toolkit, and therefore a constant
    that carries no information: chirality, radical electrons, hybridisation
    and an absent formal charge are OGB's :obj:`'misc'`; bond stereo is
    ``STEREOANY`` (unspecified); *conjugated* is always 0, for which OGB has
    no word. Encoders trained on OGB's own features should not be reused.

    Hydrogens are nodes here, whereas OGB's datasets leave them out.
    """

    def forward(self, data: Data) -> Data:
        """Add the two tensors to one molecule (not to a batch)."""
        z, edge_index, edge_attr = checks.attributes(
            'data', data, 'z', 'edge_index', 'edge_attr')
        checks.indices('z', z, 119)
        checks.tensor('edge_index', edge_index, checks.INTEGERS)
        checks.shaped('edge_index', edge_index, (2, None), '[2, 2b]')
        checks.tensor('edge_attr', edge_attr)
        checks.shaped('edge_attr', edge_attr, (edge_index.shape[1], 4),
                      '[2b, 4], bond types as one-hot vectors')
        if 'charge' in data:
            checks.tensor('charge', data.charge, checks.INTEGERS)
            checks.shaped('charge', data.charge, z.shape, '[n] like z')
        ring = ring_edges(edge_index, len(z))
        bond_type = edge_attr.argmax(dim=-1)
        data.x_ogb = _atoms(data, bond_type, ring)
        stereo = torch.full_like(bond_type, _STEREO_ANY)
        data.edge_attr_ogb = torch.stack(
            [bond_type, stereo, torch.zeros_like(bond_type)], dim=-1)
        return data


def _atoms(data: Data, bond_type: Tensor, ring: Tensor) -> Tensor:
    z, (row, col) = data.z, data.edge_index
    zero = torch.zeros_like(z)
    degree = zero.index_add(0, row, torch.ones_like(row))
    hydrogens = zero.index_add(0, row, (z[col] == 1).long())
    aromatic = zero.index_add(0, row, (bond_type == 3).long()).clamp(max=1)
    in_ring = zero.index_add(0, row, ring.long()).clamp(max=1)
    charge = data.charge + 5 if 'charge' in data else zero + _CHARGE
    return torch.stack([
        z - 1, zero + _CHIRALITY, degree, charge, hydrogens, zero + _RADICAL,
        zero + _HYBRIDISATION, aromatic, in_ring
    ], dim=-1)


def ring_edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    r"""Say which edges of an undirected graph lie on a cycle.

    An edge is on no cycle if and only if the effective resistance between
    its ends, with unit resistors as edges, is 1. Dense, cubic in
    :obj:`num_nodes`: for molecules.

    Args:
        edge_index (Tensor): Both directions of every edge, ``[2, e]``.
        num_nodes (int): Number of nodes.

    Returns:
        Tensor: Boolean, ``[e]``.
    """
    num_nodes = checks.integer('num_nodes', num_nodes, 0, _MOST)
    checks.tensor('edge_index', edge_index, checks.INTEGERS)
    checks.shaped('edge_index', edge_index, (2, None), '[2, e]')
    checks.has_values('edge_index', edge_index, 'which edges are on cycles')
    checks.indices('edge_index', edge_index.flatten().cpu(), num_nodes)
    row, col = edge_index
    lap = torch.zeros(num_nodes, num_nodes, dtype=torch.float64,
                      device=row.device)
    lap.index_put_((row, row), lap.new_ones(()), accumulate=True)
    lap.index_put_((row, col), -lap.new_ones(()), accumulate=True)
    inv = torch.linalg.pinv(lap, hermitian=True)
    resistance = inv[row, row] + inv[col, col] - 2 * inv[row, col]
    # On a cycle it is at most 1 - 1/n.
    return resistance < 1 - 0.5 / max(num_nodes, 1)
