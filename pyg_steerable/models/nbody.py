"""Where particles will be: the network for motions of a few bodies."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn import global_mean_pool
from torch_geometric.typing import Adj

from .. import checks
from ..graph.points.batch import read_batch
from ..nn import SteerableConv
from ..nn.conv.edges import check_edges, read_edges
from ..nn.field import Example, FieldModule, random_fields, random_positions
from ..nn.kernel import BasisSpec
from ..nn.pointwise import Linear, NormGate
from ..nn.pointwise.activation import activation_input, build_activation
from ..ops.precision import at_least_float32
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .kernels import read_kernel
from .qm9 import MOST

ATTRIBUTES = ('none', 'scalars', 'vectors')
#: Distances, in units of the radius, below which inverse ones are flat.
_SOFTENING = 0.05


class _Step(torch.nn.Module):
    """Fields after a convolution, and accelerations from them."""
    def __init__(self, field_type: FieldType, vector: FieldType, build_conv,
                 activation):
        super().__init__()
        self.act, act = (build_activation(activation, field_type)
                         for _ in range(2))
        self.conv = build_conv(field_type,
                               activation_input(self.act, field_type))
        last = Linear(field_type, vector)
        with torch.no_grad():  # at first particles hardly turn
            for weight in last.parameters():
                weight.mul_(0.1)
        self.out = torch.nn.Sequential(
            Linear(field_type, activation_input(act, field_type)), act, last)

    def forward(self, x: Tensor, *graph) -> tuple[Tensor, Tensor]:
        x = x + self.act(self.conv(x, *graph))
        return x, self.out(x)


class NBodyNet(FieldModule):
    r"""Where charged, heavy or otherwise interacting particles will be, from
    their positions and velocities: steerable convolutions, whose kernels see
    charges, distances and the *vectors* of the velocities, as in `"Implicit
    Neural Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_ (published version), and particles
    that move after each of them, as in `"E(n) Equivariant Graph Neural
    Networks" <https://arxiv.org/abs/2102.09844>`_ (eq. 7). The network is a
    learned step of an integrator, taken :math:`K` times with the same
    weights over the time :math:`T`,

    .. math::
        \mathbf{x}_i &\leftarrow \mathbf{x}_i + \alpha\Big(\mathrm{conv}
        \big(\mathbf{x}, \mathbf{r}, \mathbf{z}\big)_i\Big)

        \mathbf{v}_i &\leftarrow \mathbf{v}_i + \tfrac{T}{K} \,
        \mathbf{a}(\mathbf{x}_i), \qquad
        \mathbf{r}_i \leftarrow \mathbf{r}_i + \tfrac{T}{K} \, \mathbf{v}_i

    where :math:`\mathbf{a}` is an equivariant network of two linear maps,
    fields start as a linear map of :math:`|q_i|, |\mathbf{v}_i|,
    \mathbf{v}_i` and the position, and kernels see

    .. math::
        \mathbf{z}_{ij} = \big(q_i q_j, \; d, \; 1 / d, \; q_i q_j / d, \;
        \log d^2, \; \mathbf{v}_j - \mathbf{v}_i\big), \qquad
        d^2 = |\mathbf{r}_j - \mathbf{r}_i|^2 + \epsilon^2

    with :math:`\epsilon` a twentieth of the radius: what happens at close
    encounters makes most of the error, and polynomials of the distance do not
    tell them apart. It commutes with the group, to rounding if the kernels
    do. If the signs of all charges change, nothing does.

    .. code-block:: python

        model = NBodyNet()
        later = model(data.charge, data.pos, data.vel, data.edge_index,
                      data.batch)

    A closed system feels no outer force: the network then commutes with
    translations, and with a velocity for all (Galilei). One that is not
    closed may feel a plane or a field: positions are then relative to the
    origin of space.

    Args:
        in_dim (int, optional): The number of charges of a particle,
            invariants. (default: :obj:`1`)
        group (Group or str, optional): (default: :obj:`"O(3)"`)
        channels (int, optional): Copies of :math:`0 \oplus \ldots \oplus L`
            of the fields. (default: :obj:`12`)
        max_degree (int, optional): :math:`L`, at least 1. (default: :obj:`1`)
        steps (int, optional): :math:`K`. (default: :obj:`16`)
        attributes (str, optional): What kernels see besides the relative
            position: :obj:`"none"`, :obj:`"scalars"` (products of charges,
            functions of the distance), or :obj:`"vectors"` (the relative
            velocity, too).
            (default: :obj:`"vectors"`)
        closed (bool, optional): Whether no outer force acts.
            (default: :obj:`True`)
        time (float, optional): :math:`T`, from input to output, in the
            unit of length over that of the velocities.
            (default: :obj:`1.0`)
        kernel (str or BasisSpec, optional): The basis of the kernels:
            :obj:`"implicit"`, here with 8 channels, :obj:`"harmonic"`, which
            takes no attributes, or a specification.
            (default: :obj:`"implicit"`)
        radius (float, optional): The unit of length of implicit kernels, or
            the last shell of harmonic ones. (default: :obj:`2.0`)
        num_neighbors (float, optional): The number of other particles.
            (default: :obj:`4.0`)
        activation (callable, optional): Builds an activation from a
            :class:`FieldType`, for the layers and for kernels that are given
            by name. (default: :class:`~pyg_steerable.nn.NormGate`)

    Shapes:
        - **input:** charges :math:`(|\mathcal{V}|, d)`, positions and
          velocities :math:`(|\mathcal{V}|, 3)`, edge indices
          :math:`(2, |\mathcal{E}|)`, batch :math:`(|\mathcal{V}|)`
          *(optional)*
        - **output:** positions :math:`(|\mathcal{V}|, 3)`, of the dtype of
          the input's

    Raises:
        ValueError: If an option is unknown, or options or shapes do not fit.
        TypeError: If an argument is of another kind.
    """
    in_type: FieldType
    out_type: FieldType

    def __init__(self, in_dim: int = 1, *, group: Group | str = 'O(3)',
                 channels: int = 12, max_degree: int = 1, steps: int = 16,
                 attributes: str = 'vectors', closed: bool = True,
                 time: float = 1., kernel: str | BasisSpec = 'implicit',
                 radius: float = 2., num_neighbors: float = 4.,
                 activation=NormGate):
        super().__init__()
        radius = checks.scale('radius', radius)
        spec = read_kernel(kernel, hidden=8, activation=activation
                           ).with_defaults(radius=radius)
        in_dim = checks.integer('in_dim', in_dim, 1, MOST)
        channels = checks.integer('channels', channels, 1, MOST)
        self.steps = checks.integer('steps', steps, 1, MOST)
        self.closed = checks.flag('closed', closed)
        self.time = checks.scale('time', time)
        group = Group.wrap(group)
        scalars = FieldType([(in_dim, '0e')], group)
        self.vector = FieldType('1o', group)
        self.set_types(scalars, self.vector)
        self.attributes = checks.choice('attributes', attributes, ATTRIBUTES)
        seen = FieldType([], group)
        if attributes != 'none':
            seen = seen + scalars + scalars + FieldType('3x0e', group)
        if attributes == 'vectors':
            seen = seen + self.vector
        hidden = FieldType.sphere(
            channels, checks.integer('max_degree', max_degree, 1, MOST),
            group)

        def build_conv(in_type, out_type):
            return SteerableConv(in_type, out_type, spec,
                                 seen if seen.dim else None,
                                 num_neighbors=num_neighbors)

        self.softening = _SOFTENING * radius
        self.embedding = Linear(
            scalars + FieldType('1x0e + 2x1o', group), hidden)
        self.step = _Step(hidden, self.vector, build_conv, activation)

    def forward(self, charge: Tensor, pos: Tensor, vel: Tensor,
                edge_index: Adj, batch: Tensor | None = None,
                batch_size: int | None = None) -> Tensor:
        self.check_input(charge, 'charge')
        checks.positions('pos', pos)
        checks.positions('vel', vel)
        for name, value in (('pos', pos), ('vel', vel)):
            checks.shaped(name, value, (len(charge), 3),
                          '[N, 3], one row for each particle')
        checks.same_device(charge=charge, pos=pos, vel=vel)
        batch, size = read_batch(batch, charge, batch_size)
        edges, *_ = read_edges(edge_index, None, None, None, (pos, pos),
                               'source_to_target')
        check_edges(edges, (pos, pos), None, None, None, False)

        dtype, full = pos.dtype, at_least_float32(pos)
        pos, vel = pos.to(full), vel.to(full)
        if self.closed:  # as seen from a place that moves with the centre
            centre, drift = (global_mean_pool(x, batch, size)[batch]
                             for x in (pos, vel))
            pos, vel = pos - centre, vel - drift
            centre = centre + self.time * drift
        x = self.embedding(torch.cat([
            charge.abs(), _norm(vel), vel, pos], dim=1).to(self.dtype))
        dt = self.time / self.steps
        for _ in range(self.steps):
            x, force = self.step(x, pos, edges,
                                self._seen(charge, pos, vel, edges))
            vel = vel + dt * force.to(full)
            pos = pos + dt * vel
        return (pos + centre if self.closed else pos).to(dtype)

    def _seen(self, charge: Tensor, pos: Tensor, vel: Tensor, edges: Tensor
              ) -> Tensor | None:
        """What kernels see of each edge."""
        if self.attributes == 'none':
            return None
        source, target = edges
        charges = charge[source] * charge[target]
        square = (pos[source] - pos[target]).square().sum(1, keepdim=True)
        square = square + self.softening**2
        inverse = square.rsqrt()
        parts = [charges, charges * inverse, square.sqrt(), inverse,
                 square.log()]
        if self.attributes == 'vectors':
            parts.append(vel[source] - vel[target])
        return torch.cat(parts, dim=1)

    def example(self, generator: torch.Generator) -> Example:
        """Two systems of five particles each."""
        size = 5
        charge = random_fields(self.in_type, generator, 2 * size)
        pos, vel = (random_positions(generator, 2 * size) for _ in range(2))
        pairs = (1 - torch.eye(size, device='cpu')).nonzero().T
        edge_index = torch.cat([pairs, pairs + size], dim=1)
        batch = torch.arange(2, device='cpu').repeat_interleave(size)
        kind = 'pos' if self.closed else self.vector
        return Example((charge, pos, vel, edge_index, batch),
                       (self.in_type, kind, self.vector, None, None),
                       (kind, ))


def _norm(x: Tensor) -> Tensor:
    """Lengths, with a derivative of zero at zero."""
    square = x.square().sum(1, keepdim=True)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)
