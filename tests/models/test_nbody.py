import copy
import pickle

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_steerable.datasets import generate_nbody
from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.models import NBodyNet
from pyg_steerable.nn import Gate, QuotientELU, calibrate
from pyg_steerable.testing import assert_equivariant, equivariance_error

VARIANTS = [
    dict(),
    dict(attributes='scalars'),
    dict(attributes='none', closed=False),
    dict(attributes='none', kernel='harmonic'),
    dict(group='SO(2)xM', closed=False, steps=2),
    dict(group='T', max_degree=2, steps=1, in_dim=2),
    dict(group='SO(3)', kernel=ImplicitBasis.spec(num_layers=3), time=0.3),
    dict(group='1', steps=1, closed=False),
    dict(activation=Gate, steps=2),
]


def build(**options):
    torch.manual_seed(0)
    net = NBodyNet(**{'channels': 3, 'steps': 3, **options})
    with torch.no_grad():  # biases must not hide anything
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


@pytest.fixture(scope='module')
def batch():
    return next(iter(DataLoader(generate_nbody(12, start=50, steps=100), 12)))


def predict(net, data, **changes):
    inputs = {key: changes.get(key, data[key]) for key in
              ('charge', 'pos', 'vel', 'edge_index', 'batch')}
    return net(**inputs)


# Symmetries ##################################################################


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_equivariance(options):
    assert_equivariant(build(**options), dtype=torch.float64)


@pytest.mark.parametrize('group', ['SO(2)', 'SO(3)', 'SO(2)xM'])
@pytest.mark.parametrize('closed', [True, False])
def test_no_equivariance_outside(group, closed):
    net = build(group=group, closed=closed)
    assert equivariance_error(net, 'O(3)', dtype=torch.float64) > 1e-4


@pytest.mark.parametrize('closed', [True, False])
def test_translations_and_velocities_for_all(batch, closed):
    """A closed system is the same for all who move on evenly."""
    net = build(closed=closed, time=2.).double().eval()
    batch = copy.copy(batch).apply(
        lambda x: x.double() if x.is_floating_point() else x)
    out = predict(net, batch)
    way, speed = torch.randn(2, 3, dtype=torch.float64)
    for changes, expected in (
            (dict(pos=batch.pos + way), out + way),
            (dict(vel=batch.vel + speed), out + 2 * speed)):
        error = (predict(net, batch, **changes) - expected).abs().max()
        assert error < 1e-9 if closed else error > 1e-2
    assert (out - batch.pos - 2 * batch.vel).abs().max() > 1e-2


def test_signs_of_charges(batch):
    net = build()
    out = predict(net, batch)
    assert torch.allclose(predict(net, batch, charge=-batch.charge), out)
    first = batch.charge.clone()
    first[0] *= -1
    assert (predict(net, batch, charge=first) - out)[:5].abs().max() > 1e-3


@pytest.mark.parametrize('attributes, sees', [
    ('none', False), ('scalars', True), ('vectors', True)])
def test_what_kernels_see(batch, attributes, sees):
    """Signs of charges enter by kernels alone."""
    net = build(attributes=attributes)
    change = predict(net, batch, charge=batch.charge.abs()
                     ) - predict(net, batch)
    assert bool(change.abs().max() > 1e-3) == sees
    width = {'none': 0, 'scalars': 5, 'vectors': 8}[attributes]
    assert net.step.conv.edge_type.dim == width


def test_a_velocity_that_only_kernels_see(batch):
    net = build(attributes='vectors', steps=1).eval()
    seen = []
    net.step.conv.kernel.basis.register_forward_pre_hook(
        lambda basis, inputs: seen.append(inputs[1]))
    predict(net, batch)
    source, target = batch.edge_index
    d2 = (batch.pos[source] - batch.pos[target]).square().sum(1)
    d = (d2 + 0.1**2).sqrt()  # softened by a twentieth of the radius
    qq = (batch.charge[source] * batch.charge[target]).flatten()
    expected = torch.stack([qq, qq / d, d, 1 / d, 2 * d.log()], dim=1)
    assert torch.allclose(seen[0][:, :5], expected, atol=1e-5)
    assert torch.allclose(seen[0][:, 5:], batch.vel[source]
                          - batch.vel[target], atol=1e-6)


