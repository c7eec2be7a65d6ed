import copy
import pickle
from functools import partial

import pytest
import torch

from pyg_steerable import FieldType, Group
from pyg_steerable.models import ModelNetClassifier, ModelNetSegmenter
from pyg_steerable.nn import Gate, NormGate, QuotientELU, hierarchy
from pyg_steerable.testing import assert_equivariant, equivariance_error

SMALL = dict(channels=3, max_degree=2, ratios=(0.5, 0.5, 0.5), k=6,
             num_points=60)
GROUPS = ['M', 'Inv', 'SO(2)xInv', 'SO(2)', 'SO(2)xF', 'SO(2)xM', 'SO(3)',
          'O(3)']
FINITE = ['M', 'Inv', 'C4', 'D3', 'O', 'I']


def clouds(sizes=(60, 45, 50), dtype=torch.float64):
    pos = torch.randn(sum(sizes), 3, dtype=dtype)
    pos = pos / pos.norm(dim=1, keepdim=True) * torch.tensor([1., .8, .6])
    return pos, torch.arange(len(sizes)).repeat_interleave(
        torch.tensor(sizes))


def statistics(model, pos, batch):
    """Running statistics that are not those of a fresh network."""
    model.train()
    for _ in range(3):
        model(pos, batch)
    return model.eval()


@torch.no_grad()
def change(model, pos, batch, group, n=4, x=None, x_type=None):
    """The largest change of the output, in units of its deviation."""
    levels = model.levels(pos, batch)
    before = model(pos, batch, x, levels=levels)
    worst, t = 0., torch.randn(3, dtype=pos.dtype)
    for R in Group(group).sample(n):
        moved = [v._replace(pos=v.pos @ R.T + t) for v in levels]
        y = None if x is None else x_type.transform(x, R)
        after = model(pos @ R.T + t, batch, y, levels=moved)
        worst = max(worst, float((after - before).abs().max()))
    return worst / float(before.std())


@pytest.mark.parametrize('kernel', ['implicit', 'harmonic'])
@pytest.mark.parametrize('group', GROUPS)
def test_gated_classifier_is_exactly_invariant(group, kernel):
    pos, batch = clouds()
    model = ModelNetClassifier(7, group=group, kernel=kernel,
                               activation=NormGate, **SMALL).double()
    statistics(model, pos, batch)
    assert model(pos, batch).shape == (3, 7)
    assert change(model, pos, batch, group) < 1e-9
    if group != 'O(3)':
        assert change(model, pos, batch, 'O(3)', 8) > 1e-3


def quotient_classifier(group, kernel='implicit', samples=None):
    """With running statistics, and clouds."""
    pos, batch = clouds()
    model = ModelNetClassifier(
        7, group=group, kernel=kernel,
        activation=partial(QuotientELU, samples=samples), **SMALL).double()
    return statistics(model, pos, batch), pos, batch


@pytest.mark.parametrize('kernel', ['implicit', 'harmonic'])
@pytest.mark.parametrize('group', FINITE)
def test_quotient_classifier_is_exactly_invariant_if_finite(group, kernel):
    model, pos, batch = quotient_classifier(group, kernel)
    assert change(model, pos, batch, group) < 1e-9
    assert change(model, pos, batch, 'O(3)', 8) > 1e-2


@pytest.mark.parametrize('kernel', ['implicit', 'harmonic'])
@pytest.mark.parametrize('group', [g for g in GROUPS if g not in FINITE])
def test_quotient_classifier_errs_no_more_than_its_activation(group, kernel):
    found = []
    for samples in (108, 1000):
        # The same clouds for both; about one draw in a hundred errs by more.
        torch.manual_seed(0)
        model, pos, batch = quotient_classifier(group, kernel, samples)
        alone = max(equivariance_error(act, dtype=torch.float64)
                    for act in model.encoder.acts)
        found.append(change(model, pos, batch, group))
        assert 1e-12 < found[-1] < 3 * alone
    assert found[1] < found[0] / 10  # with the activation's error
    if group != 'O(3)':
        assert change(model, pos, batch, 'O(3)', 8) > 1e-2


def test_the_quotient_elu_is_the_default():
    model = ModelNetClassifier(7, **SMALL)
    assert all(isinstance(act, QuotientELU) for act in model.encoder.acts)


