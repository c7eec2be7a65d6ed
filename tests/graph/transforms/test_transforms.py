import copy

import pytest
import torch
from helpers.transforms import TRANSFORMS, random_cloud
from torch_geometric.data import Data
from torch_geometric.transforms import Compose


@pytest.mark.parametrize('transform', TRANSFORMS, ids=str)
def test_transforms_follow_pyg(transform):
    data = random_cloud()
    before = copy.deepcopy(data)
    torch.manual_seed(3)
    out = transform(data)
    assert isinstance(out, Data) and out is not data
    for key, value in before.to_dict().items():  # the input is untouched
        assert torch.equal(data[key], value)
    torch.manual_seed(3)
    again = transform(data)
    assert all(torch.equal(out[key], again[key]) for key in before.keys())
    assert out.pos.dtype == torch.float64
    assert not torch.equal(transform(data).pos, data.pos)
    assert Compose([transform])(data).keys() == data.keys()
