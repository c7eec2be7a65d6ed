import math

import pytest
import torch
from helpers.pool import BATCH, SIZE, points

from pyg_steerable import Group
from pyg_steerable.nn import (
    farthest_downsample,
    random_downsample,
)


@pytest.mark.parametrize('downsample', [random_downsample,
                                        farthest_downsample])
@pytest.mark.parametrize('ratio', [0.01, 0.4, 0.5, 1, 1.])
def test_downsampling_keeps_a_share_of_each_cloud(downsample, ratio):
    index = downsample(points(), BATCH, ratio)
    assert index.unique().numel() == index.numel()
    assert BATCH[index].diff().ge(0).all()
    count = BATCH.bincount(minlength=SIZE)
    kept = BATCH[index].bincount(minlength=SIZE)
    assert kept.tolist() == [math.ceil(ratio * int(n)) for n in count]


@pytest.mark.parametrize('downsample', [random_downsample,
                                        farthest_downsample])
def test_downsampling_of_one_cloud_and_of_none(downsample):
    assert downsample(points(9)).shape == (5, )
    assert downsample(points(0)).shape == (0, )
    assert downsample(points(0), BATCH[:0]).shape == (0, )
    for ratio in (1.5, 0, -1, float('nan')):
        with pytest.raises(ValueError, match="'ratio'"):
            downsample(points(), BATCH, ratio)
    with pytest.raises(ValueError, match=r"'batch' of shape \[12\]"):
        downsample(points(), BATCH[1:])
    with pytest.raises(ValueError, match=r"'batch' in \[0, "):
        downsample(points(), BATCH - 2 * (BATCH == 0).long())
    with pytest.raises(TypeError, match="'batch' to .* Convert it with"):
        downsample(points(), BATCH.double())


def test_random_downsampling_is_uniform_and_reproducible():
    pos, hits = points(), torch.zeros(len(BATCH))
    generator = torch.Generator().manual_seed(1)
    first = random_downsample(pos, BATCH, 0.5, generator)
    for _ in range(400):
        hits[random_downsample(pos, BATCH, 0.5, generator)] += 1 / 400
    share = torch.tensor([3 / 5, 1., 0., 2 / 4, 1 / 2])[BATCH]
    assert (hits - share).abs().max() < 0.12  # five standard deviations
    assert torch.equal(first, random_downsample(
        pos, BATCH, 0.5, torch.Generator().manual_seed(1)))
    torch.manual_seed(7)
    first = random_downsample(pos, BATCH)
    torch.manual_seed(7)
    assert torch.equal(first, random_downsample(pos, BATCH))
    assert random_downsample(points(100), None, 0.07).shape == (7, )


def test_farthest_downsampling_spreads_in_every_orientation():
    corners = torch.tensor([[0., 0, 0], [9, 0, 0], [0, 8, 0], [0, 0, 7]])
    pos = (corners[:, None] + 0.1 * torch.rand(4, 10, 3)).view(-1, 3)
    assert sorted((farthest_downsample(pos, None, 0.1) // 10).tolist()) == [
        0, 1, 2, 3]
    pos = points(50)
    index = farthest_downsample(pos, None, 0.3, random_start=False)
    for g in Group('O(3)').sample(3):
        assert torch.equal(index, farthest_downsample(
            pos @ g.T, None, 0.3, random_start=False))
