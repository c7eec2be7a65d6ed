"""Point-cloud networks after the implicit-kernels paper."""
from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import torch
from torch import Tensor
from torch_geometric.nn import global_mean_pool

from .. import checks
from ..graph.points.batch import read_batch
from ..graph.points.hierarchy import SAMPLING, Level, hierarchy, read_ratios
from ..nn import SteerableConv
from ..nn.field import (
    Example,
    FieldModule,
    random_fields,
    random_positions,
)
from ..nn.kernel import BasisSpec
from ..nn.pointwise import (
    FieldBatchNorm,
    InvariantReadout,
    Linear,
    NormGate,
    QuotientELU,
)
from ..nn.pointwise.activation import activation_input, build_activation
from ..nn.pool.interpolate import interpolate
from ..ops.precision import at_least_float32
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .kernels import read_kernel
from .qm9 import MOST


class _Encoder(torch.nn.Module):
    """Convolutions from each resolution of a cloud to the next."""
    def __init__(self, group, in_type, channels, max_degree, ratios, k,
                 num_points, kernel, activation, sampling):
        super().__init__()
        spec = read_kernel(kernel, hidden=8)
        self.ratios = read_ratios(ratios)
        if not self.ratios:
            raise ValueError("Expected 'ratios' to be numbers in (0, 1], one "
                             "for each convolution (got none)")
        self.k = checks.integer('k', k, 1, MOST)
        self.sampling = checks.choice('sampling', sampling, SAMPLING)
        checks.integer('channels', channels, 1, MOST)
        self.num_points = checks.scale('num_points', num_points)
        group = Group.wrap(group)
        position = FieldType('1o', group)
        self.extra = None if in_type is None else FieldType.wrap(in_type)
        self.types = [position if self.extra is None else
                      position + self.extra]
        hidden_type = FieldType.sphere(channels, max_degree, group)
        self.types += len(self.ratios) * [hidden_type]
        self.convs, self.norms, self.acts = (torch.nn.ModuleList()
                                             for _ in range(3))
        points = self.num_points
        for i, ratio in enumerate(self.ratios):
            # k of so many points on a surface of area 4, in the unit ball.
            reach = (4 * k / (torch.pi * points))**0.5
            points *= ratio
            radius = reach if spec.basis.spans_neighbors else reach / 2
            act = build_activation(activation, self.types[i + 1])
            act_type = activation_input(act, self.types[i + 1])
            conv = SteerableConv(self.types[i], act_type,
                                 spec.with_defaults(radius=radius),
                                 num_neighbors=k, aggr='mean')
            self.convs.append(conv)
            self.norms.append(FieldBatchNorm(act_type))
            self.acts.append(act)

    def levels(self, pos, batch, cell, pbc) -> list[Level]:
        return hierarchy(pos, batch, self.ratios, self.k, self.sampling,
                         cell=cell, pbc=pbc)

    def forward(self, pos, batch, x, batch_size, levels
                ) -> tuple[list[Tensor], int]:
        """The fields at every resolution, the input's first, and the number
        of clouds.
        """
        checks.positions('pos', pos)
        if not isinstance(levels, (list, tuple)) or not all(
                isinstance(level, Level) for level in levels) or (
                len(levels) != len(self.convs)):
            raise TypeError(f"Expected 'levels' to be a list of "
                            f"{len(self.convs)} levels, as 'model.levels' "
                            f"returns it (got {checks.show(levels)})")
        batch, size = read_batch(batch, pos, batch_size)
        dtype = self.convs[0].dtype
        pos = pos.to(at_least_float32(pos))
        field = pos - global_mean_pool(pos, batch, size)[batch]
        if levels[0].edge_shift is not None:
            field = torch.zeros_like(field)  # crystals have no centre
            if self.extra is None:
                raise ValueError("Expected a network with features, built "
                                 "with 'in_type', for clouds in a 'cell' (got "
                                 "none): their points have no position but "
                                 "that to each other")
        field = field.to(dtype)
        if (x is None) != (self.extra is None):
            raise ValueError(f"Expected 'x' of type {self.extra} (got "
                             f"{checks.show(x)})")
        if x is not None and self.extra is not None:
            self.extra.check(x, 'x')
            checks.shaped('x', x, (pos.shape[0], None), '[N, d]')
            field = torch.cat([field, x.to(dtype)], dim=-1)
        fields = [field]
        for level, conv, norm, act in zip(levels, self.convs, self.norms,
                                          self.acts):
            here = level.pos.to(pos)
            h = conv((field, field[level.index]), (pos, here),
                     level.edge_index, edge_shift=level.edge_shift)
            field, pos = act(norm(h)), here
            fields.append(field)
        return fields, size


