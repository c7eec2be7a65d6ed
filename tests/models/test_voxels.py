import copy
import pickle

import pytest
import torch
from helpers.models_lattice import NETS, ROTATIONS, A, B, turned

from pyg_steerable import FieldType
from pyg_steerable.graph import voxel_to_graph
from pyg_steerable.models import (
    AminoAcidCNN,
    AminoAcidNet,
    CathCNN,
    CathNet,
    ShrecNet,
    TetrisCNN,
    TetrisNet,
)
from pyg_steerable.nn import (
    LatticeDropout,
    LatticeGate,
    LatticeSteerableConv,
    lattice_stack,
)

STEERABLE = [name for name in NETS if 'cnn' not in name and name != 'amino']


def build(name, **options):
    cls, size, small = NETS[name]
    torch.manual_seed(0)
    model = cls(**small, **options).double()
    channels = 2 if 'amino' in name else 1
    return model, torch.rand(2, channels, *3 * [size], dtype=torch.float64)


@pytest.mark.parametrize('cls, count', [
    (TetrisNet, 41_198),
    (TetrisCNN, 6_221_832),
    (ShrecNet, 142_617),
    (CathNet, 143_560),
    (CathCNN, 15_878_764),
    (AminoAcidNet, 32_588_981),
    (AminoAcidCNN, 61_159_077),
])
def test_number_of_parameters(cls, count):
    """Those of the papers; 32.6 and 61.1 million is all that is known of the
    last two.
    """
    with torch.device('meta'):
        model = cls()
    parameters = [*model.parameters()]
    assert all(p.requires_grad for p in parameters)
    assert sum(p.numel() for p in parameters) == count
    published = {AminoAcidNet: 32.6e6, AminoAcidCNN: 61.1e6}.get(cls, count)
    assert abs(count / published - 1) < 1e-3


@pytest.mark.parametrize('build, size, expected', [
    (lambda: TetrisNet(fields=3 * ('1x0e', ), invariants=1), 36,
     [40, 44, 26, 17]),
    (lambda: ShrecNet(fields=7 * ('1x0e', ), invariants=1), 64,
     [34, 38, 21, 25, 15, 19, 12, 16]),
    (lambda: CathNet(channels=4 * (1, ), blocks=4 * (1, ), max_degree=0,
                     invariants=1), 50,
     [50, 50, 50, 50, 25, 50, 25, 13, 25, 13, 7, 13]),
    (lambda: AminoAcidNet(in_channels=1, channels=4 * (1, ), max_degree=0,
                          hidden=1), 48, [24, 20, 7, 3]),
])
def test_grids_of_the_papers(build, size, expected):
    """Voxels behind each convolution, also those of shortcuts."""
    model, sizes = build().eval(), []
    for conv in model.modules():
        if isinstance(conv, LatticeSteerableConv):
            conv.register_forward_hook(
                lambda _, __, out: sizes.append(out.shape[-1]))
    with torch.no_grad():
        model(torch.rand(1, 1, size, size, size))
    assert sizes == expected


@pytest.mark.parametrize('name', NETS)
def test_shapes_and_training(name):
    model, x = build(name, num_classes=3)
    out = model(x)
    assert out.shape == (2, 3) and out.isfinite().all()
    # In evaluation, as batch norm hides biases before it.
    model.eval()(x).square().sum().backward()
    idle = [key for key, p in model.named_parameters()
            if p.numel() and (p.grad is None or not p.grad.any())]
    assert not idle


@pytest.mark.parametrize('name', STEERABLE)
def test_invariance(name):
    model, x = build(name)
    model(x)  # statistics of batch norm that are not the initial ones
    model.eval()
    scalar = FieldType('1x0e', 'SO(3)')
    with torch.no_grad():
        out = model(x)
        spread = (out[0] - out[1]).abs().max()
        assert spread > 1e-8  # of two examples
        for R in ROTATIONS:
            moved = model(turned(x, scalar, R))
            assert (moved - out).abs().max() < 1e-11 * out.abs().max()


def test_strides_that_do_not_fit_break_invariance():
    model, _ = build('tetris')
    x = torch.rand(1, 1, 6, 6, 6, dtype=torch.float64)
    out, moved = model.eval()(x), model(x.flip(2, 3))
    assert (moved - out).abs().max() > 1e-8 * out.abs().max()


