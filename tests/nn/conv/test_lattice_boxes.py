"""Convolutions of voxels with any odd box, and of images."""
import warnings

import pytest
import torch
from torch.nn import functional as F

from pyg_steerable import FieldType, Group
from pyg_steerable.graph import Stencil, voxel_to_graph
from pyg_steerable.kernels import HarmonicBasis, lattice_harmonics
from pyg_steerable.nn import (
    LatticeBlock,
    LatticeNormConv,
    LatticeSteerableConv,
    LatticeSteerableConvTranspose,
    lattice_stack,
)
from pyg_steerable.ops import lattice_edges
from pyg_steerable.testing import assert_equivariant

GRID = (5, 6, 7)
IN, OUT = '2x0e + 1x1o + 1x0o', '1x0e + 1x1e + 1x2e + 1x0o'
BOXES = {
    'box': dict(kernel_size=(1, 3, 5), root_weight=True),
    'strides': dict(kernel_size=(5, 3, 1), stride=(2, 1, 3)),
    'paddings': dict(kernel_size=(3, 1, 5), stride=(1, 2, 2),
                     padding=(0, 1, 2)),
    'valid': dict(kernel_size=(3, 5, 3), padding=0, spacing=(3., 1., 2.)),
    'implicit': dict(kernel_size=(3, 1, 3), kernel='implicit', bias=False),
}
#: Groups that hold rotations by 90 degrees about z.
PLANAR = ['C4', 'D4', 'SO(2)', 'SO(2)xM', 'SO(3)', 'O(3)', 'O']
#: What torch.rot90 does to the axes (y, x), as a matrix on (x, y, z).
QUARTER = torch.tensor([[0., 1., 0.], [-1., 0., 0.], [0., 0., 1.]]).double()
ONE, VECTOR = (FieldType(t, 'O(3)') for t in ('0e', '1o'))


def ways(path):
    """Order and backend."""
    if path == 'reference':
        return 'auto', path
    return 'graph' if path in ('runs', 'rows') else path, 'auto'


def make(group, kernel_size, cls=LatticeSteerableConv, **kwargs):
    torch.manual_seed(0)
    conv = cls(FieldType(IN, group), FieldType(OUT, group), kernel_size,
               **kwargs)
    with torch.no_grad():  # biases must matter
        for p in conv.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return conv.double()


def gradients(function, leaves, weights):
    """The output, and the gradients of a random sum of it."""
    for leaf in leaves:
        leaf.grad = None
    out = function(leaves[0])
    (out * weights).sum().backward()
    return [out, *(leaf.grad.clone() for leaf in leaves)]


def close(found, expected):
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-10)
               for a, b in zip(found, expected, strict=True))


# One convolution, all ways #################################################


@pytest.mark.parametrize('occupancy', [0.3, 1.])
@pytest.mark.parametrize('case', BOXES)
def test_all_ways_agree(case, occupancy, monkeypatch):
    conv = make('SO(2)', **BOXES[case])
    mask = torch.rand(GRID) < occupancy
    lattice = voxel_to_graph(torch.randn(conv.in_type.dim, *GRID).double(),
                             mask=mask, **vars(conv.stencil))
    x = lattice.x.clone().requires_grad_()
    weights = torch.randn(lattice.num_targets, conv.out_type.dim).double()
    leaves = [x, *conv.parameters()]

    def by_hand(x):
        """The sum of the definition."""
        stencil, kernel = conv.stencil, conv.kernel()
        out = x.new_zeros(lattice.num_targets, conv.out_type.dim)
        if conv.root_weight:
            centre = stencil.num_offsets // 2
            root = (conv.lin.matrix() if k == centre else 0. for k in
                    range(stencil.num_offsets))
            kernel = torch.stack([m + r for m, r in zip(kernel, root)])
        for k, offset in enumerate(stencil.offsets()):
            seen = (lattice.targets[0] * torch.tensor(stencil.stride)
                    - torch.tensor(stencil.padding) + offset)
            dst, src = (seen[:, None] == lattice.coord).all(-1).nonzero().T
            out = out.index_add(0, dst, x[src] @ kernel[k].T)
        bias = conv.dense_bias()
        return out if bias is None else out + bias

    expected = gradients(by_hand, leaves, weights)
    for path in ('auto', 'dense', 'reference', 'runs', 'rows'):
        conv.order, conv.backend = ways(path)
        if conv.order == 'graph':
            monkeypatch.setattr(lattice_edges, '_prefers_runs',
                                lambda *args, runs=path == 'runs': runs)
        assert close(gradients(lambda x: conv(x, lattice), leaves, weights),
                     expected)
    for function in (conv, conv.to_conv3d()):
        voxels = function(lattice.scatter(x))
        assert voxels.shape[2:] == lattice.geometry.out_grid
        assert close([lattice.gather(voxels, targets=True)], expected[:1])