def _readouts(name: str, total: int, types: list[FieldType]
              ) -> torch.nn.ModuleList:
    """Invariants of each of some fields, in all as many as asked for, in
    equal parts: what is seen at one resolution only does not have to pass
    through the others.
    """
    total = checks.integer(name, total, len(types), MOST)
    readouts = torch.nn.ModuleList()
    for i, field_type in enumerate(types):
        share = total // len(types) + (i < total % len(types))
        invariants = InvariantReadout(field_type, share)
        readouts.append(torch.nn.Sequential(
            invariants, FieldBatchNorm(invariants.out_type), torch.nn.ELU()))
    return readouts


def _head_options(num_classes, mlp, dropout) -> tuple[int, int, float]:
    return (checks.integer('num_classes', num_classes, 1, MOST),
            checks.integer('mlp', mlp, 1, MOST),
            checks.real('dropout', dropout, 0, below=1))


class _OnClouds(FieldModule):
    """What networks with an encoder share."""
    encoder: _Encoder

    def _set_types(self, in_type, num_classes: int, group) -> None:
        self.set_types(FieldType([], group) if in_type is None else in_type,
                       FieldType([(num_classes, '0e')], group))

    def levels(self, pos: Tensor, batch: Tensor | None = None, *,
               cell: Tensor | None = None,
               pbc: bool | Sequence[bool] = True) -> list[Level]:
        """The graphs for :meth:`forward`, which otherwise draws them."""
        return self.encoder.levels(pos, batch, cell, pbc)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata,
                              strict, missing_keys, unexpected_keys,
                              error_msgs):
        if (f'{prefix}encoder.convs.0.kernel.scale' in state_dict and
                f'{prefix}readouts.0.0.linear.weight' not in state_dict):
            error_msgs.append(
                f"Expected 'state_dict' to hold '{prefix}readouts.0' (got a "
                f"network of before, which read invariants out at one "
                f"resolution only). Train it again")
        super()._load_from_state_dict(state_dict, prefix, local_metadata,
                                      strict, missing_keys, unexpected_keys,
                                      error_msgs)

    def example(self, generator: torch.Generator) -> Example:
        """Small clouds of as many points as the last graph needs, about as
        dense as the network was built for, with their graphs.
        """
        clouds = 8  # enough for statistics over them
        kept = prod(self.encoder.ratios[:-1])
        size = ceil((self.encoder.k + 1) / kept)
        pos = random_positions(generator, clouds * size)
        # Near spheres of as much area for each point, made flat or long.
        radius = (size / (torch.pi * self.encoder.num_points))**0.5
        pos = radius * (0.1 * pos + torch.nn.functional.normalize(pos))
        axes = 0.5 + torch.rand(clouds, 3, generator=generator, device='cpu')
        batch = torch.arange(clouds, device='cpu').repeat_interleave(size)
        pos = pos * axes[batch]
        seed = torch.randint(2**31, (), generator=generator, device='cpu')
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            levels = self.levels(pos, batch)
        moved = Level._make((None, 'pos', None, None, None, None))
        x, in_type = None, self.encoder.extra
        if in_type is not None:
            x = random_fields(in_type, generator, len(pos))
        return Example((pos, batch, x, None, levels),
                       ('pos', None, in_type, None, len(levels) * [moved]),
                       (self.out_type, ))


