"""Pools and searches read batches in one way."""
import pytest
import torch

from pyg_steerable.graph import fps, knn_graph
from pyg_steerable.graph.points.batch import MOST, largest_index, read_batch
from pyg_steerable.graph.points.clouds import read_clouds
from pyg_steerable.nn import random_downsample


def test_sizes():
    x, batch = torch.randn(6, 3), torch.tensor([2, 0, 2, 2, 0, 4])
    for dtype in (torch.long, torch.int32, torch.uint8):
        index, size = read_batch(batch.to(dtype), x, None)
        assert index.dtype == torch.long and size == 5
        assert torch.equal(index, batch)
    assert read_batch(batch, x, 9)[1] == 9
    index, size = read_batch(None, x, None)
    assert size == 1 and not index.any() and index.shape == (6, )
    assert read_batch(None, x, 3)[1] == 3
    assert read_batch(batch[:0], x[:0], None)[1] == 0
    assert read_batch(None, x[:0], 0)[1] == 0
    assert largest_index('batch', batch, 5) == 4
    assert largest_index('batch', batch[:0], 5) == -1


@pytest.mark.parametrize('read', [
    lambda batch, x, size: read_batch(batch, x, size),
    lambda batch, x, size: read_clouds('x', 'batch', x, batch, size),
], ids=['pools', 'searches'])
@pytest.mark.parametrize('batch, size, match', [
    ([0, 0, 2], 2, r"'batch' in \[0, 2\) \(got values from 0 to 2"),
    ([0, -1, 0], None, 'got values from -1 to 0'),
    ([0, 0, MOST], None, rf"'batch' in \[0, {MOST}\)"),
    ([0, 0], None, r"'batch' of shape \[3\], the cloud of each point"),
    ([0, 0, 0], 0, "'batch_size' to be an integer, >= 1"),
    (None, 0, "'batch_size' to be an integer, >= 1"),
    (None, MOST + 1, "'batch_size' to be an integer"),
])
def test_wrong_ones(read, batch, size, match):
    batch = None if batch is None else torch.tensor(batch)
    with pytest.raises(ValueError, match=match):
        read(batch, torch.randn(3, 3), size)


def test_as_many_clouds_as_points():
    """Beyond the limit for a few points."""
    x = torch.zeros(MOST + 3, 1)
    assert read_batch(torch.arange(len(x)), x, None)[1] == len(x)
    clouds, _ = read_clouds('x', 'batch', x, torch.arange(len(x)), None)
    assert clouds.size == len(x)


def test_functions_agree_on_errors():
    x, batch = torch.randn(4, 3), torch.tensor([0, 0, -1, 1])
    for call in (lambda: knn_graph(x, 2, batch), lambda: fps(x, batch),
                 lambda: random_downsample(x, batch)):
        with pytest.raises(ValueError, match="'batch' in .* from -1 to 1"):
            call()