@pytest.mark.parametrize('path', ['graph', 'dense'])
def test_second_derivatives(path):
    conv = make('SO(2)', (1, 3, 5), stride=(1, 1, 2), order=path)
    mask = torch.rand(GRID) < 0.2
    lattice = voxel_to_graph(torch.randn(6, *GRID).double(), mask=mask,
                             **vars(conv.stencil))
    x = lattice.x.clone().requires_grad_()

    def function(x, *weights):
        named = dict(zip(dict(conv.named_parameters()), weights))
        return torch.func.functional_call(conv, named, (x, lattice)).pow(2)

    assert torch.autograd.gradgradcheck(function, (x, *conv.parameters()),
                                        fast_mode=True)


@pytest.mark.parametrize('stride', [1, (1, 2, 3)])
def test_transposed(stride):
    conv = make('O(3)', (1, 3, 5), LatticeSteerableConvTranspose,
                stride=stride, spacing=(9., 1., 2.))
    down = LatticeSteerableConv(conv.out_type, conv.in_type, (1, 3, 5),
                                stride=stride)
    lattice = voxel_to_graph(torch.randn(1, *GRID).double(),
                             mask=torch.rand(GRID) < 0.3,
                             **vars(conv.stencil))
    assert lattice.geometry.stencil.stride == down.stencil.stride
    x = torch.randn(lattice.num_targets, conv.in_type.dim).double()
    leaves = [x.requires_grad_(), *conv.parameters()]
    weights = torch.randn(len(lattice.coord), conv.out_type.dim).double()

    def on_voxels(x):
        voxels = conv(lattice.scatter(x, targets=True), size=GRID)
        assert voxels.shape[2:] == GRID
        return lattice.gather(voxels)

    expected = gradients(on_voxels, leaves, weights)
    for path in ('graph', 'dense', 'reference'):
        conv.order, conv.backend = ways(path)
        assert close(gradients(lambda x: conv(x, lattice), leaves, weights),
                     expected)
    # The transposed map of the kernel of a strided convolution.
    y = torch.randn(2, conv.out_type.dim, *GRID).double()
    matrices, bias = conv.dense_weight(), conv.dense_bias()
    fine = F.conv3d(y, matrices.transpose(0, 1), None,
                    *[conv.stencil.stride, conv.stencil.padding])
    x = torch.randn_like(fine)
    back = conv(x, size=GRID) - bias[:, None, None, None]
    assert torch.allclose((fine * x).sum(), (back * y).sum())


def test_folded_norms():
    options = dict(stride=(1, 2, 1), padding=0)
    conv = make('O(3)', (1, 3, 5), LatticeNormConv, **options)
    plain = make('O(3)', (1, 3, 5), **options)
    x = torch.randn(3, conv.in_type.dim, *GRID).double()
    normal = conv.norm(x.movedim(1, -1).flatten(0, -2))
    normal = normal.view(3, *GRID, -1).movedim(-1, 1)
    assert torch.allclose(conv(x), plain(normal), rtol=0, atol=1e-10)
    conv.eval()
    assert torch.allclose(conv.to_conv3d()(x), conv(x), rtol=0, atol=1e-10)


