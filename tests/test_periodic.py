"""Periodic edges through layers, transforms, levels and models."""
import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.nn import HeteroConv

from pyg_steerable import FieldType, Group
from pyg_steerable.graph import (
    AnisotropicScale,
    Jitter,
    KNNGraph,
    Normalise,
    RadiusGraph,
    RandomGroupElement,
    RandomPointSubset,
    edge_shift,
    knn_graph,
    radius_graph,
)
from pyg_steerable.models import (
    ModelNetClassifier,
    ModelNetSegmenter,
    QM9Net,
)
from pyg_steerable.nn import (
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    NormGate,
    SteerableConv,
    calibrate,
    hierarchy,
    interpolate,
)

CONVS = [ImplicitSteerableConv, HarmonicSteerableConv]
RADIUS = 2.6
#: Other lattice vectors of the same lattice: determinants +1 and -1.
UNIMODULAR = torch.tensor([[[1, 1, 0], [0, 1, 0], [0, 0, 1]],
                           [[1, 0, -1], [2, 1, 0], [0, 1, 1]],
                           [[0, 1, 0], [1, 0, 0], [0, 0, 1]]]).double()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def crystal(n=7, dim=5):
    """Atoms, with some outside of the cell, of a skewed lattice."""
    cell = 2.5 * torch.eye(3) + 0.5 * torch.randn(3, 3)
    pos = 2 * torch.rand(n, 3).double() @ cell.double()
    x = torch.eye(dim).double()[torch.randint(dim, (n, ))]
    return x, pos, cell.double()


def edges(pos, cell, **kwargs):
    edge_index, offset = radius_graph(pos.detach(), RADIUS, cell=cell.detach(),
                                      **kwargs)
    return edge_index, edge_shift(offset, cell)


def convolution(cls, **kwargs):
    conv = cls('2x0e + 1x1o', '1x0e + 2x1o + 1x2e', group='O(3)', radius=1.5,
               **kwargs)
    return conv.double().eval()


# Layers ####################################################################


@pytest.mark.parametrize('cls', CONVS)
@pytest.mark.parametrize('order', ['aggregate', 'source', 'reference'])
@pytest.mark.parametrize('aggr', ['sum', 'mean'])
def test_a_shift_is_another_place_of_the_neighbour(cls, order, aggr):
    """Images as nodes of their own give the same."""
    _, pos, cell = crystal()
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    assert (edge_index[0] == edge_index[1]).any()  # of an atom to its image
    conv = convolution(cls, order=order, aggr=aggr)
    out = conv(x, pos, edge_index, edge_shift=shift)
    source, target = edge_index
    alone = torch.stack([torch.arange(len(source)), target])
    expected = conv((x[source], x), (pos[source] + shift, pos), alone)
    assert torch.allclose(out, expected, atol=1e-12)
    assert (out - conv(x, pos, edge_index)).abs().max() > 1e-2


@pytest.mark.parametrize('cls', CONVS)
@pytest.mark.parametrize('order', ['auto', 'reference'])
def test_shift_and_flow(cls, order):
    _, pos, cell = crystal()
    x = torch.randn(len(pos), 5).double()
    forth = convolution(cls, order=order)
    back = convolution(cls, order=order, flow='target_to_source')
    back.load_state_dict(forth.state_dict())
    edge_index, shift = edges(pos, cell)
    turned, same = edges(pos, cell, flow='target_to_source')
    assert torch.equal(turned, edge_index.flip(0)) and torch.equal(same,
                                                                   shift)
    out = forth(x, pos, edge_index, edge_shift=shift)
    assert torch.allclose(back(x, pos, turned, edge_shift=same), out,
                          atol=1e-12)
    # The same between two sets of nodes.
    pair, x_pair = (pos, pos.clone()), (x, x)
    assert torch.allclose(forth(x_pair, pair, edge_index, edge_shift=shift),
                          out, atol=1e-12)
    assert torch.allclose(back(x_pair, pair, turned, edge_shift=same), out,
                          atol=1e-12)


@pytest.mark.parametrize('cls', CONVS)
def test_shifts_rotate(cls):
    _, pos, cell = crystal()
    conv = convolution(cls)
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    out = conv(x, pos, edge_index, edge_shift=shift)
    for R in Group('O(3)').sample(3):
        moved = conv(conv.in_type.transform(x, R), pos @ R.T + 1, edge_index,
                     edge_shift=shift @ R.T)
        assert torch.allclose(moved, conv.out_type.transform(out, R),
                              atol=1e-10)


