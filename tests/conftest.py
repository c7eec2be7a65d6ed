import pytest
import torch

from pyg_steerable.ops import lattice_edges

# Small tensors: threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Tests are the same, whichever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def lattice_order(request, monkeypatch):
    """Makes all of the edges go by runs, or by rows."""
    monkeypatch.setattr(lattice_edges, '_prefers_runs',
                        lambda *args: request.param == 'runs')
    return request.param