@pytest.mark.parametrize('group', ['SO(3)', 'O(3)'])
def test_mirrors(group):
    """Left and right differ under SO(3) only."""
    model, x = build('tetris', group=group)
    out, mirrored = model.eval()(x), model(x.flip(4))
    same = (mirrored - out).abs().max() < 1e-11 * out.abs().max()
    assert same == (group == 'O(3)')


def test_features_of_amino_acids():
    """The convolutions are equivariant, the dense layers are not."""
    model, _ = build('amino')
    x = torch.rand(1, 2, 41, 41, 41, dtype=torch.float64)
    in_type, out_type = FieldType('2x0e', 'SO(3)'), FieldType.sphere(
        2, 1, 'SO(3)')
    with torch.no_grad():
        out = model.features(x)
        assert out.shape == (1, 8, 2, 2, 2)
        for R in ROTATIONS[::3]:
            moved = model.features(turned(x, in_type, R))
            error = (moved - turned(out, out_type, R)).abs().max()
            assert error < 1e-11 * out.abs().max()


def test_cnn_is_not_invariant():
    model, x = build('tetris cnn')
    out, moved = model.eval()(x), model(x.flip(2, 3))
    assert (moved - out).abs().max() > 1e-8 * out.abs().max()


@pytest.mark.parametrize('name', NETS)
def test_state_and_copies(name):
    model, x = build(name)
    model(x)
    out = model.eval()(x)
    cls, _, small = NETS[name]
    other = cls(**small).double().eval()
    assert not torch.equal(other(x), out)
    other.load_state_dict(model.state_dict())
    for twin in (other, copy.deepcopy(model),
                 pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), out)


@pytest.mark.parametrize('training', [False, True])
def test_compile_and_export(training):
    """The networks of voxels are one graph."""
    torch.manual_seed(0)
    model = CathNet(channels=(1, ), blocks=(1, ), max_degree=1,
                    invariants=4, dropout=0.).train(training)
    x = torch.rand(2, 1, 7, 7, 7)
    twin = copy.deepcopy(model)
    out = torch.compile(twin, fullgraph=True, backend='aot_eager')(x)
    expected = model(x)
    assert torch.allclose(out, expected, atol=1e-6)
    out.sum().backward()
    expected.sum().backward()
    for p, q in zip(twin.parameters(), model.parameters()):
        if p.numel():
            assert torch.allclose(p.grad, q.grad, atol=1e-5)
    if not training:
        program = torch.export.export(model, (x, ))
        assert torch.allclose(program.module()(x), expected, atol=1e-6)


def test_compiled_layers_on_graphs():
    torch.manual_seed(0)
    conv = LatticeSteerableConv(A, B, 3, bias=False)
    compiled = torch.compile(conv, backend='eager')
    for size in (5, 6):
        lattice = voxel_to_graph(torch.randn(A.dim, *3 * [size]), 3,
                                 mask=torch.rand(3 * [size]) < 0.3)
        out = compiled(lattice.x, lattice)
        assert torch.allclose(out, conv(lattice.x, lattice), atol=1e-6)


@pytest.mark.parametrize('build, match', [
    (lambda: TetrisNet(strides=(1, 2)), "'strides'"),
    (lambda: TetrisCNN(strides=(1, 2)), "'strides'"),
    (lambda: ShrecNet(fields=('8x0e', )), "'strides'"),
    (lambda: CathNet(blocks=(3, 4, 6)), "'blocks'"),
    (lambda: CathCNN(blocks=(3, 4, 0, 3)), "'blocks'"),
    (lambda: CathNet(dropout=1.5), "'dropout'"),
    (lambda: AminoAcidNet(channels=(4, 8)), "'channels'"),
    (lambda: AminoAcidNet(size=36), 'at least 37'),
    (lambda: AminoAcidCNN(size=36, channels=4 * (1, )), 'at least 37'),
    (lambda: AminoAcidCNN(channels=(4, 8)), "'channels'"),
    (lambda: AminoAcidNet(size=37, hidden=8)(torch.rand(1, 2, 48, 48, 48)),
     "'size'"),
    (lambda: TetrisNet()(torch.rand(1, 9, 9, 9)), r'\[B, 1, D, H, W\]'),
    (lambda: ShrecNet()(torch.rand(1, 2, 9, 9, 9)), "'voxels'"),
    (lambda: LatticeGate(A)(torch.rand(2, A.dim)), 'second dimension'),
    (lambda: LatticeDropout(A)(torch.rand(A.dim)), 'second dimension'),
    (lambda: lattice_stack([A, B], [1, 1]), "'strides'"),
])
def test_bad_input(build, match):
    with pytest.raises(ValueError, match=match):
        build()
