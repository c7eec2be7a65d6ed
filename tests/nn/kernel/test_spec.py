"""A basis is named once, and known to all layers and networks."""
import copy
import inspect
import pickle

import pytest
import torch
from e3nn import o3

from pyg_steerable import FieldType
from pyg_steerable.kernels import (
    BasisSpec,
    HarmonicBasis,
    ImplicitBasis,
    SteerableBasis,
)
from pyg_steerable.models import ModelNetClassifier, QM9Net
from pyg_steerable.nn import (
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    LatticeSteerableConv,
    NormActivation,
    SteerableConv,
)
from pyg_steerable.nn.kernel.spec import NAMED
from pyg_steerable.testing import assert_equivariant

T = FieldType('2x0e + 1x1o', 'SO(2)')


@pytest.fixture
def wave():
    """A basis of a user's own: sines of the distance times vectors."""
    class WaveBasis(SteerableBasis, name='wave'):
        def __init__(self, group, waves=3, radius=1.0):
            super().__init__()
            self.waves = waves
            self.set_radius(radius)
            self.field_type = FieldType(
                [(waves, o3.Irrep('0e')), (waves, o3.Irrep('1o'))], group)
            self.attr_type = FieldType([], group)

        def forward(self, positions, attr=None):
            self.check_inputs(positions, attr)
            x = positions / self.radius
            r = (x.square().sum(1, keepdim=True) + 1e-4).sqrt()
            n = torch.arange(1, self.waves + 1, device=x.device)
            s = (n * r).sin() * (-r.square()).exp()
            v = s.unsqueeze(2) * x.unsqueeze(1)
            return torch.cat([s, v.flatten(1)], 1)

    yield WaveBasis
    del NAMED['wave']


@pytest.mark.filterwarnings('ignore:Nothing leads')
def test_a_basis_of_ones_own_is_known_everywhere(wave):
    kernel = wave.spec(waves=2)
    layers = [
        SteerableConv(T, T, 'wave'), SteerableConv(T, T, kernel),
        LatticeSteerableConv(T, T, 3, kernel='wave', waves=2),
        LatticeSteerableConv(T, T, 3, kernel=kernel, stride=2),
        QM9Net(kernel=kernel, blocks=1), QM9Net(kernel='wave', blocks=1),
        ModelNetClassifier(kernel=kernel, channels=2, k=5, mlp=8,
                           activation=NormActivation),
    ]
    for layer in layers:
        assert_equivariant(layer, dtype=torch.float64)
    waves = [m.waves for layer in layers for m in layer.modules()
             if isinstance(m, wave)]
    assert waves.count(3) == 1 + 4 and waves.count(2) == 3 + 4 + 4


def test_specifications_are_values():
    spec = ImplicitBasis.spec(hidden=4, activation=NormActivation)
    assert spec == BasisSpec(ImplicitBasis, (('hidden', 4), (
        'activation', NormActivation)))
    assert hash(spec) == hash(copy.deepcopy(spec))
    assert pickle.loads(pickle.dumps(spec)) == spec != ImplicitBasis.spec()
    assert repr(ImplicitBasis.spec(hidden=4)) == 'ImplicitBasis.spec(hidden=4)'
    with pytest.raises(AttributeError):
        spec.options = ()
    filled = spec.with_defaults(hidden=1, radius=2.)
    assert dict(filled.options) == {'hidden': 4, 'radius': 2.,
                                    'activation': NormActivation}