@pytest.mark.parametrize('kernel', ['implicit', 'harmonic'])
def test_memory_of_a_training_step_is_linear_in_the_edges(kernel):
    """Counted as what is kept for the backward pass."""
    model = ModelNetClassifier(7, kernel=kernel, **SMALL)

    def kept_and_edges(n):
        pos, batch = clouds((n, ), torch.float32)
        kept = {}

        def keep(t):
            storage = t.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return t

        levels = model.levels(pos, batch)
        model.head.eval()  # batch norm needs more clouds
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            out = model(pos, batch, levels=levels)
        out.sum().backward()
        return torch.tensor([sum(kept.values()), sum(
            level.edge_index.shape[1] for level in levels)])

    sizes = torch.stack([kept_and_edges(n) for n in (400, 1600, 6400)])
    kept, edges = sizes.double().diff(dim=0).t()
    slopes = kept / edges
    assert abs(slopes[1] / slopes[0] - 1) < 0.02
    # The kernel of an edge, as a matrix, takes more.
    width = SMALL['channels'] * (SMALL['max_degree'] + 1)**2
    assert slopes[1] < 4 * width**2


def test_further_features():
    pos, batch = clouds()
    x_type = FieldType('2x0e + 1o', 'SO(2)')
    model = ModelNetClassifier(4, x_type, group='SO(2)', activation=NormGate,
                               **SMALL).double().eval()
    x = torch.randn(len(pos), x_type.dim, dtype=pos.dtype)
    assert change(model, pos, batch, 'SO(2)', x=x, x_type=x_type) < 1e-9
    levels = model.levels(pos, batch)
    assert (model(pos, batch, x, levels=levels) - model(
        pos, batch, 2 * x, levels=levels)).abs().max() > 1e-6
    with pytest.raises(ValueError, match="'x'"):
        model(pos, batch)
    with pytest.raises(ValueError, match="'x'"):
        ModelNetClassifier(4, **SMALL)(pos, batch, x)


@pytest.mark.parametrize('group', ['SO(2)xM', 'SO(3)'])
def test_segmenter(group):
    pos, batch = clouds()
    model = ModelNetSegmenter(5, group=group, **SMALL).double()
    statistics(model, pos, batch)
    assert model(pos, batch).shape == (len(pos), 5)
    assert change(model, pos, batch, group) < 1e-9
    assert change(model, pos, batch, 'O(3)', 8) > 1e-4


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_every_resolution_is_read_out(cls):
    """As many invariants as asked for, in parts as equal as possible, and
    each of them matters.
    """
    pos, batch = clouds()
    name = 'invariants' if cls is ModelNetClassifier else 'mlp'
    model = cls(5, group='SO(3)', activation=NormGate,
                **{name: 10}, **SMALL).double().eval()
    shares = [read[0].out_channels for read in model.readouts]
    assert shares == ([4, 3, 3] if cls is ModelNetClassifier else
                      [3, 3, 2, 2])
    levels = model.levels(pos, batch)
    out = model(pos, batch, levels=levels)
    for read in model.readouts:
        weight = read[0].linear.weight
        with torch.no_grad():
            weight.mul_(2.)
            changed = model(pos, batch, levels=levels)
            weight.div_(2.)
        assert (changed - out).abs().max() > 1e-6
    with pytest.raises(ValueError, match=f"'{name}'.* >= {len(shares)}"):
        cls(5, **{name: len(shares) - 1}, **SMALL)


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_every_parameter_learns_and_copies_agree(cls):
    pos, batch = clouds(dtype=torch.float32)
    model = cls(5, dropout=0., **SMALL)
    model(pos, batch).square().sum().backward()
    idle = [name for name, p in model.named_parameters()
            if p.numel() and (p.grad is None or not p.grad.any())]
    # A bias before a batch norm moves nothing.
    assert all('bias' in name for name in idle), idle
    model.eval()
    levels = model.levels(pos, batch)
    out = model(pos, batch, levels=levels)
    other = cls(5, dropout=0., **SMALL).eval()
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model),
                 pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(pos, batch, levels=levels), out)


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_clouds_do_not_see_each_other(cls):
    pos, batch = clouds()
    model = cls(5, sampling='fps', **SMALL).double().eval()
    torch.manual_seed(1)
    levels = model.levels(pos, batch)
    out = model(pos, batch, levels=levels)
    moved = torch.where((batch == 1)[:, None], pos * 3 + 1, pos)
    chosen, here = [], torch.arange(len(pos))
    for level in levels:
        here = here[level.index]
        chosen.append(level._replace(pos=moved[here]))
    after = model(moved, batch, levels=chosen)
    same = torch.tensor([True, False, True])
    if cls is ModelNetSegmenter:
        same = same[batch]
    assert torch.allclose(out[same], after[same], atol=1e-12)
    assert (out[~same] - after[~same]).abs().max() > 1e-6