def test_shells_reach_to_the_widest_side():
    conv = LatticeSteerableConv(VECTOR, VECTOR, (1, 3, 7))
    wanted = lattice_harmonics('O(3)', 7, 2)
    assert conv.kernel.basis.shells == wanted.shells == 4
    assert torch.equal(conv.kernel.basis.radius, wanted.radius)
    conv = LatticeSteerableConv(VECTOR, VECTOR, (1, 3, 7), kernel='implicit')
    assert float(conv.kernel.basis.radius) == 3.


# Images ####################################################################


def images(field_type, size=(1, 7, 7), batch=2):
    return torch.randn(batch, field_type.dim, *size).double()


def quarter(x, field_type, R=QUARTER):
    return field_type.act(x.movedim(1, -1), R).movedim(-1, 1).rot90(1, (3, 4))


def error(a, b):
    return float((a - b).detach().norm() / b.detach().norm())


def test_quarter_is_what_rot90_does():
    line = torch.arange(-3., 4.).double()
    y, x = torch.meshgrid(line, line, indexing='ij')
    pos = torch.stack([x, y, torch.zeros_like(x)])[None, :, None]
    assert torch.allclose(quarter(pos, VECTOR), pos, atol=1e-12)


@pytest.mark.parametrize('kernel', ['harmonic', 'implicit'])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('group', PLANAR)
def test_turned_images(group, stride, kernel):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # fields that nothing leads to
        conv = make(group, (1, 5, 5), stride=stride, kernel=kernel)
    assert Group(group).contains(QUARTER)
    x = images(conv.in_type)
    found = conv(quarter(x, conv.in_type))
    assert found.shape[2:] == ((1, 7, 7) if stride == 1 else (1, 4, 4))
    assert error(found, quarter(conv(x), conv.out_type)) < 1e-10
    # Reflections, where they are in the group: x -> -x.
    R = torch.diag(torch.tensor([-1., 1., 1.])).double()
    if Group(group).contains(R):
        flipped = conv.in_type.act(x.movedim(1, -1), R).movedim(-1, 1).flip(4)
        expected = conv.out_type.act(conv(x).movedim(1, -1), R)
        assert error(conv(flipped), expected.movedim(-1, 1).flip(4)) < 1e-10


@pytest.mark.parametrize('group', ['1', 'Inv', 'M', 'F'])
def test_no_symmetry_that_is_not_asked_for(group):
    conv = make(group, (1, 5, 5))
    x = images(conv.in_type)
    assert not Group(group).contains(QUARTER)
    assert error(conv(quarter(x, conv.in_type)),
                 quarter(conv(x), conv.out_type)) > 1e-2


def test_boxes_of_other_shapes_break_it():
    conv = make('SO(2)', (1, 3, 5))
    x = images(conv.in_type)
    assert error(conv(quarter(x, conv.in_type)),
                 quarter(conv(x), conv.out_type)) > 1e-2
    # So does a spacing that differs in the plane, and no other.
    for spacing, within in (((1., 2., 1.), False), ((5., 2., 2.), True)):
        conv = make('SO(2)', (1, 5, 5), spacing=spacing)
        difference = error(conv(quarter(x, conv.in_type)),
                           quarter(conv(x), conv.out_type))
        assert difference < 1e-10 if within else difference > 1e-2


@pytest.mark.parametrize('group', ['SO(2)', 'SO(2)xM', 'D4', 'O(3)', '1'])
def test_what_vanishes_in_the_plane_has_no_weight(group):
    kernel = make(group, (1, 5, 5)).kernel
    norms = [E.flatten(1).norm(dim=1) for E in kernel.elements()]
    scales = kernel._by_pair(kernel.scale)
    zero = torch.cat(norms) < 1e-9
    assert torch.equal(torch.cat(scales) == 0, zero)
    assert float(kernel.scale.max()) < 10 and bool((~zero).any())
    assert group == 'O(3)' or zero.any()
    # The others are of one size, as without those.
    for norm, scale in zip(norms, scales):
        sizes = (norm * scale)[scale > 0]
        assert torch.allclose(sizes, sizes[:1].expand_as(sizes))


def test_the_output_has_variance_one():
    conv = LatticeSteerableConv(FieldType('8x0e + 4x1o', 'SO(2)'),
                                FieldType('40x0e + 40x1o', 'SO(2)'), (1, 5, 5),
                                padding=0, bias=False).double()
    x = torch.randn(8, 20, 1, 12, 12).double()
    for part in conv(x)[:, :40], conv(x)[:, 40:]:
        assert 0.7 < float(part.detach().var()) < 1.4