def test_options_reach_the_basis():
    kernel = ImplicitBasis.spec(hidden=3, num_layers=3, radius=0.7)
    for basis in (SteerableConv(T, T, kernel).kernel.basis,
                  LatticeSteerableConv(T, T, 3, kernel=kernel).kernel.basis,
                  ImplicitSteerableConv(T, T, hidden=3, num_layers=3,
                                        radius=0.7).kernel.basis,
                  QM9Net(kernel=kernel).first.kernel.basis):
        assert len(basis.layers) == 4 and float(basis.radius) == pytest.approx(
            0.7)
        assert basis.field_type.blocks[0][0] == 3
    # What is not said follows from the types, the paper or the network.
    basis = HarmonicSteerableConv(T, T).kernel.basis
    assert basis.max_degree == 2 and basis.band_limit == [0, 2, 2]
    basis = LatticeSteerableConv(T, T, 5, cutoff='sfcnn').kernel.basis
    assert basis.band_limit == [0, 2, 2] and float(basis.radius) == 2
    basis = LatticeSteerableConv(T, T, 5, shells=2).kernel.basis
    assert basis.shells == 2 and basis.band_limit == [0, 2]
    assert float(QM9Net().first.kernel.basis.radius) == pytest.approx(1.2)
    assert float(QM9Net(kernel='harmonic').first.kernel.basis.radius
                 ) == pytest.approx(1.6)
    assert len(QM9Net().first.kernel.basis.layers) == 6  # norms, too


def test_groups_reach_the_kernel():
    kernel = ImplicitBasis.spec(hidden=3, groups='depthwise')
    assert kernel.groups == 'depthwise' and ImplicitBasis.spec().groups == 1
    assert kernel.with_defaults(groups=2).groups == 'depthwise'
    kernels = [
        SteerableConv(T, T, kernel).kernel,
        LatticeSteerableConv(T, T, 3, kernel=kernel).kernel,
        LatticeSteerableConv(T, T, 3, groups='depthwise').kernel,
        ImplicitSteerableConv(T, T, groups='depthwise').kernel,
        HarmonicSteerableConv(T, T, groups='depthwise').kernel,
        QM9Net(kernel=kernel).first.kernel,
        QM9Net(kernel=kernel).last.conv.kernel,
    ]
    assert all(k.groups == 'depthwise' for k in kernels)
    assert SteerableConv(T, T, 'implicit').kernel.groups == 1
    # The basis is the same for all kernels, and knows nothing of them.
    assert SteerableConv(T, T, HarmonicBasis('SO(2)', 1)).kernel.groups == 1
    assert not hasattr(kernels[0].basis, 'groups')


def test_signatures_show_options():
    shown = inspect.signature(ImplicitSteerableConv).parameters
    assert shown['hidden'].default == 16
    assert shown['max_degree'].default is None
    assert shown['groups'].default == 1
    assert {'num_neighbors', 'aggr', 'edge_type'} <= set(shown)
    shown = inspect.signature(HarmonicSteerableConv).parameters
    assert {'shells', 'band_limit', 'groups'} <= set(shown)
    assert 'cutoff' not in shown


@pytest.mark.parametrize('call, words', [
    (lambda: ImplicitBasis.spec(hiden=3), ['hidden', 'hiden']),
    (lambda: HarmonicSteerableConv(T, T, cutoff='sfcnn'), ['for_types',
                                                           'cutoff']),
    (lambda: LatticeSteerableConv(T, T, 3, kernel='implicit', cutoff='sfcnn'),
     ['hidden', 'cutoff']),
    (lambda: LatticeSteerableConv(T, T, 3, kernel=ImplicitBasis.spec(),
                                  hidden=4), ['specification', 'hidden']),
    (lambda: LatticeSteerableConv(T, T, 3, hidden=4,
                                  kernel=HarmonicBasis('SO(2)', 1)),
     ['its name', 'hidden']),
    (lambda: SteerableConv(T, T, None), ["'kernel'", 'got None']),
    (lambda: QM9Net(kernel=3), ["'kernel'", 'got 3']),
    (lambda: BasisSpec(int), ['SteerableBasis', 'int']),
])
def test_bad_specifications(call, words):
    with pytest.raises(TypeError) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('call', [
    lambda: SteerableConv(T, T, 'bessel'),
    lambda: QM9Net(kernel='bessel'),
    lambda: LatticeSteerableConv(T, T, 3, kernel='bessel'),
    lambda: ModelNetClassifier(kernel='bessel'),
])
def test_unknown_names(call):
    with pytest.raises(ValueError, match="'kernel' .*'harmonic', 'implicit'"):
        call()


def test_no_attributes_where_a_basis_takes_none():
    with pytest.raises(ValueError, match='no attributes.*implicit'):
        SteerableConv(T, T, 'harmonic', edge_type=T)