def test_hooks_compile_and_hetero_take_shifts():
    _, pos, cell = crystal()
    conv = convolution(HarmonicSteerableConv)
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    out = conv(x, pos, edge_index, edge_shift=shift)
    handle = conv.register_message_forward_hook(lambda *args: args[-1])
    assert torch.allclose(conv(x, pos, edge_index, edge_shift=shift), out)
    handle.remove()
    whole = torch.compile(conv, fullgraph=True, backend='aot_eager')
    assert torch.allclose(whole(x, pos, edge_index, edge_shift=shift), out)
    key = ('a', 'to', 'a')
    hetero = HeteroConv({key: conv})
    got = hetero({'a': x}, {'a': pos}, {key: edge_index},
                 edge_shift_dict={key: shift})
    assert torch.allclose(got['a'], out)


def test_precision_of_shifts():
    """Half precision positions are not added up in it."""
    conv = convolution(HarmonicSteerableConv).float()
    x, pos = torch.randn(2, 5), torch.tensor([[0., 0, 0], [100.3, 0, 0]])
    edge_index = torch.tensor([[1], [0]])
    near = conv(x, torch.tensor([[0., 0, 0], [.3125, 0, 0]]), edge_index)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        p = pos.to(dtype)
        shift = torch.tensor([[0.3125 - float(p[1, 0]), 0, 0]])
        moved = conv(x, p, edge_index, edge_shift=shift)
        assert moved.dtype == torch.float32
        assert torch.allclose(moved, near, atol=1e-4)


def test_bad_shifts():
    _, pos, cell = crystal()
    conv = convolution(HarmonicSteerableConv)
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    for bad, error, words in [
            (shift[1:], ValueError, r"'edge_shift' of shape \[\d+, 3\], one"),
            (shift[:, :2], ValueError, "'edge_shift' of shape"),
            (shift.long(), TypeError, "'edge_shift' to be a tensor"),
            ('up', TypeError, "'edge_shift' to be a tensor"),
            (shift.to('meta'), ValueError, "'edge_shift' on meta")]:
        with pytest.raises(error, match=words):
            conv(x, pos, edge_index, edge_shift=bad)
    adj = torch.sparse_coo_tensor(edge_index.flip(0),
                                  torch.ones(len(shift)).double())
    with pytest.raises(ValueError, match="no 'edge_shift' with a sparse"):
        conv(x, pos, adj, edge_shift=shift)
    conv.validate = True
    with pytest.raises(ValueError, match="'edge_shift' to be finite"):
        conv(x, pos, edge_index, edge_shift=shift / 0)


# From offsets to shifts ####################################################


def test_edge_shift():
    _, pos, cell = crystal()
    edge_index, offset = knn_graph(pos, 4, cell=cell)
    shift = edge_shift(offset, cell)
    near = pos[edge_index[0]] + shift - pos[edge_index[1]]
    # No image is nearer than the nearest.
    steps = torch.cartesian_prod(*3 * [torch.arange(-5., 6)]).double() @ cell
    every = (pos[:, None, None] + steps - pos[:, None]).norm(dim=-1)
    every = every.transpose(0, 1).flatten(1).sort(1).values[:, 1:5]
    found = torch.zeros_like(every)
    place = torch.arange(len(near)) % 4
    found[edge_index[1], place] = near.norm(dim=1)
    assert torch.allclose(found, every)
    assert torch.equal(edge_shift(offset, cell[None]), shift)
    # Many cells, in any form.
    cells, batch = torch.stack([cell, 2 * cell]), torch.arange(
        len(offset)) % 2
    expected = shift * (1 + batch[:, None])
    for c in (cells, cells.reshape(6, 3)):
        assert torch.allclose(edge_shift(offset, c, batch), expected)
    assert torch.equal(edge_shift(offset, cell, 0 * batch), shift)
    cell.requires_grad_()
    assert torch.autograd.gradcheck(lambda c: edge_shift(offset, c), cell)
    assert edge_shift(offset[:0], cell).shape == (0, 3)


