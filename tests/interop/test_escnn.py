"""escnn as an oracle: the same groups, types, kernels and layers."""
import contextlib
import io
import pickle
import warnings

import numpy as np
import pytest
import torch

from pyg_steerable import FieldType, Group
from pyg_steerable.interop import (
    e3nn_basis,
    from_escnn,
    group_from_escnn,
    to_irreps,
)
from pyg_steerable.kernels import HarmonicBasis, SteerableKernel
from pyg_steerable.nn import ImplicitSteerableConv, Linear, SteerableConv
from pyg_steerable.symmetry.generators import rotation

with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    escnn = pytest.importorskip('escnn')
    from escnn import gspaces
    from escnn.group import o3_group
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(autouse=True)
def _seed_and_one_thread():
    """Everything here is small: threads would only wait for each other."""
    np.random.seed(0)  # where escnn draws group elements
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SPACES = {
    'SO(3)': lambda: gspaces.rot3dOnR3(),
    'O(3)': lambda: gspaces.flipRot3dOnR3(),
    'SO(2)': lambda: gspaces.rot2dOnR3(),
    'SO(2)xM': lambda: gspaces.conicalOnR3(),
    'SO(2)xF': lambda: gspaces.dihedralOnR3(),
    'SO(2)xInv': lambda: gspaces.cylindricalOnR3(),
    'SO(2)xMxInv': lambda: gspaces.fullCylindricalOnR3(),
    'Inv': lambda: gspaces.invOnR3(),
    'M': lambda: gspaces.mirOnR3(),
    '1': lambda: gspaces.trivialOnR3(),
    'C4': lambda: gspaces.rot2dOnR3(4),
    'D4': lambda: gspaces.dihedralOnR3(4),
    'C4xM': lambda: gspaces.conicalOnR3(4),
    'O': lambda: gspaces.octaOnR3(),
    'I': lambda: gspaces.icoOnR3(),
}
RINGS, WIDTH, DEGREE = [0., 0.9, 1.8], 0.5, 3
# escnn's dimensions per ring of the kernels between l_out (rows) and l_in
# (columns) = 0, 1, 2, harmonics up to degree 3.
DIMENSIONS = {
    'SO(3)': [[1, 1, 1], [1, 3, 3], [1, 3, 4]],
    'O(3)': [[1, 1, 1], [1, 2, 2], [1, 2, 2]],
    'SO(2)': [[4, 10, 14], [10, 28, 40], [14, 40, 60]],
    'SO(2)xM': [[4, 7, 9], [7, 16, 22], [9, 22, 32]],
    'SO(2)xF': [[2, 5, 7], [5, 14, 20], [7, 20, 30]],
    'SO(2)xInv': [[2, 6, 6], [6, 12, 24], [6, 24, 24]],
    'SO(2)xMxInv': [[2, 4, 4], [4, 7, 13], [4, 13, 13]],
    'Inv': [[6, 30, 30], [30, 54, 150], [30, 150, 150]],
    'M': [[10, 26, 42], [26, 74, 122], [42, 122, 202]],
    'C4': [[4, 12, 20], [12, 36, 60], [20, 60, 100]],
    'D4': [[2, 6, 10], [6, 18, 30], [10, 30, 50]],
    'O': [[1, 2, 3], [2, 6, 10], [3, 10, 17]],
    'I': [[1, 1, 1], [1, 3, 4], [1, 4, 7]],
}


def quiet(function, *args, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):  # joblib's [Memory] lines
        return function(*args, **kwargs)


def space_of(name):
    return quiet(SPACES[name])


def harmonic(space, degree):
    """escnn's irrep of O(3) of natural parity, restricted to the gspace."""
    irrep = o3_group(degree).irrep(degree % 2, degree)
    return quiet(irrep.restrict, space._sg_id)


def elements(space, n=8):
    """Group elements, with the matrices by which they act on points."""
    action = space.basespace_action
    out = [action.group.sample() for _ in range(n)]
    return out, torch.stack([torch.as_tensor(action(g)) for g in out])


def points(n=45):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64)


