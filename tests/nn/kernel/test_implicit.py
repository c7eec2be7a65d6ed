"""The kernel network, with all of its options."""
import copy
import itertools
import pickle
import warnings

import pytest
import torch

from pyg_steerable import FieldType
from pyg_steerable.kernels import ImplicitBasis, SteerableKernel
from pyg_steerable.models import QM9Net
from pyg_steerable.nn import (
    ImplicitSteerableConv,
    LatticeSteerableConv,
    NormActivation,
    NormGate,
    calibrate,
)
from pyg_steerable.nn.kernel.implicit import NORMALIZE
from pyg_steerable.nn.kernel.norm import EdgeNorm
from pyg_steerable.testing import assert_equivariant, equivariance_error

#: Attributes: two scalars and a vector.
SEEN = '2x0e + 1x1o'
EVERYTHING = dict(normalize='all', constant=True, radial='gaussian',
                  num_radial=4)
OPTIONS = {
    'none': {},
    'inputs': dict(normalize='inputs'),
    'features': dict(normalize='features', constant=True),
    'all': dict(normalize='all'),
    'constant': dict(constant=True),
    'gaussian': dict(radial='gaussian', num_radial=4),
    'bessel': dict(radial='bessel', normalize='inputs'),
    'everything': EVERYTHING,
    'learned': {**EVERYTHING, 'radial': 'learned_bessel'},
}