def test_hierarchy():
    pos, batch = clouds((40, 9, 1))
    with pytest.warns(UserWarning, match='fewer than k=4'):
        levels = hierarchy(pos, batch, (0.5, 1., 0.25), k=4)
    before = pos, batch
    for level, ratio in zip(levels, (0.5, 1., 0.25)):
        assert torch.equal(level.pos, before[0][level.index])
        assert torch.equal(level.batch, before[1][level.index])
        counts = before[1].bincount(minlength=3)
        left = level.batch.bincount(minlength=3)
        assert torch.equal(left, (ratio * counts).ceil().long())
        source, target = level.edge_index
        assert torch.equal(before[1][source], level.batch[target])
        assert torch.equal(target.bincount(minlength=len(level.pos)),
                           counts.clamp(max=4)[level.batch])
        own = level.index[target] == source
        assert torch.equal(target[own], torch.arange(len(level.pos)))
        before = level.pos, level.batch
    with pytest.raises(ValueError, match="'sampling'"):
        hierarchy(pos, batch, sampling='first')


def test_one_cloud_without_batch():
    pos, _ = clouds((50, ))
    model = ModelNetClassifier(3, **SMALL).double().eval()
    levels = model.levels(pos)
    zero = torch.zeros(50, dtype=torch.long)
    batched = [v._replace(batch=zero[:len(v.pos)]) for v in levels]
    assert torch.allclose(model(pos, levels=levels),
                          model(pos, zero, levels=batched))


def test_compiles_to_one_graph():
    pos, batch = clouds(dtype=torch.float32)
    model = ModelNetClassifier(
        3, **(SMALL | dict(ratios=(0.5, ), max_degree=1))).eval()
    whole = torch.compile(model, fullgraph=True, backend='aot_eager')
    levels = model.levels(pos, batch)
    out = whole(pos, batch, batch_size=3, levels=levels)
    assert torch.allclose(out, model(pos, batch, levels=levels), atol=1e-5)


@pytest.mark.parametrize('options, match', [
    (dict(kernel='gaussian'), "'kernel'"),
    (dict(ratios=()), "'ratios'"),
    (dict(ratios=(0.5, 1.5)), "'ratios'"),
    (dict(group='E(3)'), "'name'"),
    (dict(sampling='best'), "'sampling'"),
    (dict(k=0), "'k'|num_neighbors"),
])
def test_bad_input(options, match):
    pos, batch = clouds()
    with pytest.raises(ValueError, match=match):
        ModelNetClassifier(3, **(SMALL | options)).double()(pos, batch)


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
@pytest.mark.parametrize('ratios', [(1., 1.), (0.5, 0.5)])
def test_bad_clouds(cls, ratios):
    pos, batch = clouds()
    model = cls(3, **(SMALL | dict(ratios=ratios))).double()
    for given in (None, model.levels(pos, batch)):
        with pytest.raises(ValueError, match=r"'batch' of shape \[155\]"):
            model(pos, batch[1:], levels=given)
        with pytest.raises(ValueError, match=r"'batch' in \[0, 2\)"):
            model(pos, batch, batch_size=2, levels=given)
        with pytest.raises(TypeError, match="'batch' to be a tensor of "):
            model(pos, batch.double(), levels=given)
    pos[3] = float('nan')
    with pytest.raises(ValueError, match='finite'):
        model(pos, batch)


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_order_of_points_and_empty_clouds(cls):
    pos, batch = clouds()
    model = cls(3, **(SMALL | dict(ratios=(1., 1.)))).double().eval()
    out = model(pos, batch)
    p = torch.randperm(len(pos))
    mixed = model(pos[p], batch[p])
    same = out if cls is ModelNetClassifier else out[p]
    assert torch.allclose(mixed, same, atol=1e-12)
    names = torch.tensor([0, 2, 3])  # of five
    apart = model(pos, names[batch], batch_size=5)
    if cls is ModelNetClassifier:
        assert apart.shape == (5, 3) and apart.isfinite().all()
        apart = apart[names]
    assert torch.allclose(apart, out, atol=1e-12)


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_activations_with_gates(cls):
    model = cls(5, group='SO(2)xM', activation=Gate)
    assert_equivariant(model)
    assert_equivariant(model.double(), num_samples=2)


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_state_dicts_of_before(cls):
    """Those that read one resolution out are refused with the reason."""
    model = cls(5, **SMALL)
    before = {key: value for key, value in model.state_dict().items()
              if not key.startswith('readouts')}
    for strict in (True, False):
        with pytest.raises(RuntimeError, match='at one resolution only'):
            model.load_state_dict(before, strict=strict)
    model.load_state_dict(cls(5, **SMALL).state_dict())
