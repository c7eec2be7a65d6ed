"""The molecular network of the implicit-kernels paper."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn.aggr import (
    AttentionalAggregation,
    MeanAggregation,
    SumAggregation,
)

from .. import checks
from ..graph.points.batch import read_batch
from ..nn import SteerableConv
from ..nn.field import Example, FieldModule, random_positions
from ..nn.kernel import BasisSpec
from ..nn.pointwise import FieldBatchNorm, Linear, NormGate
from ..nn.pointwise.activation import activation_input, build_activation
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .kernels import LEARNING, read_kernel

#: Wider or deeper networks are a mistake that would fill the memory.
MOST = 2**14
POOLS = ('attention', 'mean', 'sum')


class _Step(torch.nn.Module):
    """norm - activation - convolution."""
    def __init__(self, in_type: FieldType, out_type: FieldType, build_conv,
                 activation):
        super().__init__()
        self.act = build_activation(activation, in_type)
        wide = activation_input(self.act, in_type)
        # The input has no gates.
        self.widen = (torch.nn.Identity() if wide == in_type else
                      Linear(in_type, wide, bias=False))
        self.norm = FieldBatchNorm(wide)
        self.conv = build_conv(in_type, out_type)

    def forward(self, x: Tensor, *graph, **attributes) -> Tensor:
        return self.conv(self.act(self.norm(self.widen(x))), *graph,
                         **attributes)


class _ResidualBlock(torch.nn.Module):
    """Two steps, plus the input."""
    def __init__(self, field_type: FieldType, build_conv, activation):
        super().__init__()
        self.first, self.second = (
            _Step(field_type, field_type, build_conv, activation)
            for _ in range(2))

    def forward(self, x: Tensor, *graph, **attributes) -> Tensor:
        h = self.first(x, *graph, **attributes)
        return x + self.second(h, *graph, **attributes)


class QM9Net(FieldModule):
    r"""The network for molecular properties of `"Implicit Neural
    Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_, section 5.3.

    A linear embedding of the atoms, a first convolution to spherical fields,
    residual blocks of two convolutions with field batch norm, a last
    convolution to invariants, pooling over the molecule, and an MLP. Norms
    and activations come before the convolutions of a block, and nothing after
    its sum (in the paper's code after them and after the sum). The
    output is invariant to the group and to translations. The term
    :math:`i = j` of the convolutions (eq. 13) is a linear map of its own,
    also where kernels see the atoms: a graph needs no loops.

    .. code-block:: python

        model = QM9Net(edge_dim=4, atom_dim=5)      # bonds + both atoms
        y = model(data.x, data.pos, data.edge_index, data.edge_attr,
                  batch=data.batch)

    Edges are bonds, near atoms
    (:class:`~pyg_steerable.graph.RadiusGraph`), or both
    (:class:`~pyg_steerable.graph.RadiusGraphWithBonds`). Crystals are graphs
    with an :obj:`edge_shift` for each edge. Bonds are about as long as the
    default :obj:`radius`; for other graphs call
    :func:`~pyg_steerable.nn.calibrate`.

    Args:
        in_dim (int, optional): The width of the atoms' features, invariants.
            (default: :obj:`5`)
        edge_dim (int, optional): The width of the bonds' features in the
            kernel; 0 for none. (default: :obj:`0`)
        atom_dim (int, optional): The width of the features of both end atoms
            in the kernel (:obj:`in_dim`); 0 for none. (default: :obj:`0`)
        group (Group or str, optional): (default: :obj:`"O(3)"`)
        channels (int, optional): Copies of :math:`0 \oplus \ldots \oplus L`
            in each layer. (default: :obj:`16`)
        max_degree (int, optional): :math:`L`. (default: :obj:`1`)
        blocks (int, optional): Residual blocks. (default: :obj:`4`)
        invariants (int, optional): Invariants of the last convolution and
            the width of the MLP. (default: :obj:`32`)
        kernel (str or BasisSpec, optional): The basis of the kernels:
            :obj:`"implicit"`, here with 8 channels and 3 layers, a batch norm
            of its features, a constant and Gaussians of the distance;
            :obj:`"harmonic"`, which takes no features; both depthwise; or a
            specification, such as :obj:`ImplicitBasis.spec(hidden=16)`, the
            paper's. With a :obj:`max_degree` of :math:`2 L` no kernel between
            the fields is left out. (default: :obj:`"implicit"`)
        radius (float, optional): The unit of length in Angstrom, or the last
            shell of the harmonic kernel. (default: :obj:`1.2` for implicit
            and :obj:`1.6` for harmonic kernels: covalent bonds)
        num_neighbors (float, optional): The typical number of neighbours.
            (default: :obj:`2.0`, the bonds of an atom)
        pool (str, optional): :obj:`"attention"`, an average of atoms before
            the MLP whose weights are learned, for each invariant its own: an
            orbital may lie in one part of the molecule;
            :obj:`"mean"` over atoms before the MLP, the paper's; or
            :obj:`"sum"` of atoms after it, for extensive properties.
            (default: :obj:`"attention"`)
        activation (callable, optional): Builds an activation from a
            :class:`FieldType`, for the layers and for kernels that are given
            by name.
            (default: :class:`~pyg_steerable.nn.NormGate`)

    Shapes:
        - **input:** atoms :math:`(|\mathcal{V}|, d)`, positions
          :math:`(|\mathcal{V}|, 3)` in Angstrom, edge indices
          :math:`(2, |\mathcal{E}|)`, edge attributes
          :math:`(|\mathcal{E}|, d_e)`, batch :math:`(|\mathcal{V}|)`, edge
          shifts :math:`(|\mathcal{E}|, 3)` *(optional)*
        - **output:** :math:`(|\mathcal{G}|, 1)`

    Raises:
        ValueError: If an option is unknown, or options or shapes do not fit.
        TypeError: If an argument is of another kind.
    """
    in_type: FieldType
    out_type: FieldType

    def __init__(self, in_dim: int = 5, edge_dim: int = 0, atom_dim: int = 0,
                 *, group: Group | str = 'O(3)', channels: int = 16,
                 max_degree: int = 1, blocks: int = 4, invariants: int = 32,
                 kernel: str | BasisSpec = 'implicit',
                 radius: float | None = None,
                 num_neighbors: float = 2., pool: str = 'attention',
                 activation=NormGate):
        super().__init__()
        spec = read_kernel(kernel, hidden=8, num_layers=3,
                           activation=activation, **LEARNING)
        in_dim = checks.integer('in_dim', in_dim, 1, MOST)
        edge_dim = checks.integer('edge_dim', edge_dim, 0, MOST)
        atom_dim = checks.integer('atom_dim', atom_dim, 0, MOST)
        blocks = checks.integer('blocks', blocks, 0, MOST)
        channels = checks.integer('channels', channels, 1, MOST)
        invariants = checks.integer('invariants', invariants, 1, MOST)
        num_neighbors = checks.scale('num_neighbors', num_neighbors)
        if radius is None:
            radius = 1.6 if spec.basis.spans_neighbors else 1.2
        spec = spec.with_defaults(radius=radius)
        if atom_dim not in (0, in_dim):
            raise ValueError(f"Expected 'atom_dim' to be 0 or {in_dim}, the "
                             f"width of the atoms (got {atom_dim})")
        checks.choice('pool', pool, POOLS)
        self.edge_dim, self.atom_dim, self.pool = edge_dim, atom_dim, pool
        group = Group.wrap(group)

        def scalars(n: int) -> FieldType:
            return FieldType([(n, '0e')], group)

        self.set_types(scalars(in_dim), scalars(1))

        def build_conv(in_type, out_type):
            return SteerableConv(
                in_type, out_type, spec,
                scalars(edge_dim) if edge_dim else None,
                scalars(atom_dim) if atom_dim else None,
                num_neighbors=num_neighbors)

        hidden_type = FieldType.sphere(channels, max_degree, group)
        self.embedding = Linear(scalars(in_dim), scalars(channels))
        self.first = build_conv(scalars(channels), hidden_type)
        self.blocks = torch.nn.ModuleList([
            _ResidualBlock(hidden_type, build_conv, activation)
            for _ in range(blocks)
        ])
        self.last = _Step(hidden_type, scalars(invariants), build_conv,
                          activation)
        self.norm = FieldBatchNorm(scalars(invariants))
        # The softmax over atoms forgets a bias.
        self.aggregation = (
            SumAggregation() if pool == 'sum' else MeanAggregation() if
            pool == 'mean' else AttentionalAggregation(torch.nn.Linear(
                invariants, invariants, bias=False)))
        self.head = torch.nn.Sequential(
            torch.nn.Linear(invariants, invariants),
            torch.nn.SiLU(),
            torch.nn.Linear(invariants, 1),
        )

    def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor,
                edge_attr: Tensor | None = None, batch: Tensor | None = None,
                batch_size: int | None = None,
                edge_shift: Tensor | None = None) -> Tensor:
        self.check_input(x)
        if edge_attr is not None:  # also where the kernels do not see it
            checks.tensor('edge_attr', edge_attr,
                          checks.FLOATING + checks.INTEGERS)
        attributes = {
            'edge_attr': edge_attr if self.edge_dim else None,
            'node_attr': x if self.atom_dim else None,
            'edge_shift': edge_shift,
        }
        graph = (pos, edge_index)
        h = self.first(self.embedding(x), *graph, **attributes)
        for block in self.blocks:
            h = block(h, *graph, **attributes)
        h = self.norm(self.last(h, *graph, **attributes))
        h = torch.nn.functional.silu(h)
        batch, size = read_batch(batch, x, batch_size)
        if self.pool == 'sum':
            return self.aggregation(self.head(h), batch, dim_size=size)
        return self.head(self.aggregation(h, batch, dim_size=size))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata,
                              strict, missing_keys, unexpected_keys,
                              error_msgs):
        # A kernel between an atom and itself, different for each element, is
        # no linear map that all atoms share.
        if (self.atom_dim and f'{prefix}first.kernel.scale' in state_dict and
                f'{prefix}first.lin.weight' not in state_dict):
            error_msgs.append(
                f"Expected 'state_dict' to hold '{prefix}first.lin.weight' "
                f"(got a QM9Net of before, whose atoms were their own "
                f"neighbours where kernels saw them). Train it again")
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      strict, missing_keys, unexpected_keys,
                                      error_msgs)

    def example(self, generator: torch.Generator) -> Example:
        """Two small molecules: chains of atoms, each bonded to the next."""
        size = 6
        pos = random_positions(generator, 2 * size)
        x = torch.eye(self.in_type.dim, dtype=pos.dtype, device='cpu')[
            torch.randint(self.in_type.dim, (2 * size, ), generator=generator,
                          device='cpu')]
        first = torch.arange(2 * size, device='cpu').view(2, size)[:, :-1]
        bond = torch.stack([first, first + 1]).flatten(1)
        edge_index = torch.cat([bond, bond.flip(0)], dim=1)
        edge_attr = torch.rand(edge_index.shape[1], self.edge_dim,
                               generator=generator, dtype=pos.dtype,
                               device='cpu') if self.edge_dim else None
        batch = torch.arange(2, device='cpu').repeat_interleave(size)
        return Example((x, pos, edge_index, edge_attr, batch),
                       (self.in_type, 'pos', None, None, None),
                       (self.out_type, ))