def edges(n=40, dtype=torch.float64, seed=5):
    """Positions, and attributes that are far from standard normals."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=dtype)
    kind = torch.randint(2, (n, ), generator=generator)
    vectors = 30 * torch.randn(n, 3, generator=generator, dtype=dtype)
    return x, torch.cat([torch.eye(2, dtype=dtype)[kind], vectors], 1)


def make(group='SO(2)', attr=SEEN, **options):
    torch.manual_seed(0)
    options = {'hidden': 3, 'max_degree': 2, 'num_layers': 3, **options}
    attr_type = None if attr is None else FieldType(attr, group)
    basis = ImplicitBasis(group, attr_type=attr_type, **options)
    basis.calibrate(*(t[:, :basis.attr_type.dim] if i else t
                      for i, t in enumerate(edges(dtype=torch.float32))))
    with torch.no_grad():  # biases and scales as training leaves them
        for p in basis.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return basis.double()


def batch_norm(x, field_type, eps=1e-4):
    """The definition, field by field; scalars alone have a mean (of irreps
    of O(3), under groups that leave no part of a vector alone).
    """
    out, start = [], 0
    for mul, rep in field_type.blocks:
        for _ in range(mul):
            f = x[:, start:start + rep.dim]
            mean = f.mean(0) if rep.dim == 1 else f.new_zeros(rep.dim)
            var = (f - mean).square().mean()
            out.append((f - mean) / (var + eps).sqrt())
            start += rep.dim
    return torch.cat(out, 1)


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_against_the_formula(options):
    """In training, where statistics are those of the batch."""
    basis = make('O(3)', **options).train()
    x, attr = edges()
    got = basis(x, attr)
    normalize = options.get('normalize', 'positions')
    solid = FieldType.sphere(1, 2, 'O(3)')
    length = x.norm(dim=1, keepdim=True)
    unit = x / length
    a, b, c = unit.T
    h = [length**2,
         length * 3**0.5 * unit,
         length**2 * 15**0.5 * torch.stack([
             a * c, a * b, (2 * b**2 - a**2 - c**2) / 12**0.5, b * c,
             (c**2 - a**2) / 2], 1)]
    if 'radial' in options:
        # One at the end of the kernels, three radii.
        h.append(basis.radial(((length / 3)**2 + 0.01**2).sqrt()))
        solid = solid + FieldType([(options.get('num_radial', 8), '0e')])
    h = torch.cat(h, 1)
    scale = basis.norm.weight[basis.norm.index]
    shift = basis.norm.invariant @ basis.norm.bias
    if normalize in ('positions', 'features'):
        h = torch.cat([batch_norm(h, solid) * scale + shift, attr], 1)
    else:
        h = torch.cat([h, attr], 1)
        h = batch_norm(h, solid + basis.attr_type) * scale + shift
    layers = [m for m in basis.layers if not isinstance(m, EdgeNorm)]
    assert len(layers) == 4
    for linear, act in zip(layers[::2], layers[1::2]):
        h = act(linear(h))
        if normalize in ('features', 'all'):
            h = batch_norm(h, FieldType.sphere(3, 2, 'O(3)'))
    if options.get('constant'):
        h = torch.cat([h[:, :3], torch.ones(len(h), 1), h[:, 3:]], 1)
    h = h * torch.exp(-0.5 * basis.sharpness**2 * length**2)
    assert torch.allclose(got, h, rtol=1e-10, atol=1e-12)
    assert got.shape[1] == basis.field_type.dim
    for p, q in zip(*(torch.autograd.grad(out.sin().sum(), [
            *basis.parameters()]) for out in (got, h))):
        assert torch.allclose(p, q, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_derivatives(options, training):
    basis = make(**options).train(training)
    x, attr = edges(5)
    x, attr = torch.cat([x, x.new_zeros(1, 3)]), torch.cat([attr, attr[:1]])
    x, attr = x.requires_grad_(), (0.1 * attr).requires_grad_()
    assert torch.autograd.gradcheck(basis, (x, attr))
    assert torch.autograd.gradgradcheck(basis, (x, attr), atol=1e-4)


@pytest.mark.parametrize('group', ['SO(2)', 'O(3)', 'O', 'SO(2)xM'])
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_equivariance(options, group):
    basis = make(group, **options)
    assert_equivariant(basis)
    assert_equivariant(SteerableKernel(basis, basis.attr_type,
                                       basis.attr_type).double())
    if group != 'O(3)':
        assert equivariance_error(basis, 'O(3)') > 1e-2


def features(basis, x, attr):
    """Without the window."""
    window = torch.exp(-0.5 * (basis.sharpness * x).square().sum(1))
    return basis(x, attr) / window[:, None]


def test_features_of_similar_edges_differ():
    """Bonds between like atoms vary little: without norms, kernels would
    hardly see it.
    """
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    x = way / way.norm(dim=1, keepdim=True)
    x = x * (1.2 + 0.1 * torch.randn(200, 1, generator=generator,
                                     dtype=torch.float64))

    def spread(**options):
        basis = make('O(3)', None, **options).train()
        h = features(basis, x, None)[:, :3]
        return h, h.std(0, correction=0) / h.square().mean(0).sqrt()

    h, part = spread(normalize='all')
    assert torch.allclose(h.mean(0), torch.zeros(3).double(), atol=1e-8)
    assert torch.allclose(h.square().mean(0), torch.ones(3).double(),
                          atol=1e-2)
    assert (part > 0.99).all()
    assert (spread(normalize='positions')[1] < 0.8).any()


def test_units_of_attributes():
    x, attr = edges()
    unit = torch.tensor([20., 0.3, 4., 4., 4.], dtype=torch.float64)
    for normalize in ('inputs', 'all'):
        basis = make('O(3)', normalize=normalize).train()
        assert torch.allclose(basis(x, attr), basis(x, attr * unit),
                              rtol=1e-2, atol=1e-3)
    basis = make('O(3)').train()
    assert not torch.allclose(basis(x, attr), basis(x, attr * unit),
                              rtol=1e-1, atol=1e-1)


@pytest.mark.parametrize('normalize', NORMALIZE)
def test_the_first_batch_sets_the_statistics(normalize):
    x, attr = edges()
    basis = ImplicitBasis('O(3)', 3, attr_type=FieldType(SEEN),
                          normalize=normalize).double()
    SteerableKernel(basis, basis.attr_type, basis.attr_type)  # measures
    norms = [m for m in basis.modules() if isinstance(m, EdgeNorm)]
    assert len(norms) == 1 + (normalize in ('features', 'all'))
    basis.train()
    first = basis(x, attr)
    first_stats = [(n.running_mean.clone(), n.running_var.clone())
                   for n in norms]
    if normalize in ('inputs', 'all'):  # attributes as they are
        assert torch.allclose(norms[0].running_mean[1:3], attr[:, :2].mean(0))
        assert torch.allclose(norms[0].running_var[-1],
                              attr[:, 2:].square().mean())
    # So that evaluation gives from then on what training gave.
    assert torch.allclose(basis.eval()(x, attr), first)
    # Later ones are averaged as in any batch norm.
    more = edges(seed=6)
    basis.train()(2 * more[0], more[1])
    alone = copy.deepcopy(basis)
    alone.calibrate(2 * more[0], more[1])
    others = [m for m in alone.modules() if isinstance(m, EdgeNorm)]
    for norm, other, (mean, var) in zip(norms[:1], others, first_stats):
        assert torch.allclose(norm.running_mean,
                              mean.lerp(other.running_mean, 0.1))
        assert torch.allclose(norm.running_var,
                              var.lerp(other.running_var, 0.1))
    # In the mode of averages over all batches, too.
    basis.reset_parameters()
    for norm in norms:
        norm.momentum = None
    for _ in range(2):
        basis(x, attr)
    assert norms[0].stats.num_batches_tracked == 2
    assert torch.allclose(basis.eval()(x, attr), basis.train()(x, attr))


def test_calibration_leaves_modes_and_momenta():
    x, attr = edges()
    basis = make(**EVERYTHING).eval()
    basis.layers.train()
    basis.calibrate(x, attr)
    for module in basis.modules():
        assert not module._forward_pre_hooks
    assert torch.allclose(basis.train()(x, attr), basis.eval()(x, attr))


def test_calibration_of_a_network():
    """The statistics of nn.calibrate stay those of its input."""
    T = FieldType('2x0e + 1x1o', 'SO(2)')
    seen = FieldType('2x0e', 'SO(2)')
    conv = ImplicitSteerableConv(T, T, seen, hidden=3, **EVERYTHING).double()
    x, attr = edges(12)
    edge_index = torch.stack([torch.arange(12), torch.arange(12).roll(1)])
    graph = (torch.randn(12, T.dim).double(), x, edge_index, attr[:, :2])
    calibrate(conv, *graph)
    for norm in conv.modules():
        if isinstance(norm, EdgeNorm):
            assert norm.stats.num_batches_tracked > 0
            before = norm.running_mean.clone()
            norm.train()(torch.randn(9, norm.in_type.dim).double())
            assert (norm.running_mean - before).norm() < 0.5 * (
                norm.running_mean.norm() + 1)
    assert 0.9 < conv.train()(*graph).square().mean() < 1.1


def test_constant_is_a_bias_of_the_kernel():
    T = FieldType('2x0e + 1x1o', 'O(3)')
    basis = make('O(3)', '2x0e', constant=True)
    plain = make('O(3)', '2x0e')
    (n, rep), *rest = plain.field_type.blocks
    assert rep.dim == 1 and basis.field_type.blocks == ((n + 1, rep), *rest)
    x, attr = edges()
    h = basis(x, attr[:, :2])
    window = torch.exp(-0.5 * (basis.sharpness * x).square().sum(1))
    assert torch.allclose(h[:, n], window)
    assert torch.equal(plain(x, attr[:, :2]), torch.cat([h[:, :n],
                                                         h[:, n + 1:]], 1))
    # Alone, it gives kernels that do not depend on the attributes.
    kernel = SteerableKernel(basis, T, T).double()
    with torch.no_grad():
        for c, w in zip(kernel.product.couplings.terms,
                        kernel.product.weight.split([
                            c.numel for c in kernel.product.couplings.terms])):
            w.view(c.shape)[:, :, :n if c.u == 0 else None] = 0
    k = kernel.eval()(x, attr[:, :2])
    assert k.any()
    assert torch.allclose(k, kernel(x, attr[:, :2].flip(1)))


def test_old_state_dicts():
    """What the first version saved is what the same options save now."""
    state = ImplicitBasis('SO(2)', 3, 2, 3, FieldType('2x0e', 'SO(2)')
                          ).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        'radius': (), 'sharpness': (1, ), 'norm.weight': (3, ),
        'norm.bias': (3, ), 'norm.stats.running_mean': (3, ),
        'norm.stats.running_var': (3, ),
        'norm.stats.num_batches_tracked': (),
        'layers.0.weight': (75, ), 'layers.0.bias': (9, ),
        'layers.1.readout.linear.weight': (135, ),
        'layers.1.readout.linear.bias': (9, ),
        'layers.2.weight': (171, ), 'layers.2.bias': (9, ),
        'layers.3.readout.linear.weight': (135, ),
        'layers.3.readout.linear.bias': (9, ),
    }


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_saved_and_copied(options):
    x, attr = edges()
    basis = make(**options).eval()
    torch.manual_seed(7)
    other = ImplicitBasis('SO(2)', 3, 2, 3, FieldType(SEEN, 'SO(2)'),
                          **options).double().eval()
    assert not torch.allclose(other(x, attr), basis(x, attr))
    other.load_state_dict(basis.state_dict())
    assert torch.equal(other(x, attr), basis(x, attr))
    copied = pickle.loads(pickle.dumps(basis))
    assert torch.equal(copied(x, attr), basis(x, attr))
    # reset_parameters() starts from nothing that was learned.
    torch.manual_seed(8)
    other.reset_parameters()
    torch.manual_seed(8)
    fresh = ImplicitBasis('SO(2)', 3, 2, 3, FieldType(SEEN, 'SO(2)'),
                          **options).double()
    assert fresh.state_dict().keys() == other.state_dict().keys()
    assert other.sharpness == 1
    for name, value in other.state_dict().items():
        if 'stats' in name:
            assert torch.equal(value, fresh.state_dict()[name]), name


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_half_precision(options):
    x, attr = edges(dtype=torch.float32)
    attr = attr / 10
    basis = make(**options).float().eval()
    out = basis(x, attr)
    for dtype in (torch.bfloat16, torch.float16):
        low = copy.deepcopy(basis).to(dtype)
        got = low(x, attr)
        assert got.dtype == torch.float32
        assert (got - out).norm() < 0.05 * out.norm()
        low.train()(x, attr)
        for module in low.modules():
            if isinstance(module, EdgeNorm):
                assert module.running_var.dtype == torch.float32
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.allclose(basis(x, attr), out, atol=1e-5)


@pytest.mark.parametrize('name', ['all', 'everything', 'learned'])
def test_on_a_lattice(name):
    T = FieldType('2x0e + 1x1o', 'O')
    torch.manual_seed(1)
    conv = LatticeSteerableConv(T, T, 3, kernel='implicit', hidden=3,
                                **OPTIONS[name])
    assert_equivariant(conv, dtype=torch.float64)
    assert equivariance_error(conv, 'OxInv', dtype=torch.float64) > 1e-3
    # Its statistics are of its offsets, and no batch changes them.
    x = torch.randn(2, T.dim, 5, 5, 5)
    before = copy.deepcopy(conv.state_dict())
    out = conv.train()(x)
    for key, value in conv.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.allclose(conv.eval()(x), out)


def energy(convs, r):
    """A sum over the nodes of a graph of two layers, one node at a distance r
    of another.
    """
    generator = torch.Generator().manual_seed(3)
    S, T = (convs[0].in_type, convs[0].out_type)
    way, x = (torch.randn(n, generator=generator, dtype=torch.float64)
              for n in (3, 4 * S.dim))
    way, x = way / way.norm(), x.view(4, S.dim)
    attr = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    edge_index = torch.tensor([p for p in itertools.permutations(range(4), 2)
                               ]).T
    pos = torch.stack([0 * way, 0.5 * way.roll(1), -0.6 * way.roll(2), r * way
                       ])
    h = x
    for conv in convs:
        h = conv(h, pos, edge_index, attr)
        h = h if conv is convs[-1] else NormActivation(T).double()(h)
    return h.sum()


@pytest.mark.parametrize('name', ['none', 'bessel', 'everything', 'learned'])
def test_energies_are_continuous_at_the_cutoff(name):
    torch.manual_seed(0)
    S, T = FieldType('3x0e'), FieldType('2x0e + 2x1o')
    options = dict(edge_type=FieldType('2x0e'), hidden=3, cutoff_radius=2.,
                   num_neighbors=3., **OPTIONS[name])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        convs = [ImplicitSteerableConv(S, T, **options).double().eval(),
                 ImplicitSteerableConv(T, FieldType('1x0e'), **options
                                       ).double().eval()]

    def sides(r):
        r = torch.tensor(r, dtype=torch.float64, requires_grad=True)
        out = [energy(convs, r)]
        for _ in range(3):
            out.append(torch.autograd.grad(out[-1], r, create_graph=True)[0])
        return torch.stack(out).detach()

    # The neighbours of the last node leave at the cutoff, 2, from the first
    # one; the others are 0.5 away from that, at other times.
    inside, outside = sides(2 - 1e-8), sides(2 + 1e-8)
    size = sides(1.8).abs()
    assert (size > 1e-6).all()
    assert ((inside - outside).abs()[:3] <= 1e-6 * size[:3]).all()
    # The plain differences say so, too.
    h, r = 1e-4, 2.
    values = torch.stack([energy(convs, torch.tensor(
        r + k * h).double()).detach() for k in range(-2, 3)])
    slopes = values.diff() / h
    assert (slopes.diff().abs() <= 1e-2 * slopes.abs().max() + 1e-6).all()
    # A kernel without an end jumps when its edge goes.
    assert convs[0].kernel.basis.cutoff_radius == 2


def test_radial_functions_end_with_the_kernel():
    basis = make('O(3)', None, radial='bessel', num_radial=2)
    seen = []
    basis.radial.register_forward_hook(lambda *args: seen.append(args[1][0]))
    x = torch.tensor([[0., 0, 1.5]], dtype=torch.float64)
    basis(x)
    basis.set_radius(2.)
    basis(x)
    basis.set_cutoff_radius(1.5)
    basis(x)
    basis.set_cutoff_radius(100.)
    basis(x)
    for t, expected in zip(seen, (1.5 / 3, 1.5 / 6, 1., 1.5 / 6)):
        assert t.item() == pytest.approx(expected, abs=1e-3)


def test_networks_hand_them_on():
    spec = ImplicitBasis.spec(hidden=2, num_layers=2, **EVERYTHING)
    net = QM9Net(edge_dim=4, atom_dim=5, channels=2, blocks=1, invariants=4,
                 kernel=spec, group='SO(2)')
    basis = net.first.kernel.basis
    assert basis.constant and basis.normalize == 'all'
    assert basis.radial.num == 4
    assert_equivariant(net, dtype=torch.float64)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_compiled_and_exported():
    T = FieldType('2x0e + 1x1o', 'SO(2)')
    torch.manual_seed(0)
    conv = ImplicitSteerableConv(T, T, hidden=2, **EVERYTHING)
    x, pos = torch.randn(6, T.dim), torch.randn(6, 3)
    edge_index = torch.stack([torch.arange(6), torch.arange(6).roll(1)])
    compiled = torch.compile(conv, backend='eager', fullgraph=True)
    plain = copy.deepcopy(conv)
    for _ in range(2):  # the first batch is special
        assert torch.allclose(compiled(x, pos, edge_index),
                              plain(x, pos, edge_index), atol=1e-6)
    for (name, a), b in zip(conv.named_buffers(), plain.buffers()):
        assert torch.allclose(a, b, atol=1e-6), name
    conv.eval()
    program = torch.export.export(conv, (x, pos, edge_index), strict=False)
    assert torch.allclose(program.module()(x, pos, edge_index),
                          conv(x, pos, edge_index), atol=1e-6)


@pytest.mark.parametrize('options, error, words', [
    (dict(normalize='attributes'), ValueError, ['normalize', 'inputs']),
    (dict(normalize=True), (ValueError, TypeError), ['normalize']),
    (dict(constant=2), (ValueError, TypeError), ['constant']),
    (dict(radial='cubic'), ValueError, ['radial', 'gaussian']),
    (dict(radial=NormGate), TypeError, ['radial']),
])
def test_bad_options(options, error, words):
    with pytest.raises(error) as caught:
        ImplicitBasis('O(3)', **options)
    for word in words:
        assert word in str(caught.value)