def test_fields_that_vanish_in_the_plane_are_named():
    line = torch.tensor([1., 1., -1.]).double()
    mirror = Group.from_generators(torch.diag(line)[None])
    T, one = FieldType('0e + 0o', mirror), FieldType('0e', mirror)
    basis = HarmonicBasis(mirror, 2, 2.)
    assert not LatticeSteerableConv(one, T, 5, kernel=basis).kernel.unreached
    with pytest.warns(UserWarning, match='1x0o.*\\(1, 5, 5\\).*zero'):
        conv = LatticeSteerableConv(one, T, (1, 5, 5), kernel=basis)
    assert conv.kernel.unreached == [T.blocks[1]]
    x = torch.randn(1, 1, 1, 6, 6)
    assert conv(x)[:, 0].abs().min() > 0 and not conv(x)[:, 1].any()
    with pytest.raises(ValueError, match='\\(1, 5, 5\\)'):
        LatticeSteerableConv(one, FieldType('0o', mirror), (1, 5, 5),
                             kernel=basis)


@pytest.mark.parametrize('cls', [LatticeSteerableConv, LatticeNormConv])
@pytest.mark.parametrize('options', [{}, dict(stride=2), dict(padding=0),
                                     dict(bias=False, root_weight=True),
                                     dict(stride=(1, 2, 1), padding=1)])
def test_to_conv2d(options, cls):
    conv = make('SO(2)', (1, 5, 3), cls, **options).eval()
    plain, x = conv.to_conv2d(), images(conv.in_type, (1, 9, 6))
    assert type(plain) is torch.nn.Conv2d and plain.kernel_size == (5, 3)
    assert plain.weight.requires_grad
    expected = conv(x)
    assert torch.allclose(plain(x[:, :, 0]), expected[:, :, 0], rtol=0,
                          atol=1e-12)
    plain.weight.data.zero_()  # shares nothing
    assert torch.equal(conv(x), expected)


