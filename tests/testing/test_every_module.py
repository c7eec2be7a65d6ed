"""Every public module keeps the one contract, and says itself how."""
import pytest
import torch

import pyg_steerable.kernels
import pyg_steerable.models
import pyg_steerable.nn
from pyg_steerable import FieldType
from pyg_steerable.kernels import (
    BesselRadial,
    GaussianRadial,
    HarmonicBasis,
    ImplicitBasis,
    Kernel,
    LatticeKernel,
    RadialFunctions,
    SteerableBasis,
    SteerableKernel,
)
from pyg_steerable.models import (
    AminoAcidCNN,
    AminoAcidNet,
    CathCNN,
    CathNet,
    ModelNetClassifier,
    ModelNetSegmenter,
    NBodyNet,
    Potential,
    QM9Net,
    ShrecNet,
    TetrisCNN,
    TetrisNet,
)
from pyg_steerable.nn import (
    Bilinear,
    FieldBatchNorm,
    FieldDropout,
    FieldModule,
    Gate,
    GlobalPool,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    InvariantReadout,
    LatticeAvgPool,
    LatticeBlock,
    LatticeDropout,
    LatticeGate,
    LatticeGlobalPool,
    LatticeLowPass,
    LatticeNormConv,
    LatticeSteerableConv,
    LatticeSteerableConvTranspose,
    Linear,
    NormActivation,
    NormGate,
    NormMaxPool,
    QuotientELU,
    SteerableConv,
    TensorProductActivation,
    lattice_stack,
)
from pyg_steerable.testing import assert_equivariant, equivariance_error

#: Under SO(3), which does not know of parities, but all of O(3) does.
T = FieldType('2x0e + 1x0o + 2x1o + 1x1e', 'SO(3)')
SMALL = '1x0e + 1x0o + 1x1o + 1x1e'
POSITIONS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
CLOUDS = dict(channels=2, group='SO(2)', k=5, mlp=8, activation=NormGate,
              kernel=ImplicitBasis.spec(hidden=2))

#: A module of each public class, under a group smaller than O(3).
MODULES = {
    # Layers of rows.
    Linear: lambda: Linear(T, T),
    Bilinear: lambda: Bilinear(T, T, T),
    Gate: lambda: Gate(T),
    NormGate: lambda: NormGate(T),
    NormActivation: lambda: NormActivation(T),
    QuotientELU: lambda: QuotientELU(FieldType.sphere(2, 2, 'T'), 12),
    TensorProductActivation: lambda: TensorProductActivation(T),
    FieldBatchNorm: lambda: FieldBatchNorm(T),
    FieldDropout: lambda: FieldDropout(T),
    InvariantReadout: lambda: InvariantReadout(T, 3),
    GlobalPool: lambda: GlobalPool(T),
    NormMaxPool: lambda: NormMaxPool(T),
    # Bases, kernels and convolutions of points.
    GaussianRadial: GaussianRadial,
    BesselRadial: BesselRadial,
    HarmonicBasis: lambda: HarmonicBasis('SO(3)', 2),
    ImplicitBasis: lambda: ImplicitBasis('SO(3)', 2, attr_type=T),
    SteerableKernel: lambda: SteerableKernel(
        ImplicitBasis('SO(3)', 2, attr_type=T), T, T),
    LatticeKernel: lambda: LatticeKernel(
        HarmonicBasis('SO(3)', 2), T, T, POSITIONS),
    SteerableConv: lambda: SteerableConv(T, T, HarmonicBasis('SO(3)', 2)),
    HarmonicSteerableConv: lambda: HarmonicSteerableConv(T, T),
    ImplicitSteerableConv: lambda: ImplicitSteerableConv(T, T, T, T,
                                                         hidden=2),
    # Layers of voxels.
    LatticeSteerableConv: lambda: LatticeSteerableConv(T, T, 3, stride=2),
    LatticeSteerableConvTranspose: lambda: LatticeSteerableConvTranspose(
        T, T, 3, stride=2),
    LatticeNormConv: lambda: LatticeNormConv(T, T, 3),
    LatticeBlock: lambda: LatticeBlock(T, T, 3, norm=True, dropout=0.1),
    LatticeGate: lambda: LatticeGate(T),
    LatticeDropout: lambda: LatticeDropout(T),
    LatticeLowPass: LatticeLowPass,
    LatticeAvgPool: LatticeAvgPool,
    LatticeGlobalPool: LatticeGlobalPool,
    # Networks.
    QM9Net: lambda: QM9Net(edge_dim=3, atom_dim=5, channels=4, blocks=1,
                           invariants=4, group='SO(2)'),
    Potential: lambda: Potential([1, 8], cutoff=3., channels=2, blocks=2,
                                 hidden=4, group='SO(2)'),
    NBodyNet: lambda: NBodyNet(channels=2, steps=2, group='SO(2)'),
    ModelNetClassifier: lambda: ModelNetClassifier(invariants=8, **CLOUDS),
    ModelNetSegmenter: lambda: ModelNetSegmenter(
        in_type=FieldType('1o', 'SO(2)'), **CLOUDS),
    TetrisNet: lambda: TetrisNet(fields=3 * [SMALL], invariants=4),
    ShrecNet: lambda: ShrecNet(fields=7 * [SMALL], invariants=4),
    CathNet: lambda: CathNet(channels=(1, 1), blocks=(1, 2), max_degree=1,
                             invariants=4),
    AminoAcidNet: lambda: AminoAcidNet(
        channels=(1, 1, 2, 4), max_degree=1, hidden=16, size=37),
    TetrisCNN: lambda: TetrisCNN(channels=(4, 4, 4, 4)),
    CathCNN: lambda: CathCNN(channels=(4, 4), blocks=(1, 2)),
    AminoAcidCNN: lambda: AminoAcidCNN(channels=(4, 4, 8, 8), hidden=64,
                                       size=37),
}
#: What others are made of.
ABSTRACT = {FieldModule, Kernel, RadialFunctions, SteerableBasis}
#: Norms, sums and harmonics are those of O(3), whatever the group.
SYMMETRIC = {NormMaxPool, GlobalPool, FieldDropout, LatticeDropout,
             LatticeLowPass, LatticeAvgPool, LatticeGlobalPool,
             HarmonicBasis, GaussianRadial, BesselRadial}