# Graphs ######################################################################


def test_batching(batch):
    net = build().eval()
    together = predict(net, batch)
    assert together.shape == (60, 3)
    for k, data in enumerate(batch.to_data_list()):
        alone = net(data.charge, data.pos, data.vel, data.edge_index)
        assert torch.allclose(alone, together[5 * k:5 * k + 5], atol=1e-5)
    order = torch.randperm(batch.num_edges)
    assert torch.allclose(predict(
        net, batch, edge_index=batch.edge_index[:, order]), together,
        atol=1e-5)


def test_dtypes(batch):
    net = build().double()
    single = predict(net, batch)
    assert single.dtype == torch.float32
    double = predict(net, batch, pos=batch.pos.double())
    assert double.dtype == torch.float64
    assert torch.allclose(single, double.float(), atol=1e-4)
    empty = net(torch.empty(0, 1), torch.empty(0, 3), torch.empty(0, 3),
                torch.empty(2, 0, dtype=torch.long))
    assert empty.shape == (0, 3)


def test_equal_positions_have_derivatives():
    net = build()
    pos, vel = torch.zeros(3, 3), torch.zeros(3, 3)
    pos.requires_grad_()
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    net(torch.ones(3, 1), pos, vel, edges).square().sum().backward()
    assert pos.grad.isfinite().all()


# Learning ####################################################################


def test_every_parameter_learns(batch):
    net = build()
    predict(net, batch).square().sum().backward()
    idle = [name for name, p in net.named_parameters()
            if p.numel() and (p.grad is None or not p.grad.any())]
    assert not idle


def test_it_learns(batch):
    torch.manual_seed(0)
    net = NBodyNet(channels=4, steps=2)
    calibrate(net, batch.charge, batch.pos, batch.vel, batch.edge_index,
              batch.batch)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    straight = (batch.pos + 0.1 * batch.vel - batch.y).square().mean()
    net.time = 0.1
    for _ in range(80):
        loss = (predict(net, batch) - batch.y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * float(straight)


def test_state_and_copies(batch):
    net = build().eval()
    out = predict(net, batch)
    other = NBodyNet(channels=3, steps=3).eval()
    assert not torch.equal(predict(other, batch), out)
    other.load_state_dict(net.state_dict())
    for twin in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(predict(twin, batch), out)


def test_quotient_activation_is_inexact_but_close():
    net = build(activation=QuotientELU, steps=1)
    assert 1e-12 < equivariance_error(net, dtype=torch.float64) < 0.1


@pytest.mark.parametrize('options, match', [
    (dict(kernel='gaussian'), "'kernel'"),
    (dict(kernel='harmonic'), 'no attributes'),
    (dict(attributes='all'), "'attributes'"),
    (dict(max_degree=0), "'max_degree'"),
    (dict(steps=0), "'steps'"),
    (dict(time=0.), "'time'"),
    (dict(group='E(3)'), "'name'"),
])
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        NBodyNet(**options)


@pytest.mark.parametrize('changes, match', [
    (dict(charge=torch.ones(60, 2)), "'charge'"),
    (dict(pos=torch.ones(59, 3)), "'pos' of shape"),
    (dict(vel=torch.ones(60, 2)), "'vel' of shape"),
    (dict(edge_index=torch.full((2, 3), 60)), "'edge_index"),
    (dict(batch=torch.zeros(3).long()), "'batch'"),
])
def test_bad_input(batch, changes, match):
    with pytest.raises(ValueError, match=match):
        predict(build(), batch, **changes)