def escnn_kernels(in_type, out_type, x):
    """escnn's basis at points: [s, n, d_out, d_in]."""
    basis = quiet(in_type.gspace.build_kernel_basis, in_type.representation,
                  out_type.representation, [WIDTH] * len(RINGS), RINGS,
                  maximum_frequency=DEGREE)
    return basis.sample(x.float()).double().transpose(0, 1)


def rank(M):
    """The rank in the precision of escnn's float32, from squared values."""
    value = torch.linalg.eigvalsh(M @ M.T if M.shape[0] < M.shape[1] else
                                  M.T @ M)
    return int((value > 1e-8 * value[-1]).sum())


def same_span(A, B):
    """Checks rank A = rank B = rank [A B] and returns it."""
    A, B = (M.flatten(1) / M.flatten(1).norm(dim=1, keepdim=True)
            for M in (A, B))
    assert rank(A) == rank(B) == rank(torch.cat([A, B]))
    return rank(A)


@pytest.mark.parametrize('name', SPACES)
def test_group_from_escnn(name):
    space = space_of(name)
    group = group_from_escnn(space)
    assert group == Group(name)
    assert group.name == name
    assert all(group.contains(R) for R in elements(space)[1])


def test_group_from_escnn_group():
    assert group_from_escnn(escnn.group.so3_group()) == Group('SO(3)')
    assert group_from_escnn(escnn.group.octa_group()) == Group('O')
    for wrong in (escnn.group.so2_group(), gspaces.rot2dOnR2(4), 'SO(2)'):
        with pytest.raises(TypeError, match='Expected a 3-D gspace'):
            group_from_escnn(wrong)


def test_group_about_another_axis():
    adjoint = o3_group().element((0, rotation([1, 2, 0], 1.)), 'MAT')
    space = gspaces.rot2dOnR3(adjoint=adjoint)
    group, R = group_from_escnn(space), elements(space)[1]
    assert group != Group('SO(2)')
    assert group == Group('SO(2)', axis=group.axis.tolist())
    assert all(group.contains(g) for g in R)


@pytest.mark.parametrize('name', SPACES)
def test_type_from_escnn(name):
    space = space_of(name)
    reps = [harmonic(space, degree) for degree in (0, 1, 2, 1, 1)]
    reps += [space.basespace_action] * 2 + space.irreps[:3]
    if not space.fibergroup.continuous:
        reps.append(space.fibergroup.regular_representation)
    theirs = space.type(*reps)
    ours = FieldType.wrap(theirs)
    assert ours == from_escnn(theirs)
    assert ours.group == Group(name)
    assert ours.dim == theirs.size
    for g, R in zip(*elements(space)):
        expected = torch.as_tensor(theirs.representation(g))
        assert torch.allclose(ours.matrix(R), expected, atol=1e-7)


def test_irreps_are_recognised():
    space = space_of('SO(3)')
    standard = space.basespace_action
    theirs = space.type(*[space.trivial_repr] * 4, *[standard] * 2)
    assert str(to_irreps(theirs)) == '4x0e+2x1o'
    with pytest.raises(ValueError, match='O\\(3\\) irreps only'):
        to_irreps(space.type(harmonic(space, 1)))  # (y, z, x)


def test_from_escnn_wrong_input():
    space = space_of('SO(3)')
    with pytest.raises(TypeError, match='Expected an escnn FieldType'):
        from_escnn(space)
    plane = gspaces.rot2dOnR2(4)
    with pytest.raises(TypeError, match='Expected a 3-D gspace'):
        from_escnn(plane.type(plane.trivial_repr))


@pytest.mark.parametrize('name', ['SO(3)', 'O(3)'])
def test_e3nn_basis(name):
    space = space_of(name)
    fibers = space.fibergroup
    reps = [harmonic(space, degree) for degree in (2, 1, 0)]
    reps += [space.basespace_action, quiet(reps[1].tensor, reps[0])]
    reps += [fibers.bl_regular_representation(1)]
    theirs = quiet(space.type, *reps)
    ours, Q = e3nn_basis(theirs)
    eye = torch.eye(len(Q), dtype=torch.float64)
    assert torch.allclose(Q @ Q.T, eye, atol=1e-9)
    assert str(ours.irreps[:4]) == '1x2e+1x1o+1x0e+2x1o'
    R = elements(space)[1]
    expected = Q @ from_escnn(theirs).matrix(R) @ Q.T
    assert torch.allclose(ours.matrix(R), expected, atol=1e-7)


