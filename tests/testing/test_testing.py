"""The battery of tests, and what it says of wrong uses."""
import pytest
import torch
from e3nn import o3

from pyg_steerable import FieldType, Group
from pyg_steerable.nn import (
    HarmonicSteerableConv,
    LatticeBlock,
    LatticeDropout,
    LatticeGate,
    LatticeSteerableConv,
    LatticeSteerableConvTranspose,
    Linear,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
    Voxels,
    assert_equivariant,
    cube_symmetries,
    equivariance_error,
)

TYPE = '2x0e + 1x1o'


def lattice(group, **options):
    return LatticeSteerableConv(
        FieldType(TYPE, group), FieldType('1x0e + 1x1e + 1x2e', group),
        **{'kernel_size': 3, **options})


@pytest.mark.parametrize('options', [
    {}, {'stride': 2}, {'kernel': 'implicit'}, {'padding': 0},
    {'spacing': (2., 1., 1.)}, {'kernel_size': 5, 'stride': 2},
    {'root_weight': True}])
@pytest.mark.parametrize('group', ['SO(3)', 'O(3)', 'SO(2)xM', 'C3', '1'])
def test_lattice_layers(group, options):
    torch.manual_seed(0)
    conv = lattice(group, **options)
    assert_equivariant(conv)
    if group != 'O(3)':
        assert equivariance_error(conv.double(), 'O(3)') > 1e-2


@pytest.mark.parametrize('make', [
    lambda t: LatticeSteerableConvTranspose(t, t, 3, stride=2),
    lambda t: LatticeBlock(t, t),
    LatticeGate,
    LatticeDropout,
])
def test_other_lattice_layers(make):
    assert_equivariant(make(FieldType(TYPE, 'O(3)')))


def test_a_wrong_kernel_is_seen_by_its_voxels_and_by_itself():
    for group in ('O', 'C3'):  # C3 has no symmetry of the grid
        conv = lattice(group).double()
        assert equivariance_error(conv) < 1e-12
        for value in conv.kernel.buffers():
            if value.is_floating_point():
                value += 0.1 * torch.randn_like(value)
        assert equivariance_error(conv) > 1e-3


def test_voxels_turn_about_the_centre():
    kind = Voxels(FieldType('1x0e'))
    x = torch.randn(1, 1, 3, 4, 5)
    for R in cube_symmetries():
        for S in cube_symmetries()[:5]:
            both = kind.act(kind.act(x, S), R)
            assert torch.equal(both, kind.act(x, R @ S))
    R = Group('C4').generators[0]  # x to y, axes 4 and 3
    assert torch.equal(kind.act(x, R), torch.rot90(x, -1, (3, 4)))
    assert len({str(R) for R in cube_symmetries()}) == 48


@pytest.mark.parametrize('size', [(3, 3, 3), (3, 4, 4)])
def test_callables_on_voxels(size):
    """Only what turns the grid into itself is tried."""
    options = dict(in_types=[Voxels(FieldType('1x0e', 'SO(3)'))],
                   out_types=['1x0e'], inputs=[torch.randn(2, 1, *size)],
                   group='SO(3)', dtype=torch.float64)
    weight = torch.randn(size, dtype=torch.float64)
    assert_equivariant(lambda x: x.mean((2, 3, 4)), **options)
    assert equivariance_error(lambda x: (weight * x).mean((2, 3, 4)),
                              **options) > 1e-3


def cross(x, y):
    return torch.linalg.cross(x, y)


def test_types_are_read_under_the_group():
    for types in (['1o', '1o'], [o3.Irreps('1o'), '1x1o'],
                  [FieldType('1o'), [(1, '1o')]]):
        error = equivariance_error(cross, 'O(3)', in_types=types,
                                   out_types=['1e'])
        assert error < 1e-6
        assert equivariance_error(cross, 'O(3)', in_types=types,
                                  out_types=['1o']) > 1


@pytest.mark.parametrize('bad, error, words', [
    (dict(in_types=['1o'], out_types=['1o']), TypeError, "'1o'"),
    (dict(in_types=['positions'], out_types=['1o'], group='O(3)'),
     ValueError, "got 'positions'"),
    (dict(in_types=[3], out_types=['pos']), TypeError, 'int 3'),
    (dict(in_types='pos', out_types=['pos']), TypeError, "'in_types'"),
    (dict(in_types=['pos'], out_types='pos'), TypeError, "'out_types'"),
    (dict(in_types=[Voxels(FieldType('1o'))], out_types=['pos']), ValueError,
     "'inputs'"),
    (dict(elements=2 * torch.eye(3)), ValueError, "'elements'"),
    (dict(num_samples=-1), ValueError, "'num_samples'"),
    (dict(seed='a'), TypeError, "'seed'"),
    (dict(dtype=torch.int64), ValueError, "'dtype'"),
])
def test_wrong_uses(bad, error, words):
    layer = Linear(FieldType('1o'), FieldType('1o'))
    with pytest.raises(error) as caught:
        equivariance_error(layer, **bad)
    assert words in str(caught.value)


def test_what_cannot_be_called():
    with pytest.raises(TypeError, match="'module'.*got 'layer'"):
        assert_equivariant('layer')


class Options(EquivariantLayerTests):
    """Every option at once, with a group outside."""
    outside = 'O(3)'
    options = dict(tol=1e-9, dtype=torch.float32, num_samples=2, seed=3)

    def make(self):
        field_type = FieldType(TYPE, 'SO(2)')
        return HarmonicSteerableConv(field_type, field_type)


class TestOptions(Options):
    pass


class Wrong(Options):
    """A layer that breaks everything that it can."""
    def make(self):
        class Broken(Linear):
            def forward(self, x):
                return x.float().abs() * (1 + 1e-3 * torch.rand(1))
        field_type = FieldType('1x1o', 'SO(2)')
        return Broken(field_type, field_type)


@pytest.mark.parametrize('test', ['equivariance_float64',
                                  'float64_stays_float64'])
def test_failures_say_what_was_expected(test):
    with pytest.raises(AssertionError, match=r'Expected .*\(got'):
        getattr(Wrong(), f'test_{test}')()


def test_too_much_symmetry_is_said():
    class Symmetric(Options):
        def make(self):
            return Linear(FieldType('1x0e', 'SO(2)'),
                          FieldType('1x0e', 'SO(2)'))

    with pytest.raises(AssertionError, match='no equivariance under O'):
        Symmetric().test_no_equivariance_outside()
