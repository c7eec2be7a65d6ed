import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_steerable import Group
from pyg_steerable.datasets import load_qm9
from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.models import QM9Net
from pyg_steerable.nn import Gate, QuotientELU, SteerableConv
from pyg_steerable.testing import assert_equivariant

VARIANTS = [
    dict(),
    dict(edge_dim=4),
    dict(edge_dim=4, atom_dim=5),
    dict(atom_dim=5, kernel=ImplicitBasis.spec(max_degree=2), blocks=1),
    dict(kernel='harmonic', pool='mean'),
    dict(group='SO(2)', blocks=1),
    dict(activation=Gate, blocks=1),
    dict(group='SO(3)', max_degree=2, blocks=1, pool='sum'),
]


@pytest.fixture(scope='module')
def batch():
    return next(iter(DataLoader(load_qm9('sample')[:12], 12)))


def predict(model, batch, pos):
    return model(batch.x.to(pos), pos, batch.edge_index,
                 batch.edge_attr.to(pos), batch.batch)


@pytest.mark.parametrize('options', VARIANTS, ids=str)
def test_invariance(batch, options):
    torch.manual_seed(0)
    model = QM9Net(**options).double().eval()
    pos = batch.pos.double()
    out = predict(model, batch, pos)
    assert out.shape == (12, 1)
    group = Group(options.get('group', 'O(3)'))
    for R in group.sample(5):
        moved = predict(model, batch, pos @ R.T + 3.)
        assert (moved - out).abs().max() < 1e-10 * (1 + out.abs().max())


@pytest.mark.parametrize('group', ['SO(2)', 'SO(3)'])
def test_not_invariant_outside_the_group(batch, group):
    torch.manual_seed(0)
    model = QM9Net(group=group, blocks=2, max_degree=2).double().eval()
    pos = batch.pos.double()
    out = predict(model, batch, pos)
    moved = predict(model, batch, -pos)  # in neither of them
    # Differences, as chiral molecules are few and pooling averages.
    assert (moved - out).abs().max() > 1e-6


def test_atoms_see_themselves_without_loops(batch):
    """The term i = j of eq. 13 has weights of its own, also where kernels
    see atoms: an atom without neighbours keeps its features.
    """
    model = QM9Net(5, 4, 5, blocks=1).eval()
    alone = batch.edge_index[:, :0], batch.edge_attr[:0]
    for conv in model.modules():
        if isinstance(conv, SteerableConv):
            assert conv.root_weight
    x = batch.x.clone().requires_grad_()
    out = model(x, batch.pos, *alone, batch.batch)
    out.square().sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_batching(batch):
    model = QM9Net(4 + 1, 4, 5).eval()
    together = predict(model, batch, batch.pos)
    alone = torch.cat([predict(model, g, g.pos) for g in
                       (DataLoaderOne(d) for d in batch.to_data_list())])
    assert torch.allclose(together, alone, atol=1e-5)


def DataLoaderOne(data):
    return next(iter(DataLoader([data], 1)))


def test_every_parameter_learns(batch):
    model = QM9Net(5, 4, 5)
    predict(model, batch, batch.pos).square().sum().backward()
    idle = [name for name, p in model.named_parameters()
            if p.numel() and (p.grad is None or not p.grad.any())]
    assert not idle


def test_state_and_copies(batch):
    model = QM9Net(5, 4, 5).eval()
    out = predict(model, batch, batch.pos)
    other = QM9Net(5, 4, 5).eval()
    assert not torch.equal(predict(other, batch, batch.pos), out)
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model),
                 pickle.loads(pickle.dumps(model))):
        assert torch.equal(predict(twin, batch, batch.pos), out)


def test_quotient_activation_is_inexact_but_close(batch):
    torch.manual_seed(0)
    model = QM9Net(activation=QuotientELU, blocks=1).double().eval()
    pos = batch.pos.double()
    out = predict(model, batch, pos)
    worst = max(
        float((predict(model, batch, pos @ R.T) - out).detach().abs().max())
        for R in Group('O(3)').sample(5))
    scale = float((out.std() + out.abs().mean()).detach())
    assert 1e-12 < worst < 0.2 * scale


@pytest.mark.parametrize('options, match', [
    (dict(kernel='gaussian'), "'kernel'"),
    (dict(kernel='harmonic', edge_dim=4), 'no attributes'),
    (dict(atom_dim=3), "'atom_dim'"),
    (dict(pool='max'), "'pool'"),
    (dict(group='E(3)'), "'name'"),
])
def test_bad_input(options, match):
    with pytest.raises(ValueError, match=match):
        QM9Net(**options)


def test_checkpoint_in_another_process(batch, tmp_path):
    """Constants are computed again there; predictions are the same."""
    torch.manual_seed(0)
    model = QM9Net(5, 4, group='SO(2)xM', max_degree=2, blocks=1).eval()
    path = tmp_path / 'saved.pt'
    torch.save({'state': model.state_dict(), 'batch': batch.to_dict(),
                'out': predict(model, batch, batch.pos)}, path)
    code = (
        'import sys, torch\n'
        'torch.set_num_threads(1)\n'  # as here: sums are split among them
        'from pyg_steerable.models import QM9Net\n'
        'saved = torch.load(sys.argv[1], weights_only=False)\n'
        "model = QM9Net(5, 4, group='SO(2)xM', max_degree=2, blocks=1)\n"
        "model.load_state_dict(saved['state'])\n"
        "b = saved['batch']\n"
        "out = model.eval()(b['x'], b['pos'], b['edge_index'],\n"
        "                   b['edge_attr'], b['batch'])\n"
        "assert torch.equal(out, saved['out']), out - saved['out']\n")
    subprocess.run([sys.executable, '-c', code, str(path)], check=True)


def test_activations_with_gates():
    model = QM9Net(activation=Gate, blocks=2)
    assert_equivariant(model)
    assert_equivariant(model.double(), num_samples=2)


def test_state_dicts_of_before():
    """Without the root weight where kernels see atoms, these are refused
    with the reason, even if not strict; others have not changed.
    """
    model = QM9Net(5, 4, 5, blocks=1)
    before = {key: value for key, value in model.state_dict().items()
              if not key.endswith('lin.weight')}
    assert len(before) == len(model.state_dict()) - 4
    for strict in (True, False):
        with pytest.raises(RuntimeError, match='their own neighbours'):
            model.load_state_dict(before, strict=strict)
    model = QM9Net(5, 4, blocks=1)
    model.load_state_dict(QM9Net(5, 4, blocks=1).state_dict())
