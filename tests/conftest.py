import pytest
import torch

# Small tensors: threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Tests are the same, whichever ran before."""
    torch.manual_seed(0)