def test_e3nn_basis_of_degree_one_is_a_permutation():
    space = space_of('O(3)')
    _, Q = e3nn_basis(space.type(harmonic(space, 1)))
    yzx = torch.tensor([[0., 0., 1.], [1., 0., 0.], [0., 1., 0.]])
    assert torch.allclose(Q, yzx.double(), atol=1e-9)


def our_kernels(kernel, x):
    """Our basis at points, one kernel for each weight: [s, n, d_out, d_in]."""
    weight, kernels = kernel.double().product.weight, []
    with torch.no_grad():
        for i in range(len(weight)):
            weight.zero_()[i] = 1.
            kernels.append(kernel(x))
    return torch.stack(kernels)


def shells(group, degree=DEGREE, **kwargs):
    """The harmonic basis with escnn's rings, widths and frequencies."""
    return HarmonicBasis(group, degree, radius=RINGS[-1], shells=len(RINGS),
                         sigma=WIDTH / RINGS[1], softening=1e-6, **kwargs)


@pytest.mark.parametrize('name', DIMENSIONS)
def test_kernel_space(name):
    space, x = space_of(name), points()
    types = [space.type(harmonic(space, degree)) for degree in range(3)]
    basis = shells(name, band_limit=[DEGREE] * len(RINGS))
    for out in range(3):
        for in_ in range(3):
            theirs = escnn_kernels(types[in_], types[out], x)
            ours = our_kernels(
                SteerableKernel(basis, from_escnn(types[in_]),
                                from_escnn(types[out])), x)
            assert len(theirs) == len(ours) == same_span(theirs, ours)
            assert len(ours) == len(RINGS) * DIMENSIONS[name][out][in_]


@pytest.mark.parametrize('name', ['SO(2)', 'SO(2)xM', 'D4', 'O'])
def test_kernel_space_of_other_representations(name):
    space, x = space_of(name), points()
    in_type = space.type(space.basespace_action)
    rho = (space.irreps[1] if space.fibergroup.continuous else
           space.fibergroup.regular_representation)
    out_type = space.type(rho)
    theirs = escnn_kernels(in_type, out_type, x)
    basis = shells(name, band_limit=[DEGREE] * len(RINGS))
    ours = our_kernels(
        SteerableKernel(basis, from_escnn(in_type), from_escnn(out_type)), x)
    assert len(theirs) == len(ours) == same_span(theirs, ours) > 0


def types_of(space):
    """Two types in escnn's own representations, a regular one if it can."""
    standard, trivial = space.basespace_action, space.trivial_repr
    rho = (space.irreps[1] if space.fibergroup.continuous else
           space.fibergroup.regular_representation)
    return (space.type(trivial, trivial, standard, harmonic(space, 1)),
            space.type(harmonic(space, 2), trivial, rho, rho))


def graph(n=12, neighbors=5):
    generator = torch.Generator().manual_seed(2)
    pos = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    nearest = torch.cdist(pos, pos).topk(neighbors + 1, largest=False)[1]
    target = torch.arange(n).repeat_interleave(neighbors)
    return pos, torch.stack([nearest[:, 1:].flatten(), target])


def assert_commutes(layer, in_type, out_type, with_graph):
    """Checks a layer against escnn's own representation matrices."""
    space = in_type.gspace
    pos, edge_index = graph()
    x = torch.randn(len(pos), in_type.size, dtype=torch.float64)
    layer = layer.double().eval()

    def run(x, pos):
        return layer(x, pos, edge_index) if with_graph else layer(x)

    with torch.no_grad():
        out = run(x, pos)
        assert out.shape == (len(pos), out_type.size) and out.abs().max() > 0
        for g, R in zip(*elements(space)):
            rho_in = torch.as_tensor(in_type.representation(g))
            rho_out = torch.as_tensor(out_type.representation(g))
            moved = run(x @ rho_in.T.double(), pos @ R.T.double())
            assert torch.allclose(moved, out @ rho_out.T.double(), rtol=0,
                                  atol=1e-6 * float(out.abs().max()))