@pytest.mark.parametrize('args, error, match', [
    ((torch.zeros(4, 2), torch.eye(3)), ValueError, "'offset' of shape"),
    ((torch.zeros(4, 3), torch.eye(2)), ValueError, "'cell' of shape"),
    ((torch.zeros(4, 3), torch.eye(3).long()), TypeError, "'cell' to be"),
    ((torch.zeros(4, 3), None), TypeError, "'cell' to be"),
    ((torch.zeros(4, 3), torch.ones(2, 3, 3)), ValueError, "'batch'"),
    ((torch.zeros(4, 3), torch.ones(2, 3, 3), torch.tensor([0, 1, 2, 0])),
     ValueError, r"'batch' in \[0, 2\)"),
    ((torch.zeros(4, 3), torch.ones(2, 3, 3), torch.tensor([0, 1])),
     ValueError, 'cloud of each edge'),
])
def test_bad_offsets(args, error, match):
    with pytest.raises(error, match=match):
        edge_shift(*args)


def test_stress():
    """The derivative of the energy in a strain of everything."""
    model = energy_model()
    x, pos, cell = crystal()
    edge_index, offset = radius_graph(pos, RADIUS, cell=cell)

    def energy(strain):
        F = torch.eye(3).double() + strain
        return model(x, pos @ F, edge_index,
                     edge_shift=edge_shift(offset, cell @ F)).sum()

    strain = torch.zeros(3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(energy, strain, atol=1e-6)
    stress, = torch.autograd.grad(energy(strain), strain)
    assert torch.allclose(stress, stress.T, atol=1e-10)  # by invariance
    assert stress.abs().max() > 1e-3


# Models ####################################################################


def energy_model(**options):
    """A random network, with statistics of data."""
    model = QM9Net(**{'blocks': 1, 'pool': 'sum', **options}).double()
    x, pos, cell = crystal()
    edge_index, shift = edges(pos, cell)
    calibrate(model, x, pos, edge_index, edge_shift=shift)
    return model.eval()


def energy_and_forces(model, x, pos, cell):
    pos = pos.clone().requires_grad_()
    edge_index, shift = edges(pos, cell)
    energy = model(x, pos, edge_index, edge_shift=shift).sum()
    force, = torch.autograd.grad(-energy, pos)
    return energy.detach() / len(pos), force


@pytest.mark.parametrize('options', [
    dict(), dict(atom_dim=5), dict(kernel='harmonic'),
    dict(group='SO(3)', max_degree=2)], ids=str)
def test_crystals(options):
    model = energy_model(**options)
    x, pos, cell = crystal()
    energy, force = energy_and_forces(model, x, pos, cell)
    assert force.abs().max() > 1e-3

    def same(x, pos, cell, copies=1):
        e, f = energy_and_forces(model, x, pos, cell)
        assert abs(e - energy) < 1e-10 and f.shape[0] == copies * len(force)
        assert (f - force.repeat(copies, 1)).abs().max() < 1e-10

    # Single atoms go to other cells.
    same(x, pos + torch.randint(-3, 4, (len(pos), 3)).double() @ cell, cell)
    same(x, pos + torch.randn(3).double(), cell)
    for U in UNIMODULAR:
        same(x, pos, U @ cell)
    for axis in range(3):  # supercells
        double = cell.clone()
        double[axis] *= 2
        same(x.repeat(2, 1), torch.cat([pos, pos + cell[axis]]), double, 2)
    # And to other orientations.
    group = Group(options.get('group', 'O(3)'))
    for R in group.sample(3):
        e, f = energy_and_forces(model, x, pos @ R.T, cell @ R.T)
        assert abs(e - energy) < 1e-10
        assert (f - force @ R.T).abs().max() < 1e-10
    # Something depends on the images.
    edge_index, _ = edges(pos, cell)
    assert abs(model(x, pos, edge_index).sum() / len(pos) - energy) > 1e-4


def test_partly_periodic():
    """A slab: images in the plane, none above."""
    model = energy_model()
    x, pos, cell = crystal()

    def energy(pos, cell):
        edge_index, offset = radius_graph(pos, RADIUS, cell=cell,
                                          pbc=[True, True, False])
        assert not offset[:, 2].any()
        return model(x, pos, edge_index, edge_shift=edge_shift(offset, cell))

    moved = pos + torch.randint(-3, 4, (7, 2)).double() @ cell[:2]
    assert (energy(pos, cell) - energy(moved, cell)).abs().max() < 1e-9
    assert (energy(pos, cell) - energy(pos + torch.randint(
        -3, 4, (7, 1)).double() * cell[2], cell)).abs().max() > 1e-4


@pytest.mark.parametrize('cls', [ModelNetClassifier, ModelNetSegmenter])
def test_levels_of_crystals(cls):
    T = FieldType('3x0e', 'O(3)')
    model = cls(4, T, group='O(3)', channels=3, ratios=(1., 0.5), k=5,
                activation=NormGate, num_points=10).double()
    (_, p1, c1), (_, p2, c2) = crystal(9), crystal(8)
    pos, batch = torch.cat([p1, p2]), torch.tensor(9 * [0] + 8 * [1])
    cell, x = torch.stack([c1, c2]), torch.randn(17, 3).double()
    calibrate(model, pos, batch, x, cell=cell)
    model.eval()

    def logits(pos, cell):
        torch.manual_seed(0)  # keeps the same points
        return model(pos, batch, x, cell=cell)

    out = logits(pos, cell)
    steps = torch.randint(-3, 4, (17, 1, 3)).double()
    assert torch.allclose(out, logits(pos + (steps @ cell[batch])[:, 0],
                                      cell), atol=1e-10)
    for U in UNIMODULAR:
        assert torch.allclose(out, logits(pos, U @ cell), atol=1e-10)
    R = Group('O(3)').sample(1)[0]
    assert torch.allclose(out, logits(pos @ R.T, cell @ R.T), atol=1e-10)
    assert (out - logits(pos, 1.1 * cell)).abs().max() > 1e-6
    torch.manual_seed(0)
    levels = model.levels(pos, batch, cell=cell)
    assert torch.allclose(model(pos, batch, x, levels=levels), out)
    with pytest.raises(ValueError, match="'in_type', for clouds in a 'cell'"):
        cls(4, channels=3)(pos.float(), batch, cell=cell)
    with pytest.raises(ValueError, match="'sampling' to be 'random'"):
        hierarchy(pos, batch, sampling='fps', cell=cell)


def test_interpolation_in_a_cell():
    _, pos, cell = crystal(12)
    x, y = torch.randn(12, 4).double(), torch.randn(5, 3).double()
    out = interpolate(x, pos, y, cell=cell)
    for shift in torch.randint(-3, 4, (3, 12, 3)).double() @ cell:
        assert torch.allclose(interpolate(x, pos + shift, y, cell=cell), out)
    assert torch.allclose(interpolate(x, pos, pos + cell[0], cell=cell), x)
    assert (interpolate(x, pos, y) - out).abs().max() > 1e-3
    batch = torch.arange(12) % 2
    two = interpolate(x, pos, y, batch, torch.arange(5) % 2,
                      cell=torch.stack([cell, 2 * cell]))
    for k in range(2):
        one = interpolate(x[batch == k], pos[batch == k], y[k::2],
                          cell=(1 + k) * cell)
        assert torch.allclose(two[k::2], one)


# Data ######################################################################


def sample(n=7):
    x, pos, cell = crystal(n)
    return Data(x=x, pos=pos, cell=cell[None])


@pytest.mark.parametrize('graph', [RadiusGraph(RADIUS), KNNGraph(6)], ids=str)
def test_transforms_write_shifts(graph):
    data = graph(sample())
    search = (lambda d: radius_graph(d.pos, RADIUS, cell=d.cell[0])) if (
        isinstance(graph, RadiusGraph)) else (
        lambda d: knn_graph(d.pos, 6, cell=d.cell[0]))
    edge_index, offset = search(data)
    assert torch.equal(data.edge_index, edge_index)
    assert torch.allclose(data.edge_shift, offset.double() @ data.cell[0])
    # Before and after batching, and back.
    many = [sample(n) for n in (5, 8, 3)]
    before = next(iter(DataLoader([graph(d) for d in many], 3)))
    after = graph(Batch.from_data_list(many))
    assert before.cell.shape == (3, 3, 3)

    def rows(b):
        return sorted((*i, *(round(a, 9) + 0. for a in s)) for i, s in zip(
            b.edge_index.T.tolist(), b.edge_shift.tolist()))

    assert rows(before) == rows(after)
    for one, d in zip(before.to_data_list(), many):
        assert rows(one) == rows(graph(d))
    # Old attributes of edges go, other ones stay.
    data.edge_attr = torch.ones(data.num_edges, 1)
    del data.cell
    again = graph(data)
    assert 'edge_attr' not in again and 'edge_shift' not in again
    assert torch.equal(again.x, data.x)
    assert graph(Data(pos=torch.zeros(0, 3))).edge_index.shape == (2, 0)
    assert str(graph) in ('RadiusGraph(2.6)', 'KNNGraph(6)')


def test_cells_and_axes_in_every_form():
    x, pos, cell = crystal()
    axes = torch.tensor([True, False, True])
    graph = RadiusGraph(RADIUS)
    expected = radius_graph(pos, RADIUS, cell=cell, pbc=axes)[0]
    for c in (cell, cell[None]):
        for p in (axes, axes[None], axes.tolist(), axes.int()):
            data = Data(pos=pos, cell=c, pbc=p)
            assert torch.equal(graph(data).edge_index, expected)
        for flag, same in ((True, [True] * 3), (False, [False] * 3)):
            data = Data(pos=pos, cell=c, pbc=flag)
            assert torch.equal(graph(data).edge_index, radius_graph(
                pos, RADIUS, cell=cell, pbc=same)[0])
    # Three of them, where one value for each looks like one for each axis.
    many = [Data(pos=pos, cell=cell[None], pbc=flag)
            for flag in (True, False, False)]
    batch = graph(Batch.from_data_list(many))
    first = batch.edge_index[0] < len(pos)
    assert int(first.sum()) == graph(many[0]).num_edges
    assert batch.edge_shift[first].any() and not batch.edge_shift[~first].any()
    with pytest.raises(ValueError, match="'data.pbc' of shape"):
        graph(Data(pos=pos, cell=cell, pbc=axes[:2]))
    with pytest.raises(ValueError, match="'cell' of shape"):
        graph(Data(pos=pos, cell=cell[:2]))
    with pytest.raises(ValueError, match="'data.cell' of shape"):
        graph(Data(pos=pos, cell=torch.stack([cell, cell])))


def test_augmentations_move_cells_and_shifts():
    model = energy_model()
    data = RadiusGraph(RADIUS)(sample())

    def vectors(d):
        i, j = d.edge_index[1], d.edge_index[0]
        return d.pos[j] + d.edge_shift - d.pos[i]

    def energy(d):
        return model(d.x, d.pos, d.edge_index, edge_shift=d.edge_shift)

    turned = RandomGroupElement('O(3)')(data)
    g = torch.linalg.lstsq(data.pos, turned.pos).solution
    assert torch.allclose(vectors(turned), vectors(data) @ g)
    assert torch.allclose(turned.cell, data.cell @ g)
    assert torch.allclose(energy(turned), energy(data), atol=1e-10)
    for transform in (AnisotropicScale(), Normalise()):
        scaled = transform(data)
        factor = vectors(scaled) / vectors(data)
        assert torch.allclose(factor, factor[:1].expand_as(factor))
        assert torch.allclose(scaled.cell, data.cell * factor[0])
        again = RadiusGraph(RADIUS * float(factor[0, 0]))(scaled)
        if isinstance(transform, Normalise):
            assert again.num_edges == data.num_edges
    moved = Jitter()(data)
    assert torch.equal(moved.edge_shift, data.edge_shift)
    assert torch.equal(moved.cell, data.cell)
    # Three points do not make the cell an attribute of points.
    few = Data(pos=torch.randn(3, 3), cell=torch.eye(3),
               pbc=torch.tensor([True, False, True]))
    kept = RandomPointSubset(2)(few)
    assert kept.cell.shape == (3, 3) and kept.pbc.shape == (3, )


def test_bad_data_of_transforms():
    for graph in (RadiusGraph(1.), KNNGraph(2)):
        for bad in (None, HeteroData(), 'data', Data(x=torch.ones(3, 3))):
            with pytest.raises((TypeError, ValueError), match="'data"):
                graph(bad)
    for cls in (RadiusGraph, KNNGraph):
        for bad in (-1, 'a', None, float('nan')):
            with pytest.raises((TypeError, ValueError), match="'(r|k)'"):
                cls(bad)
        with pytest.raises(ValueError, match="'flow'"):
            cls(3, flow='down')
        with pytest.raises(TypeError, match="'loop'"):
            cls(3, loop=1)


def test_a_basis_of_ones_own_takes_shifts():
    from pyg_steerable.kernels import HarmonicBasis
    T = FieldType('1x0e')
    conv = SteerableConv(T, T, HarmonicBasis('O(3)', 0, radius=2.))
    x, pos = torch.ones(1, 1), torch.zeros(1, 3)
    loop = torch.zeros(2, 1, dtype=torch.long)
    here = conv(x, pos, loop)
    there = conv(x, pos, loop, edge_shift=torch.tensor([[0., 0, 1]]))
    assert (here - there).abs().max() > 1e-3
