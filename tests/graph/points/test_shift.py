import pytest
import torch
from helpers.periodic import RADIUS, crystal, energy_model

from pyg_steerable.graph import (
    edge_shift,
    knn_graph,
    radius_graph,
)


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