@pytest.mark.parametrize('name', SPACES)
def test_linear(name):
    in_type, out_type = types_of(space_of(name))
    ours = Linear(in_type, out_type)
    torch.nn.init.normal_(ours.bias)
    assert_commutes(ours, in_type, out_type, with_graph=False)
    point = gspaces.no_base_space(in_type.fibergroup)
    theirs = quiet(escnn.nn.Linear, point.type(*in_type.representations),
                   point.type(*out_type.representations), initialize=False)
    assert ours.weight.numel() == theirs.weights.numel()
    assert ours.bias.numel() == theirs.bias.numel()


@pytest.mark.parametrize('name', SPACES)
def test_implicit_conv(name):
    in_type, out_type = types_of(space_of(name))
    conv = ImplicitSteerableConv(in_type, out_type, hidden=4, max_degree=2)
    assert_commutes(conv, in_type, out_type, with_graph=True)


def test_layers_forget_escnn():
    """What escnn cannot: the layer pickles, for it holds only matrices."""
    in_type, out_type = types_of(space_of('O'))
    conv = ImplicitSteerableConv(in_type, out_type, hidden=2)
    again = pickle.loads(pickle.dumps(conv))
    assert again.in_type == from_escnn(in_type)
    pos, edge_index = graph()
    x = torch.randn(len(pos), in_type.size)
    assert torch.equal(conv(x, pos.float(), edge_index),
                       again(x, pos.float(), edge_index))


def test_implicit_conv_with_edge_type():
    space = space_of('SO(2)xM')
    in_type, out_type = types_of(space)
    vector = space.type(harmonic(space, 1))
    conv = ImplicitSteerableConv(in_type, out_type, edge_type=vector,
                                 hidden=4).double().eval()
    pos, edge_index = graph()
    x = torch.randn(len(pos), in_type.size, dtype=torch.float64)
    z = torch.randn(edge_index.shape[1], 3, dtype=torch.float64)
    out = conv(x, pos, edge_index, z)
    for g, R in zip(*elements(space)):
        rho = [torch.as_tensor(t.representation(g)).double()
               for t in (in_type, vector, out_type)]
        moved = conv(x @ rho[0].T, pos @ R.T, edge_index, z @ rho[1].T)
        assert torch.allclose(moved, out @ rho[2].T, rtol=0, atol=1e-6)


@pytest.mark.parametrize('name', ['SO(3)', 'O(3)', 'SO(2)', 'SO(2)xM', 'M'])
def test_conv_equals_point_conv(name):
    """Any R3PointConv of escnn is one of our convolutions."""
    space = space_of(name)
    in_type = space.type(space.trivial_repr, space.basespace_action)
    out_type = space.type(harmonic(space, 1), space.trivial_repr)
    theirs = quiet(escnn.nn.R3PointConv, in_type, out_type, bias=False,
                   rings=RINGS, sigma=[WIDTH] * len(RINGS),
                   frequencies_cutoff=lambda r: 2 if r > 0 else 0)
    basis = shells(name, degree=2)
    ours = SteerableConv(in_type, out_type, basis, aggr='mean',
                         root_weight=False, bias=False).double()
    pos, edge_index = graph(n=20, neighbors=15)
    delta = pos[edge_index[0]] - pos[edge_index[1]]
    with torch.no_grad():
        kernels = our_kernels(ours.kernel, delta).flatten(1)
        wanted = theirs.expand_filter(delta.float()).double().flatten()
        weight = torch.linalg.lstsq(kernels.T, wanted[:, None]).solution
        ours.kernel.product.weight.copy_(weight.flatten())
        x = torch.randn(len(pos), in_type.size, dtype=torch.float64)
        expected = theirs(
            escnn.nn.GeometricTensor(x.float(), in_type, pos.float()),
            edge_index).tensor
        out = ours(x, pos, edge_index)
    assert torch.allclose(out, expected.double(), atol=1e-4)