def test_transposed_to_conv2d():
    conv = make('SO(2)', (1, 5, 3), LatticeSteerableConvTranspose, stride=2)
    plain, x = conv.to_conv_transpose2d(), images(conv.in_type, (1, 4, 5))
    assert type(plain) is torch.nn.ConvTranspose2d
    assert torch.allclose(plain(x[:, :, 0]), conv(x)[:, :, 0], rtol=0,
                          atol=1e-12)
    assert torch.allclose(
        plain(x[:, :, 0], output_size=(8, 10)),
        conv(x, size=(1, 8, 10))[:, :, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize('make,words', [
    (lambda: LatticeSteerableConv(ONE, VECTOR, 5).to_conv2d(),
     ["'kernel_size'", 'along z', '(1, 5, 5)']),
    (lambda: LatticeSteerableConv(ONE, ONE, (1, 3, 3),
                                  padding=(1, 1, 1)).to_conv2d(),
     ["'padding' 0", 'along z']),
    (lambda: LatticeSteerableConvTranspose(ONE, ONE, (1, 3, 3)).to_conv2d(),
     ["'to_conv_transpose2d'"]),
    (lambda: LatticeSteerableConvTranspose(
        ONE, ONE, 3).to_conv_transpose2d(), ["'kernel_size'", 'along z']),
    (lambda: LatticeSteerableConv(ONE, ONE, (1, 5, 5))(
        torch.randn(1, 1, 1, 4, 5)), ["'kernel_size'", '(1, 4, 5)']),
    (lambda: LatticeSteerableConv(ONE, ONE, (1, 4, 5)), ["'kernel_size'"]),
    (lambda: LatticeSteerableConv(ONE, ONE, 3)(
        LATTICE.x, LATTICE), ["'kernel_size'", 'got (1, 3, 3), 1 and']),
    (lambda: LatticeSteerableConv(ONE, ONE, (1, 3, 3), spacing=(1, 1, 2))(
        LATTICE.x, LATTICE), ["'spacing'", '(1.0, 1.0, 2.0)']),
])
def test_bad_input(make, words):
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    assert all(word in str(error.value) for word in words)


LATTICE = voxel_to_graph(torch.randn(1, 1, 5, 5), (1, 3, 3),
                         spacing=(7., 2., 2.))


def test_thin_axes_have_no_spacing():
    conv = LatticeSteerableConv(ONE, VECTOR, (1, 3, 3))  # the spacing is one
    out = conv(LATTICE.x, LATTICE)
    expected = conv.to_conv2d()(LATTICE.scatter(LATTICE.x)[:, :, 0])
    assert torch.allclose(out, LATTICE.gather(expected.unsqueeze(2)),
                          atol=1e-6)


def test_stacks_of_planar_layers():
    types = [FieldType(t, 'SO(2)') for t in ('0e', '2x0e + 1x1o', '3x0e')]
    for smooth in (False, True):
        net = lattice_stack(types, [2, 1], smooth=smooth,
                            kernel_size=(1, 5, 5)).double()
        x = images(types[0], (1, 13, 13))
        out = net(x)
        assert out.shape == (2, 3, 1, 7, 7)
        assert torch.allclose(net(x.rot90(1, (3, 4))), out.rot90(1, (3, 4)),
                              atol=1e-10)
        # Images of a stack do not see each other.
        both = torch.cat([*x.split(1)], dim=2)
        assert torch.allclose(net(both)[0], out[:, :, 0].transpose(0, 1))


def test_gradients_reach_all_that_counts():
    block = LatticeBlock(FieldType('0e', 'SO(2)'),
                         FieldType('2x0e + 1x1o', 'SO(2)'), (1, 5, 5)).double()
    block(images(block.in_type)).square().sum().backward()
    kernel = block.conv.kernel
    counts = (kernel.scale != 0)[kernel.element]
    assert torch.equal(kernel.product.weight.grad != 0, counts)


def test_stencils_of_layers_are_stencils():
    conv = LatticeSteerableConv(ONE, ONE, (1, 3, 5), stride=2,
                                spacing=(2., 1., 1.))
    assert conv.stencil == Stencil((1, 3, 5), 2, spacing=(2., 1., 1.))
    assert repr(conv).endswith('kernel_size=(1, 3, 5), stride=(1, 2, 2))')


@pytest.mark.parametrize('options', [
    dict(kernel_size=(1, 5, 5), stride=2), dict(kernel_size=(3, 1, 3)),
    dict(kernel_size=(1, 3, 5), stride=(1, 2, 1), padding=(0, 0, 2)),
    dict(kernel_size=3, stride=(2, 1, 1)),
    dict(kernel_size=(1, 3, 3), spacing=(3., 2., 2.))])
@pytest.mark.parametrize('group', ['O(3)', 'D4', 'SO(2)'])
def test_the_helper_knows_boxes(group, options):
    conv = LatticeSteerableConv(FieldType('2x0e + 1x1o', group),
                                FieldType('1x0e + 1x1o + 1x2e', group),
                                **options)
    assert_equivariant(conv)
    wrong = torch.randn(conv.dense_weight().shape)
    conv._dense_maps = lambda x=None: (wrong.to(conv.dtype), None)
    with pytest.raises(AssertionError):
        assert_equivariant(conv)


@pytest.mark.parametrize('size,stride', [((1, 5, 5), 2), (5, (2, 1, 2)),
                                         ((5, 5, 1), (3, 2, 1))])
def test_transposed_outputs_have_variance_one(size, stride):
    # Only one offset in so many leads to a voxel.
    torch.manual_seed(0)
    conv = LatticeSteerableConvTranspose(
        FieldType('16x0e', 'SO(2)'), FieldType('200x0e', 'SO(2)'), size,
        stride=stride, bias=False)
    x = torch.randn(8, 16, *(9 if s > 1 else 1 for s in
                             conv.stencil.kernel_size))
    out = conv(x)
    inside = [slice(4, -4) if s > 1 else slice(None)
              for s in conv.stencil.kernel_size]
    assert 0.7 < float(out[(..., *inside)].detach().var()) < 1.4
