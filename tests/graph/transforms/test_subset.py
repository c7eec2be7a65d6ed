import numpy as np
import pytest
import torch
from helpers.transforms import random_cloud, random_graph

from pyg_steerable.graph import (
    RandomPointSubset,
)


@pytest.mark.parametrize('replace', [False, True])
def test_subset_keeps_rows_together(replace):
    data = random_cloud()
    data.tag = np.arange(12)
    data.names = [str(i) for i in range(12)]
    data.num_nodes = 12
    out = RandomPointSubset(7, replace)(data)
    index = out.part
    assert out.num_nodes == 7 and (replace or len(index.unique()) == 7)
    for name in ('pos', 'normal', 'x'):
        assert torch.equal(out[name], data[name][index])
    assert out.tag.tolist() == index.tolist()
    assert out.names == [str(int(i)) for i in index]
    assert torch.equal(out.y, data.y) and torch.equal(out.category,
                                                      data.category)


def test_subsets_are_uniform():
    data, hits = random_cloud(), torch.zeros(12)
    for _ in range(400):
        hits[RandomPointSubset(3)(data).part] += 1 / 400
    assert (hits - 3 / 12).abs().max() < 0.11  # five standard deviations


def test_clouds_of_few_points():
    data = random_cloud(4)
    assert RandomPointSubset(4)(data).part.sort().values.tolist() == [
        0, 1, 2, 3]
    assert RandomPointSubset(9, replace=True)(data).pos.shape == (9, 3)
    with pytest.raises(ValueError, match='at least 5 points .got 4'):
        RandomPointSubset(5)(data)
    with pytest.raises(ValueError, match='at least 1 points .got 0'):
        RandomPointSubset(5, replace=True)(random_cloud(0))
    with pytest.raises(ValueError, match='before building a graph'):
        RandomPointSubset(5)(random_graph())
    for num in (0, 2.5, True):
        with pytest.raises(ValueError, match="'num' to be an integer"):
            RandomPointSubset(num)