#: No group leaves the whole of these networks alone.
NOT_STEERABLE = [TetrisCNN, CathCNN, AminoAcidCNN]
STEERABLE = [cls for cls in MODULES if cls not in NOT_STEERABLE]


def public() -> set:
    rooms = (pyg_steerable.nn, pyg_steerable.kernels, pyg_steerable.models)
    names = {getattr(room, name) for room in rooms for name in room.__all__}
    return {cls for cls in names
            if isinstance(cls, type) and issubclass(cls, torch.nn.Module)}


def make(cls) -> torch.nn.Module:
    """Biases and other zeros must not hide anything."""
    torch.manual_seed(0)
    module = MODULES[cls]().double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module


def test_every_public_module_is_here():
    assert public() == {*MODULES, *ABSTRACT}
    assert all(issubclass(cls, FieldModule) for cls in public())


@pytest.mark.parametrize('cls', STEERABLE, ids=lambda c: c.__name__)
def test_equivariance(cls):
    assert_equivariant(make(cls), dtype=torch.float64)


@pytest.mark.parametrize('cls', MODULES, ids=lambda c: c.__name__)
def test_no_equivariance_outside(cls):
    error = equivariance_error(make(cls), 'O(3)', dtype=torch.float64)
    if cls in SYMMETRIC:
        assert error < 1e-10
    else:  # the mean over space hides much of what plain networks do
        assert error > (1e-3 if cls in NOT_STEERABLE else 1e-2)


@pytest.mark.parametrize('cls', NOT_STEERABLE, ids=lambda c: c.__name__)
def test_plain_networks_claim_nothing(cls):
    with pytest.raises(ValueError, match='besides the identity'):
        assert_equivariant(make(cls))
    assert equivariance_error(make(cls), 'SO(3)') > 1e-3


def test_dense_layers_claim_nothing_but_features_do():
    model = make(AminoAcidNet)
    assert model.in_type.group.name == model.out_type.group.name == '1'
    assert model.features[0].in_type.group.name == 'SO(3)'
    assert_equivariant(model.features)
    assert equivariance_error(model, 'SO(3)') > 1e-5  # biases are large
    assert equivariance_error(model.features, 'O(3)') > 1e-2