class ModelNetClassifier(_OnClouds):
    r"""The classifier of point clouds of `"Implicit Neural Convolutional
    Kernels for Steerable CNNs" <https://arxiv.org/abs/2212.06096>`_, section
    5.2: convolutions to fewer and fewer points, whose input field is the
    position (from the centre of the cloud); invariants are read out after
    each of them, averaged, and go through an MLP together. (The paper's come
    from the last convolution alone.) Logits are invariant to the group
    within the error of :obj:`activation`, and to translations.

    Clouds in a periodic :obj:`cell` have no centre: there the input field is
    :obj:`x` alone, and logits are also invariant to lattice translations of
    single points and to the choice of the cell.

    The paper does not give sizes; those here are for 1,024 points.

    .. code-block:: python

        model = ModelNetClassifier(group='SO(2)xM')
        logits = model(data.pos, data.batch)

    Args:
        num_classes (int, optional): (default: :obj:`40`)
        in_type (FieldType, optional): The type of further input features,
            e.g. :obj:`"1o"` for normals. (default: :obj:`None`)
        group (Group or str, optional): (default: :obj:`"SO(2)xM"`)
        channels (int, optional): Copies of :math:`0 \oplus \ldots \oplus L`
            in each layer. (default: :obj:`16`)
        max_degree (int, optional): :math:`L`. (default: :obj:`2`)
        ratios (list[float], optional): The share of points that each
            convolution keeps. (default: four halvings)
        k (int, optional): The number of neighbours. (default: :obj:`15`)
        num_points (int, optional): Typical points of a cloud in the unit
            ball: sets the size of the kernels. (default: :obj:`1024`)
        kernel (str or BasisSpec, optional): The basis of the kernels:
            :obj:`"implicit"`, here with 8 channels and 2 layers,
            :obj:`"harmonic"`, or a specification, such as
            :obj:`ImplicitBasis.spec(hidden=16, max_degree=4)`; with a degree
            of :math:`2 L` no kernel between the fields is left out.
            (default: :obj:`"implicit"`)
        invariants (int, optional): That are pooled, in equal parts from each
            resolution. (default: :obj:`128`)
        mlp (int, optional): The width of the MLP. (default: :obj:`128`)
        dropout (float, optional): In the MLP. (default: :obj:`0.3`)
        activation (callable, optional): Builds an activation from a
            :class:`FieldType`. :class:`~pyg_steerable.nn.NormGate` is exact
            for every group. (default:
            :class:`~pyg_steerable.nn.QuotientELU`, the paper's)
        sampling (str, optional): How clouds are thinned out, see
            :func:`~pyg_steerable.nn.hierarchy`. (default: :obj:`"random"`)

    Shapes:
        - **input:** positions :math:`(|\mathcal{V}|, 3)`, batch
          :math:`(|\mathcal{V}|)`, features :math:`(|\mathcal{V}|, d)`
          *(optional)*
        - **output:** logits :math:`(|\mathcal{G}|, C)`

    Raises:
        ValueError: If an option is unknown, :obj:`batch` or :obj:`x` does not
            fit the points, or a position is not finite.
    """
    def __init__(self, num_classes: int = 40,
                 in_type: FieldType | None = None, *,
                 group: Group | str = 'SO(2)xM', channels: int = 16,
                 max_degree: int = 2,
                 ratios: Sequence[float] = (0.5, 0.5, 0.5, 0.5), k: int = 15,
                 num_points: int = 1024,
                 kernel: str | BasisSpec = 'implicit', invariants: int = 128,
                 mlp: int = 128, dropout: float = 0.3,
                 activation=QuotientELU, sampling: str = 'random'):
        super().__init__()
        num_classes, mlp, dropout = _head_options(num_classes, mlp, dropout)
        self._set_types(in_type, num_classes, group)
        self.encoder = _Encoder(group, in_type, channels, max_degree, ratios,
                                k, num_points, kernel, activation, sampling)
        self.readouts = _readouts('invariants', invariants,
                                  self.encoder.types[1:])
        widths, layers = [invariants, mlp, mlp], []
        for before, after in zip(widths, widths[1:]):
            layers += [
                torch.nn.Dropout(dropout),
                torch.nn.Linear(before, after),
                torch.nn.BatchNorm1d(after),
                torch.nn.ELU(),
            ]
        self.head = torch.nn.Sequential(*layers,
                                        torch.nn.Linear(mlp, num_classes))

    def forward(self, pos: Tensor, batch: Tensor | None = None,
                x: Tensor | None = None, batch_size: int | None = None,
                levels: list[Level] | None = None, *,
                cell: Tensor | None = None,
                pbc: bool | Sequence[bool] = True) -> Tensor:
        if levels is None:
            levels = self.levels(pos, batch, cell=cell, pbc=pbc)
        fields, size = self.encoder(pos, batch, x, batch_size, levels)
        if self.head.training and size == 1:
            raise ValueError("Expected 2 or more clouds in 'batch' while "
                             "training, for the batch norms of the head (got "
                             "1). For a single cloud call 'model.eval()'")
        pooled = []
        for field, level, readout in zip(fields[1:], levels, self.readouts):
            batch, _ = read_batch(level.batch, field, size)
            pooled.append(global_mean_pool(readout(field), batch, size))
        return self.head(torch.cat(pooled, dim=-1))


