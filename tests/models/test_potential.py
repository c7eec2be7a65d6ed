"""Energies, forces and stresses: derivatives, smoothness, sums."""
import math

import pytest
import torch

from pyg_steerable.graph import edge_shift, radius_graph
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis
from pyg_steerable.models import Potential
from pyg_steerable.nn import calibrate
from pyg_steerable.testing import assert_equivariant, equivariance_error

CUTOFF = 2.5
ELEMENTS = [1, 6, 8]
KINDS = [dict(), dict(kernel='implicit'), dict(max_degree=2, channels=2),
         dict(kernel='implicit', atom_attributes=True),
         dict(group='SO(2)', channels=2)]


def make(**options):
    torch.manual_seed(0)
    options = {'cutoff': CUTOFF, 'channels': 3, 'blocks': 2, 'hidden': 4,
               'num_neighbors': 4., **options}
    model = Potential(ELEMENTS, **options).double()
    with torch.no_grad():
        model.shift.copy_(torch.tensor([-3., -100., -200.]))
        model.scale.copy_(torch.tensor([0.5, 1., 2.]))
    return model.eval()


def molecule(size=6, seed=0):
    """Random atoms."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.tensor(ELEMENTS)[torch.randint(3, (size, ),
                                             generator=generator)]
    pos = torch.randn(size, 3, generator=generator).double()
    return z, pos


def crystal(size=4):
    z, pos = molecule(size)
    cell = torch.tensor([[2.2, 0.1, 0.], [0.3, 2., 0.2], [0., -0.4, 2.6]])
    return z, pos, cell.double()


# Derivatives ###############################################################


@pytest.mark.parametrize('seed', range(3))
def test_forces_are_smooth_where_fields_vanish(seed):
    """Of two atoms all fields lie along one line, and change sign on it."""
    torch.manual_seed(seed)
    model = Potential([1, 6], cutoff=4.).double().eval()
    r = torch.linspace(1, 4.2, 1601).double()
    pos = torch.zeros(2 * len(r), 3).double()
    pos[1::2, 0] = r
    _, forces, _ = model(torch.tensor([1, 6]).repeat(len(r)), pos,
                         torch.arange(len(r)).repeat_interleave(2))
    force = forces[1::2, 0]
    slope = force.diff() / (r[1] - r[0])
    assert slope.abs().max() < 20 * force.abs().max()  # with eps=1e-4: 45


@pytest.mark.parametrize('options', KINDS, ids=str)
def test_forces(options):
    model, (z, pos) = make(**options), molecule()
    energy, forces, stress = model(z, pos)
    assert stress is None and energy.shape == (1, )
    assert not forces.requires_grad and forces.abs().max() > 1e-2
    assert torch.equal(energy, model(z, pos, forces=False).energy)
    for i, a in [(0, 0), (2, 1), (5, 2)]:
        step = torch.zeros_like(pos)
        step[i, a] = 1e-4
        slope = (model(z, pos + step).energy - model(z, pos - step).energy)
        assert abs(slope / 2e-4 + forces[i, a]) < 1e-6 * forces.abs().max()
    if 'group' not in options:  # no field from outside
        assert forces.sum(0).abs().max() < 1e-10
        assert torch.linalg.cross(pos, forces).sum(0).abs().max() < 1e-10


@pytest.mark.parametrize('options', KINDS, ids=str)
def test_stress(options):
    """In a cell that is smaller than the cutoff: atoms see their images."""
    model, (z, pos, cell) = make(**options), crystal()
    edge_index, _ = radius_graph(pos, CUTOFF, cell=cell)
    assert (edge_index[0] == edge_index[1]).any()
    energy, forces, stress = model(z, pos, cell=cell)
    assert stress.shape == (1, 3, 3) and stress.abs().max() > 1e-2
    assert (stress - stress.mT).abs().max() < 1e-12
    volume = torch.linalg.det(cell).abs()
    for a, b in [(0, 0), (1, 1), (0, 2), (1, 2)]:
        found = []
        for h in (1e-5, -1e-5):
            strain = torch.eye(3).double()
            strain[a, b] += h / 2
            strain[b, a] += h / 2
            found.append(model(z, pos @ strain, cell=cell @ strain).energy)
        slope = (found[0] - found[1]) / 2e-5 / volume
        assert abs(slope - stress[0, a, b]) < 1e-6 * stress.abs().max()
    for i in range(2):
        step = torch.zeros_like(pos)
        step[i, i] = 1e-4
        slope = (model(z, pos + step, cell=cell).energy -
                 model(z, pos - step, cell=cell).energy)
        assert abs(slope / 2e-4 + forces[i, i]) < 1e-6 * forces.abs().max()


def test_training_through_forces_and_stress():
    """The gradient in the weights against finite differences."""
    model, (z, pos, cell) = make().train(), crystal()

    def loss():
        energy, forces, stress = model(z, pos, cell=cell)
        return (energy.sum() + forces.square().sum() +
                stress.square().sum())

    loss().backward()
    for p in (model.embedding.weight, model.blocks[0].conv.kernel.product
              .weight, model.heads[1][2].weight):
        flat, gradient = p.data.view(-1), p.grad.flatten()
        i = int(gradient.abs().argmax())
        with torch.no_grad():
            flat[i] += 1e-6
            after = float(loss())
            flat[i] -= 2e-6
            before = float(loss())
            flat[i] += 1e-6
        assert math.isclose((after - before) / 2e-6, float(gradient[i]),
                            rel_tol=1e-5)


def test_second_derivatives():
    """Positions that require a gradient keep the graph: Hessians."""
    model, (z, pos) = make(), molecule(3)
    hessian = torch.autograd.functional.jacobian(
        lambda p: -model(z, p).forces, pos).view(9, 9)
    assert (hessian - hessian.T).abs().max() < 1e-10
    step = torch.zeros_like(pos)
    step[1, 2] = 1e-5
    column = (model(z, pos - step).forces - model(z, pos + step).forces)
    assert (column.flatten() / 2e-5 - hessian[5]).abs().max() < (
        1e-6 * hessian.abs().max())


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize('training', [False, True])
def test_forces_without_gradients(mode, training):
    model, (z, pos, cell) = make().train(training), crystal()
    with torch.no_grad():
        outside = model(z, pos, cell=cell)
    with mode():
        inside = model(z.clone(), pos.clone(), cell=cell.clone())
    for a, b in zip(inside, outside):
        assert torch.equal(a, b) and not a.requires_grad


# The cutoff ################################################################


@pytest.mark.parametrize('options', KINDS, ids=str)
def test_an_atom_crosses_the_cutoff(options):
    """Energy and forces are continuous, and so is the derivative of the
    forces; on both sides, as the graph changes.
    """
    model = make(**options)
    z = torch.tensor([8, 1, 6])
    direction = torch.tensor([0.6, 0., 0.8]).double()

    def at(distance):
        """The third atom sees both others all the time."""
        pos = torch.stack([0 * direction, distance * direction,
                           torch.tensor([0.7, 0.9, 0.6]).double()])
        energy, forces, _ = model(z, pos)
        return torch.cat([energy, forces.flatten()]), (
            radius_graph(pos, CUTOFF).shape[1])

    h = 1e-5 * CUTOFF
    edge, _ = at(CUTOFF)
    (left, n), (right, m) = at(CUTOFF - h), at(CUTOFF + h)
    assert n == 6 and m == 4  # the graph does change
    # One-sided derivatives, of second order.
    left = (3 * edge - 4 * left + at(CUTOFF - 2 * h)[0]) / (2 * h)
    right = (4 * right - 3 * edge - at(CUTOFF + 2 * h)[0]) / (2 * h)
    scale = edge[1:].abs().max()
    assert left[1:].abs().max() > 1e-3 * scale
    assert (left - right).abs().max() < 1e-6 * scale
    force = edge[1:].view(3, 3)[1] @ direction
    assert abs(left[0] + force) < 1e-6 * scale
    assert abs(right[0] + force) < 1e-6 * scale
    # No jumps but the slope.
    for h in (1e-8, 1e-6):
        jump = at(CUTOFF + h)[0] - at(CUTOFF - h)[0] - 2 * h * left
        assert jump.abs().max() < 1e-6 * h * scale + 1e-12


def test_without_an_envelope_it_would_jump():
    """The test above could fail."""
    model = make()
    for conv in (model.first, model.blocks[0].conv):
        conv.kernel.basis.cutoff_radius = None
    z = torch.tensor([8, 1])
    below, above = (model(z, torch.tensor([[0., 0, 0], [0, 0, r]]).double())
                    .energy for r in (CUTOFF - 1e-6, CUTOFF + 1e-6))
    assert (below - above).abs() > 1e-3


# Sums ######################################################################


@pytest.mark.parametrize('options', KINDS, ids=str)
def test_extensive_and_batched(options):
    model = make(**options)
    (z1, pos1), (z2, pos2) = molecule(5, 1), molecule(7, 2)
    (e1, f1, _), (e2, f2, _) = model(z1, pos1), model(z2, pos2)
    far = pos1 + torch.tensor([100., 0., 0.]).double()
    energy, forces, _ = model(torch.cat([z1, z1]), torch.cat([pos1, far]))
    assert torch.allclose(energy, 2 * e1, rtol=1e-12)
    assert torch.allclose(forces, f1.repeat(2, 1), atol=1e-10)
    batch = torch.tensor([0] * 5 + [1] * 7)
    for training in (False, True):  # one does not depend on the other
        energy, forces, _ = model.train(training)(
            torch.cat([z1, z2]), torch.cat([pos1, pos2]), batch)
        assert torch.allclose(energy, torch.cat([e1, e2]), rtol=1e-12)
        assert torch.allclose(forces, torch.cat([f1, f2]), atol=1e-10)
    none = model(z1, pos1, batch=torch.full((5, ), 1), batch_size=3)
    assert none.energy[[0, 2]].tolist() == [0., 0.]
    assert torch.allclose(none.energy[1], e1[0], rtol=1e-12)


def test_crystals_are_extensive_and_batched():
    model, (z, pos, cell) = make(), crystal()
    energy, forces, stress = model(z, pos, cell=cell)
    double = cell * torch.tensor([[2.], [1.], [1.]]).double()
    e, f, s = model(z.repeat(2), torch.cat([pos, pos + cell[0]]),
                    cell=double)
    assert torch.allclose(e, 2 * energy, rtol=1e-12)
    assert torch.allclose(f, forces.repeat(2, 1), atol=1e-10)
    assert torch.allclose(s, stress, atol=1e-10)
    other = 1.1 * cell
    batch = torch.tensor([0] * 4 + [1] * 4)
    e, f, s = model(z.repeat(2), pos.repeat(2, 1), batch,
                    torch.stack([cell, other]))
    e2, f2, s2 = model(z, pos, cell=other)
    assert torch.allclose(e, torch.cat([energy, e2]), rtol=1e-12)
    assert torch.allclose(f, torch.cat([forces, f2]), atol=1e-10)
    assert torch.allclose(s, torch.cat([stress, s2]), atol=1e-10)
    slab = model(z, pos, cell=cell, pbc=[True, True, False])
    assert slab.stress is None and abs(slab.energy - energy) > 1e-6


def test_given_edges():
    model, (z, pos, cell) = make(), crystal()
    expected = model(z, pos, cell=cell)
    edge_index, offset = radius_graph(pos, 1.3 * CUTOFF, cell=cell)
    shift = edge_shift(offset, cell)
    found = model(z, pos, cell=cell, edge_index=edge_index, edge_shift=shift)
    for a, b in zip(found, expected):  # those beyond the cutoff do not count
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-10)
    z, pos = molecule()
    found = model(z, pos, edge_index=radius_graph(pos, 99.))
    assert torch.allclose(found.forces, model(z, pos).forces, atol=1e-10)


def test_few_atoms():
    model = make()
    alone = model(torch.tensor([6]), torch.zeros(1, 3))
    assert torch.equal(alone.forces, torch.zeros(1, 3))
    none = model(torch.zeros(0, dtype=torch.long), torch.zeros(0, 3),
                 batch_size=1)
    assert none.energy.tolist() == [0.] and none.forces.shape == (0, 3)
    apart = model(torch.tensor([6, 6]), torch.tensor([[0., 0, 0],
                                                      [99, 0, 0]]))
    assert torch.allclose(apart.energy, 2 * alone.energy, rtol=1e-12)


# Symmetry ##################################################################


@pytest.mark.parametrize('options', KINDS, ids=str)
def test_equivariance(options):
    model = make(**options)
    assert_equivariant(model)
    assert_equivariant(model.train())
    if 'group' in options:
        assert equivariance_error(model, 'SO(3)') > 1e-2


def test_group_without_mirrors():
    """A chiral potential: mirror images differ."""
    model = make(group='SO(3)', max_degree=2, blocks=3)
    assert_equivariant(model)
    assert equivariance_error(model, 'O(3)') > 1e-3


# Scales and dtypes #########################################################


def test_fit():
    model = make()
    z = torch.tensor([1, 1, 8, 6, 8, 6, 1, 1, 1, 1])
    batch = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    energy = torch.tensor([-2. * 1 - 70, -35. - 70, -35. - 4]).double()
    forces = torch.randn(10, 3)
    model.fit(z, energy, batch, forces)
    assert torch.allclose(model.shift, torch.tensor([-1., -35., -70.])
                          .double())
    rms = forces.double().square().mean().sqrt()
    assert torch.allclose(model.scale, rms.expand(3))
    model.fit(z, energy + torch.tensor([3., -2., 5.]), batch)
    assert 0 < model.scale[0] < 1e-6  # three elements fit three energies
    one = make()  # of one molecule only the sum is known
    one.fit(z[:3], torch.tensor([-72.]).double())
    assert torch.allclose(one.shift[[0, 0, 2]].sum(), torch.tensor(-72.)
                          .double()) and one.shift[1].abs() < 1e-9


def test_large_energies_in_float32():
    """The shift keeps its digits whatever the dtype."""
    z, pos = molecule()
    exact = make()
    with torch.no_grad():
        exact.shift.sub_(1e6).add_(1 / 3)
    single, half = make().float(), make().half()
    for model in (single, half):
        model.load_state_dict(exact.state_dict())
        assert model.shift.dtype == torch.float64
        assert torch.equal(model.shift, exact.shift)
    found, expected = single(z, pos.float()), exact(z, pos)
    assert found.energy.dtype == torch.float64
    assert found.forces.dtype == torch.float32
    assert abs(found.energy - expected.energy) < 1e-4
    assert torch.allclose(found.forces.double(), expected.forces, atol=1e-4)
    assert single(z, pos).forces.dtype == torch.float64


def test_state_dict():
    model, other = make(), make()
    z, pos = molecule()
    calibrate(model, z, pos, forces=False)
    assert not torch.allclose(model(z, pos).forces, other(z, pos).forces)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(z, pos).forces, other(z, pos).forces)


@pytest.mark.parametrize('kernel', ['implicit', 'harmonic'])
def test_calibrate(kernel):
    model, (z, pos) = make(kernel=kernel).train(), molecule(8)
    found = calibrate(model, z, pos, forces=False)
    assert len(found) == 2
    again = calibrate(model, z, pos, forces=False)
    assert all(abs(value - 1) < 1e-2 for value in again.values())
    if kernel == 'implicit':  # what was measured stays in training
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model.train()(z, pos)
        assert all(torch.equal(v, before[k])
                   for k, v in model.state_dict().items())


# Errors ####################################################################


@pytest.mark.parametrize('options, words', [
    (dict(elements=[1, 1]), 'different ones'),
    (dict(elements=[119]), "'elements'.*<= 118"),
    (dict(elements=[]), "'elements' to hold one or more"),
    (dict(cutoff=0.), "'cutoff' to be a positive"),
    (dict(channels=0), "'channels'"), (dict(blocks=0), "'blocks'"),
    (dict(hidden=0), "'hidden'"), (dict(kernel='x'), "'kernel'"),
    (dict(kernel=HarmonicBasis.spec(cutoff_radius=3.)),
     "without 'cutoff_radius'"),
    (dict(atom_attributes=True), "no attributes.*kernel='implicit'"),
])
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=f'Expected.*{words}'):
        Potential(**{'elements': ELEMENTS, **options})


def test_kernels_of_a_specification():
    spec = ImplicitBasis.spec(hidden=3, radius=1.5)
    basis = make(kernel=spec).first.kernel.basis
    assert float(basis.radius) == 1.5 and float(basis.cutoff_radius) == CUTOFF


@pytest.mark.parametrize('inputs, words', [
    (dict(z=torch.tensor([1, 7, 1, 1])), r"'z' to hold \(1, 6, 8\).*got 7"),
    (dict(z=torch.ones(3).long()), r"'z' of shape \[4\], one for each atom"),
    (dict(pos=torch.randn(4, 2)), "'pos' of shape"),
    (dict(pos=torch.full((4, 3), torch.nan)), 'finite'),
    (dict(cell=torch.eye(3).expand(2, 3, 3)), 'one for each structure.*got 2'),
    (dict(cell=torch.zeros(3, 3)), 'volume'),
    (dict(edge_index=torch.zeros(2, 4).long(), cell=torch.eye(3)),
     "'edge_shift' beside 'edge_index'"),
    (dict(edge_index=torch.tensor([[0], [1]]), cell=torch.ones(3, 3),
          edge_shift=torch.zeros(1, 3)), "'cell' to have a volume"),
    (dict(cell=torch.eye(3), pbc=[True, False]), "'pbc' of shape"),
    (dict(edge_shift=torch.zeros(2, 3)), "no 'edge_shift' without"),
    (dict(edge_index=torch.full((2, 1), 9)), "'edge_index"),
    (dict(batch=torch.zeros(3).long()), "'batch'"),
])
def test_wrong_input(inputs, words):
    good = dict(z=torch.tensor([1, 6, 8, 1]), pos=torch.randn(4, 3))
    with pytest.raises(ValueError, match=f'Expected.*{words}'):
        make()(**{**good, **inputs})
