import pytest
import torch
from helpers.periodic import RADIUS, crystal, edges, energy_model

from pyg_steerable import FieldType, Group
from pyg_steerable.graph import (
    edge_shift,
    radius_graph,
)
from pyg_steerable.models import (
    ModelNetClassifier,
    ModelNetSegmenter,
)
from pyg_steerable.nn import (
    NormGate,
    calibrate,
    hierarchy,
    interpolate,
)

#: Other lattice vectors of the same lattice: determinants +1 and -1.
UNIMODULAR = torch.tensor([[[1, 1, 0], [0, 1, 0], [0, 0, 1]],
                           [[1, 0, -1], [2, 1, 0], [0, 1, 1]],
                           [[0, 1, 0], [1, 0, 0], [0, 0, 1]]]).double()


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
