"""An interatomic potential: energies, forces and stresses."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..graph import edge_shift as cartesian_shift
from ..graph import radius_graph
from ..graph.points.batch import read_batch
from ..graph.points.clouds import Clouds
from ..graph.points.periodic import read_pbc
from ..graph.points.shift import read_cell
from ..nn import SteerableConv
from ..nn.field import Example, FieldModule, random_positions
from ..nn.kernel import BasisSpec
from ..nn.pointwise import FieldBatchNorm, InvariantReadout, Linear, NormGate
from ..nn.pointwise.activation import activation_input, build_activation
from ..ops.precision import at_least_float32
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .kernels import LEARNING, read_kernel
from .qm9 import MOST

# Norms of fields bend at zero, and forces have their derivatives: within a
# third of a unit, not a hundredth.
_EPS = 0.1
#: The activation of potentials.
_SmoothGate = partial(NormGate, eps=_EPS)
#: The last atomic number.
LAST_ELEMENT = 118


class PotentialOutput(NamedTuple):
    r"""What :class:`Potential` gives.

    Shapes:
        - **energy:** :math:`[B]`, **forces:** :math:`[N, 3]`, **stress:**
          :math:`[B, 3, 3]`; :obj:`None` if it was not asked for, or there is
          none
    """
    energy: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None


class Tensors(NamedTuple):
    r"""The type of tensors of rank two, [*, 3, 3], such as stresses: they
    turn into :math:`g \, \mathbf{T} g^{\top}`.
    """
    group: Group

    def act(self, x: Tensor, R: Tensor) -> Tensor:
        """The tensors turned."""
        R = R.to(x.device, x.dtype)
        return R @ x @ R.T


class _Interaction(torch.nn.Module):
    """A convolution and an activation, added to the input."""
    def __init__(self, field_type: FieldType, build_conv, activation):
        super().__init__()
        self.act = build_activation(activation, field_type)
        self.conv = build_conv(field_type,
                               activation_input(self.act, field_type))

    def forward(self, x: Tensor, *graph, **attributes) -> Tensor:
        return x + self.act(self.conv(x, *graph, **attributes))


class Potential(FieldModule):
    r"""An interatomic potential: the energy of atoms, and its derivatives,

    .. math::
        E = \sum_i \big( s_{z_i} \, \epsilon_i + E_{z_i} \big), \qquad
        \mathbf{F}_i = -\frac{\partial E}{\partial \mathbf{p}_i}, \qquad
        \boldsymbol{\sigma} = \frac{1}{V} \frac{\partial E}{\partial
        \boldsymbol{\varepsilon}},

    where :math:`\epsilon_i` is what steerable convolutions over the
    neighbours within a cutoff make of atom :math:`i`, :math:`E_z` and
    :math:`s_z` a shift and a scale of each element (:meth:`fit`), and
    :math:`\boldsymbol{\varepsilon}` a strain of positions and cell.

    A linear embedding of the elements, convolutions to spherical fields with
    an activation each, from the second one on added to their input, and after
    each of them an MLP of the invariants, summed over layers. All kernels end
    at the cutoff with three derivatives (see
    :meth:`~pyg_steerable.kernels.SteerableBasis.set_cutoff_radius`): energy,
    forces and stress are continuous when an atom crosses it. The energy is
    invariant to translations and the group, and extensive; with O(3) or
    SO(3) a free molecule's forces and torques sum to zero.

    .. code-block:: python

        model = Potential(elements=[1, 6, 8], cutoff=5.0)
        model.fit(data.z, data.energy, data.batch, data.force)
        calibrate(model, data.z, data.pos, data.batch, forces=False)
        energy, forces, _ = model(data.z, data.pos, data.batch)
        loss = ((forces - data.force)**2).mean()

    The graph of forces is kept in training, and where :obj:`pos` (or
    :obj:`cell`) requires a gradient; not under :func:`torch.no_grad` or
    :func:`torch.inference_mode`, where there are forces all the same.
    Statistics inside of kernels are those of
    :func:`~pyg_steerable.nn.calibrate` in training, too, so that the energy
    of one structure does not depend on others in the batch.

    Args:
        elements (list[int]): The atomic numbers that occur.
        cutoff (float, optional): The distance from which on atoms do not see
            each other, in the unit of the positions. (default: :obj:`5.0`)
        group (Group or str, optional): (default: :obj:`"O(3)"`)
        channels (int, optional): Copies of :math:`0 \oplus \ldots \oplus L`
            in each layer. (default: :obj:`32`)
        max_degree (int, optional): :math:`L`. (default: :obj:`1`)
        blocks (int, optional): Convolutions. (default: :obj:`3`)
        hidden (int, optional): The width of the MLPs. (default: :obj:`32`)
        kernel (str or BasisSpec, optional): The basis of the kernels:
            :obj:`"harmonic"`, here with 8 shells, :obj:`"implicit"`, here
            with 8 channels and 3 layers, a batch norm of its features, a
            constant and Gaussians of the distance, both depthwise; or a
            specification.
            (default: :obj:`"harmonic"`)
        atom_attributes (bool, optional): If set to :obj:`True`, kernels see
            the elements of both atoms, which harmonic ones cannot.
            (default: :obj:`False`)
        num_neighbors (float, optional): The typical number of neighbours.
            (default: :obj:`12.0`)
        activation (callable, optional): Builds an activation from a
            :class:`FieldType`; forces need a smooth one.
            (default: :class:`~pyg_steerable.nn.NormGate` with an
            :obj:`eps` of 0.1, for smooth forces)

    Shapes:
        - **input:** atomic numbers :math:`[N]`, positions :math:`[N, 3]`,
          batch :math:`[N]` *(optional)*, lattice vectors as rows
          :math:`[3, 3]` or :math:`[B, 3, 3]` *(optional)*
        - **output:** :class:`PotentialOutput`, energies in float64: of some
          thousand eV of a molecule float32 keeps less than a meV

    Raises:
        ValueError: If an option is unknown, options or shapes do not fit, or
            an element is not known.
        TypeError: If an argument is of another kind.
    """
    in_type: FieldType
    out_type: FieldType
    index_of: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, elements: Sequence[int], *, cutoff: float = 5.,
                 group: Group | str = 'O(3)', channels: int = 32,
                 max_degree: int = 1, blocks: int = 3, hidden: int = 32,
                 kernel: str | BasisSpec = 'harmonic',
                 atom_attributes: bool = False, num_neighbors: float = 12.,
                 activation=_SmoothGate):
        super().__init__()
        self.elements = checks.integers('elements', elements,
                                        most=LAST_ELEMENT)
        if len(set(self.elements)) < len(self.elements):
            raise ValueError(f"Expected 'elements' to be different ones (got "
                             f"{list(self.elements)})")
        self.cutoff = checks.scale('cutoff', cutoff)
        channels = checks.integer('channels', channels, 1, MOST)
        blocks = checks.integer('blocks', blocks, 1, MOST)
        hidden = checks.integer('hidden', hidden, 1, MOST)
        atoms = checks.flag('atom_attributes', atom_attributes)
        spec = read_kernel(kernel, shells=8, hidden=8, num_layers=3,
                           activation=activation, **LEARNING)
        if 'cutoff_radius' in dict(spec.options):
            raise ValueError(f"Expected 'kernel' without 'cutoff_radius', "
                             f"which is the 'cutoff' of the network (got "
                             f"{spec})")
        spec = spec.with_defaults(
            cutoff_radius=self.cutoff, radius=self.cutoff * (
                0.9 if spec.basis.spans_neighbors else 0.5))
        group = Group.wrap(group)

        def scalars(n: int) -> FieldType:
            return FieldType([(n, '0e')], group)

        self.set_types(scalars(len(self.elements)), scalars(1))
        index = torch.full((LAST_ELEMENT + 1, ), -1)
        index[list(self.elements)] = torch.arange(len(self.elements))
        self.register_constant('index_of', index)
        for name, value in (('shift', 0.), ('scale', 1.)):
            self.register_buffer(name, torch.full(
                (len(self.elements), ), value, dtype=torch.float64))

        def build_conv(in_type, out_type):
            return SteerableConv(in_type, out_type, spec,
                                 node_type=self.in_type if atoms else None,
                                 num_neighbors=num_neighbors)

        self.atom_attributes = atoms
        field_type = FieldType.sphere(channels, max_degree, group)
        self.embedding = Linear(self.in_type, scalars(channels))
        self.act = build_activation(activation, field_type)
        self.first = build_conv(scalars(channels),
                                activation_input(self.act, field_type))
        self.blocks = torch.nn.ModuleList([
            _Interaction(field_type, build_conv, activation)
            for _ in range(blocks - 1)
        ])
        self.heads = torch.nn.ModuleList([
            torch.nn.Sequential(InvariantReadout(field_type, hidden, _EPS),
                                torch.nn.SiLU(), torch.nn.Linear(hidden, 1))
            for _ in range(blocks)
        ])
        self.train()

    # Shift and scale #######################################################

    @torch.no_grad()
    def fit(self, z: Tensor, energy: Tensor, batch: Tensor | None = None,
            forces: Tensor | None = None) -> None:
        r"""Sets the shift of each element by least squares of the energies on
        compositions (of all solutions the smallest: of one molecule only the
        sum over its atoms is known), and one scale for all: the root mean
        square of the components of forces, or without forces of what is left
        of the energies for each atom.

        Shapes:
            - **z**, **batch:** :math:`[N]`, **energy:** :math:`[B]`,
              **forces:** :math:`[N, 3]`
        """
        index = self._elements(z, 'z')
        checks.tensor('energy', energy)
        checks.shaped('energy', energy, (None, ), '[B]')
        checks.has_values('energy', energy, 'the shift')
        batch, size = read_batch(batch, index, len(energy) or None)
        counts = self.shift.new_zeros(len(energy), len(self.elements))
        counts.index_put_((batch, index), counts.new_ones(1), accumulate=True)
        energy = checks.finite('energy', energy.to(counts))
        shift = torch.linalg.pinv(counts) @ energy
        if forces is None:
            left = (energy - counts @ shift) / counts.sum(1).clamp(min=1)
        else:
            checks.positions('forces', forces)
            checks.has_values('forces', forces, 'the scale')
            left = checks.finite('forces', forces.to(counts))
        scale = left.square().mean().sqrt() if left.numel() else left.sum()
        self.shift.copy_(shift)
        self.scale.fill_(float(scale) or 1.)

    def _apply(self, fn, recurse=True):
        # Shifts are large numbers, of which differences count.
        exact = {name: self.get_buffer(name) for name in ('shift', 'scale')}
        super()._apply(fn, recurse)
        for name, old in exact.items():
            new = self.get_buffer(name)
            if new.dtype != old.dtype and not new.is_meta:
                self._buffers[name] = old.to(new.device)
        return self

    def train(self, mode: bool = True) -> Potential:
        """Statistics of kernels stay as they were measured."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, FieldBatchNorm):
                module.eval()
        return self

    # Energies ##############################################################

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor | None = None,
                cell: Tensor | None = None, pbc=True, *,
                batch_size: int | None = None,
                edge_index: Tensor | None = None,
                edge_shift: Tensor | None = None, forces: bool = True
                ) -> PotentialOutput:
        r"""The energy of each structure, and its derivatives.

        Args:
            z, pos, batch, cell (Tensor): The atoms.
            pbc (bool or list, optional): The axes along which cells repeat.
                Stress needs all three. (default: :obj:`True`)
            batch_size (int, optional): The number of structures.
            edge_index, edge_shift (Tensor, optional): The neighbours, at
                least all those within the cutoff; with a cell also the
                vectors to their images
                (:func:`~pyg_steerable.graph.edge_shift`).
                (default: :func:`~pyg_steerable.graph.radius_graph`)
            forces (bool, optional): If set to :obj:`False`, there is only the
                energy. (default: :obj:`True`)
        """
        if torch.is_inference_mode_enabled():  # whose tensors have no graph
            inputs = (z, pos, batch, cell, pbc)
            options = {'edge_index': edge_index, 'edge_shift': edge_shift}
            with torch.inference_mode(False), torch.no_grad():
                return self(*map(_normal, inputs), batch_size=batch_size,
                            forces=forces, **{k: _normal(v) for k, v
                                              in options.items()})
        checks.positions('pos', pos)
        checks.flag('forces', forces)
        index = self._elements(z, 'z', len(pos))
        checks.same_device(pos=pos, z=z, Potential=self.shift)
        batch, size = read_batch(batch, pos, batch_size)
        if cell is not None:
            cell = read_cell(cell)
            checks.same_device(pos=pos, cell=cell)
            if len(cell) not in (1, size):
                raise ValueError(f"Expected 'cell' of shape [3, 3] or "
                                 f"[{size}, 3, 3], one for each structure "
                                 f"(got {len(cell)} cells)")
            cell = cell.expand(size, 3, 3)
        pbc = read_pbc(pbc, Clouds(pos.detach(), batch, size))
        edge_index, shift = self._graph(pos, batch, size, cell, pbc,
                                        edge_index, edge_shift)
        hot = torch.nn.functional.one_hot(index, len(self.elements))
        structure = (hot.to(self.dtype), index, batch, size, edge_index)
        if not forces:
            return PotentialOutput(self._energy(*structure, pos, shift))
        keep = torch.is_grad_enabled() and (
            self.training or pos.requires_grad or
            cell is not None and cell.requires_grad)
        with torch.enable_grad():
            pos = pos if keep and pos.requires_grad else (
                pos.detach().requires_grad_())
            variables = [pos]
            periodic = cell is not None and bool(pbc.all())
            if periodic:
                strain = pos.new_zeros(size, 3, 3,
                                       dtype=at_least_float32(pos))
                strain = strain.requires_grad_()
                even = (strain + strain.mT) / 2
                of_atoms = even[batch]
                moved = pos + _rows(pos, of_atoms)
                shift = shift + _rows(shift, of_atoms[edge_index[0]])
                variables.append(strain)
            else:
                moved = pos
            energy = self._energy(*structure, moved, shift)
            gradient = torch.autograd.grad(
                energy.sum(), variables, create_graph=keep,
                materialize_grads=True)
        stress = None
        if cell is not None and periodic:
            volume = torch.linalg.det(cell.to(gradient[1])).abs()
            if not bool((volume > 0).all()):
                raise ValueError(f"Expected 'cell' to have a volume (got "
                                 f"{cell[volume <= 0][0].tolist()})")
            stress = gradient[1] / volume[:, None, None]
        if not keep:
            energy = energy.detach()
        return PotentialOutput(energy, -gradient[0], stress)

    def _energy(self, hot: Tensor, index: Tensor, batch: Tensor, size: int,
                edge_index: Tensor, pos: Tensor, shift: Tensor | None
                ) -> Tensor:
        graph = (pos, edge_index)
        attributes = {'edge_shift': shift,
                      'node_attr': hot if self.atom_attributes else None}
        h = self.act(self.first(self.embedding(hot), *graph, **attributes))
        energy = self.heads[0](h)
        for block, head in zip(self.blocks, self.heads[1:]):
            h = block(h, *graph, **attributes)
            energy = energy + head(h)
        energy = (self.scale[index] * energy[:, 0].to(self.scale.dtype) +
                  self.shift[index])
        return energy.new_zeros(size).index_add(0, batch, energy)

    def _graph(self, pos, batch, size, cell, pbc, edge_index, edge_shift):
        if edge_index is not None:
            checks.tensor('edge_index', edge_index, checks.INTEGERS)
            checks.shaped('edge_index', edge_index, (2, None), '[2, E]')
            if cell is not None and edge_shift is None:
                raise ValueError("Expected 'edge_shift' beside 'edge_index' "
                                 "with a cell (got None)")
            return edge_index.long(), edge_shift
        if edge_shift is not None:
            raise ValueError("Expected no 'edge_shift' without 'edge_index' "
                             "(got both)")
        options = dict(batch=batch, batch_size=size)
        if cell is None:
            return radius_graph(pos.detach(), self.cutoff, **options), None
        edge_index, offset = radius_graph(
            pos.detach(), self.cutoff, cell=cell.detach(), pbc=pbc, **options)
        return edge_index, cartesian_shift(offset, cell,
                                           batch[edge_index[0]])

    def _elements(self, z, name: str, length: int | None = None) -> Tensor:
        """The numbers of the elements among those that are known."""
        z = checks.indices(name, z, LAST_ELEMENT + 1, length,
                           '[N], one for each atom')
        index = self.index_of[checks.has_values(name, z, 'the energy')]
        if bool((index < 0).any()):
            raise ValueError(f"Expected '{name}' to hold {self.elements}, "
                             f"the 'elements' of the potential (got "
                             f"{int(z[index < 0][0])})")
        return index

    # Example ###############################################################

    def example(self, generator: torch.Generator) -> Example:
        """Two small crystals with one cell."""
        size, group = 5, self.out_type.group
        pick = torch.randint(len(self.elements), (2 * size, ),
                             generator=generator, device='cpu')
        z = torch.tensor(self.elements, device='cpu')[pick]
        cell = 0.8 * self.cutoff * (
            torch.eye(3, dtype=torch.float64, device='cpu') +
            0.1 * random_positions(generator, 3))
        pos = torch.rand(2 * size, 3, generator=generator,
                         dtype=torch.float64, device='cpu') @ cell
        batch = torch.arange(2, device='cpu').repeat_interleave(size)
        vectors = FieldType('1o', group)
        return Example((z, pos, batch, cell), (None, 'pos', None, vectors),
                       (None, vectors, Tensors(group)))


def _rows(x: Tensor, matrices: Tensor) -> Tensor:
    """Each row times its matrix."""
    return (x.to(matrices.dtype)[:, None] @ matrices)[:, 0]


def _normal(x):
    """A tensor that was made in inference mode, as one that was not."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