@pytest.mark.parametrize('cls', MODULES, ids=lambda c: c.__name__)
def test_examples_are_valid_and_the_same_again(cls):
    module = make(cls).eval()
    first, again = (module.example(torch.Generator().manual_seed(1))
                    for _ in range(2))
    out = [module(*example.inputs) for example in (first, again)]
    out = [x if isinstance(x, tuple) else (x, ) for x in out]
    assert all(torch.equal(x, y) and x.isfinite().all()
               for x, y in zip(*out, strict=True))
    assert len(first.inputs) == len(first.in_types)


# Several as one ############################################################


def test_sequences():
    torch.manual_seed(0)
    gate = Gate(T)
    net = torch.nn.Sequential(
        Linear(T, gate.in_type), gate,
        torch.nn.Sequential(FieldBatchNorm(T), NormGate(T)),
        InvariantReadout(T, 4), torch.nn.ReLU(), Linear(
            FieldType('4x0e', 'SO(3)'), FieldType('2x0e', 'SO(3)')))
    assert_equivariant(net.double())
    assert equivariance_error(net, 'O(3)') > 1e-2


@pytest.mark.parametrize('smooth', [False, True])
def test_sequences_on_grids(smooth):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        LatticeLowPass(2.), lattice_stack([T, T, T], [2, 2], smooth=smooth),
        LatticeGlobalPool()).double()
    assert_equivariant(net)
    assert equivariance_error(net, 'O(3)') > 1e-2


def test_sequences_of_layers_of_any_type():
    net = torch.nn.Sequential(LatticeAvgPool(3, 2), LatticeLowPass(2., 2))
    assert_equivariant(net, dtype=torch.float64)


class Broken(FieldModule):
    """Mixes what the group keeps apart, on a grid."""
    channel_axis = 1

    def __init__(self, field_type):
        super().__init__()
        self.set_types(field_type)

    def forward(self, x):
        self.check_input(x)
        return x.cumsum(2)


def test_what_is_wrong_in_a_sequence_is_seen():
    gate = LatticeGate(T)
    conv = LatticeSteerableConv(T, gate.in_type, 3)
    for layers in ([Broken(T), conv, gate], [conv, Broken(gate.in_type), gate],
                   [conv, gate, Broken(T)]):
        with pytest.raises(AssertionError, match='to be equivariant'):
            assert_equivariant(torch.nn.Sequential(*layers).double())


@pytest.mark.parametrize('module, words', [
    (torch.nn.Linear(3, 3), 'got Linear'),
    (torch.nn.Sequential(), 'got Sequential'),
    (torch.nn.Sequential(Gate(T), torch.nn.ReLU()), 'got Sequential'),
])
def test_what_does_not_say_its_types(module, words):
    with pytest.raises(TypeError, match=words):
        assert_equivariant(module)


# A new activation is one class #############################################


class Softplus(FieldModule):
    """Fields times the softplus of their norm."""
    flat_maps = ('matrix', )

    def __init__(self, field_type):
        super().__init__()
        self.set_types(field_type)
        self.matrix = torch.nn.Parameter(torch.ones(1))
        self.sizes = [rep.dim for mul, rep in self.in_type.blocks
                      for _ in range(mul)]

    def forward(self, x):
        self.check_input(x)
        fields = x.split(self.sizes, dim=-1)
        return self.matrix * torch.cat([
            f * torch.nn.functional.softplus(f.norm(dim=-1, keepdim=True))
            for f in fields], dim=-1)


@pytest.mark.parametrize('build', [
    Softplus,
    lambda T: ImplicitBasis('SO(3)', 2, activation=Softplus),
    lambda T: ImplicitSteerableConv(T, T, hidden=2, activation=Softplus),
    lambda T: LatticeBlock(T, T, 3, activation=Softplus),
    lambda T: QM9Net(channels=2, blocks=1, activation=Softplus),
])
def test_a_new_activation(build):
    module = build(T).double()
    assert_equivariant(module)
    decays = pyg_steerable.nn.param_groups(module)[0]['params']
    new = [m.matrix for m in module.modules() if isinstance(m, Softplus)]
    assert new and all(any(p is q for q in decays) for p in new)