class ModelNetSegmenter(_OnClouds):
    r"""The same convolutions as an encoder, and a decoder that interpolates
    the fields to more and more points, each step mixed with the encoder's
    fields there by an equivariant linear map. Invariants are read out at
    each step and interpolated along: logits for each point, invariant to the
    group within the error of :obj:`activation`.

    Args:
        num_classes (int): The number of classes.
        in_type (FieldType, optional): The type of further input features.
            (default: :obj:`None`)
        group, channels, max_degree, ratios, k, num_points, kernel,
            dropout, activation, sampling: See :class:`ModelNetClassifier`.
        mlp (int, optional): Invariants that are read out, in equal parts
            from each resolution. (default: :obj:`64`)

    Shapes:
        - **input:** as :class:`ModelNetClassifier`
        - **output:** logits :math:`(|\mathcal{V}|, C)`

    Raises:
        ValueError: As :class:`ModelNetClassifier`.
    """
    def __init__(self, num_classes: int = 40,
                 in_type: FieldType | None = None, *,
                 group: Group | str = 'SO(2)xM', channels: int = 16,
                 max_degree: int = 2,
                 ratios: Sequence[float] = (1., 0.5, 0.5), k: int = 15,
                 num_points: int = 1024,
                 kernel: str | BasisSpec = 'implicit', mlp: int = 64,
                 dropout: float = 0.3, activation=NormGate,
                 sampling: str = 'random'):
        super().__init__()
        num_classes, mlp, dropout = _head_options(num_classes, mlp, dropout)
        self._set_types(in_type, num_classes, group)
        self.encoder = _Encoder(group, in_type, channels, max_degree, ratios,
                                k, num_points, kernel, activation, sampling)
        types = self.encoder.types
        self.mixes = torch.nn.ModuleList()
        for skip in types[-2::-1]:
            act = build_activation(activation, types[-1])
            act_type = activation_input(act, types[-1])
            self.mixes.append(torch.nn.Sequential(
                Linear(types[-1] + skip, act_type), FieldBatchNorm(act_type),
                act))
        self.readouts = _readouts('mlp', mlp, len(types) * [types[-1]])
        self.head = torch.nn.Sequential(
            torch.nn.Dropout(dropout), torch.nn.Linear(mlp, num_classes))

    def forward(self, pos: Tensor, batch: Tensor | None = None,
                x: Tensor | None = None, batch_size: int | None = None,
                levels: list[Level] | None = None, *,
                cell: Tensor | None = None,
                pbc: bool | Sequence[bool] = True) -> Tensor:
        if levels is None:
            levels = self.levels(pos, batch, cell=cell, pbc=pbc)
        fields, _ = self.encoder(pos, batch, x, batch_size, levels)
        periodic = levels[0].periodic or {}
        h = fields.pop()
        width = h.shape[-1]
        invariants = self.readouts[0](h)
        places = [(pos, batch)] + [(v.pos, v.batch) for v in levels]
        for i, mix in enumerate(self.mixes, 1):
            coarse, coarse_batch = places.pop()
            fine, fine_batch = places[-1]
            up = interpolate(torch.cat([h, invariants.to(h)], dim=-1), coarse,
                             fine, coarse_batch, fine_batch, **periodic)
            h = mix(torch.cat([up[:, :width], fields.pop()], dim=-1))
            invariants = torch.cat([up[:, width:], self.readouts[i](h)],
                                   dim=-1)
        return self.head(invariants)
