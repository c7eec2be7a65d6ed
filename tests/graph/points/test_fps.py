import math

import numpy as np
import pytest
import torch
from helpers.neighbors import DTYPES

from pyg_steerable.graph import (
    fps,
)

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*fewer than k:UserWarning'),
    pytest.mark.filterwarnings('ignore:.*torch_cluster.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*are about as far apart:UserWarning'),
]


def fps_oracle(x, batch, ratio, first):
    out = []
    for b in range(int(batch.max()) + 1):
        own = (batch == b).nonzero()[:, 0]
        chosen = [first[b]] if len(own) else []
        while len(chosen) < math.ceil(ratio * len(own) - 1e-6):
            far = (x[own][:, None] - x[chosen]).norm(dim=2).amin(1)
            chosen.append(int(own[far.argmax()]))
        out += chosen
    return out


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('ratio', [.1, .5, 1.])
@pytest.mark.parametrize('engine_name', [
    'auto', pytest.param('torch_cluster', marks=pytest.mark.cluster)])
def test_fps(dtype, ratio, engine_name):
    if engine_name == 'torch_cluster':
        pytest.importorskip('torch_cluster')
    x = torch.randn(90, 3, dtype=dtype)
    batch = torch.tensor([0, 1, 1, 1, 1, 3, 4, 4])[torch.randint(8, (90, ))]
    for _ in range(2):
        first = {int(b): int((batch == b).nonzero()[0])
                 for b in batch.unique()}
        out = fps(x, batch, ratio, random_start=False, engine=engine_name)
        assert out.tolist() == fps_oracle(x, batch, ratio, first)
        batch = batch.sort().values
    out = fps(x, batch, ratio, engine=engine_name)
    counts = torch.bincount(batch)
    ends = (ratio * counts.double() - 1e-6).ceil().long().cumsum(0).tolist()
    starts = [0, *ends]
    first = {b: int(out[starts[b]]) for b in range(5) if counts[b]}
    assert all(batch[i] == b for b, i in first.items())
    assert out.tolist() == fps_oracle(x, batch, ratio, first)
    assert len(fps(x[:0], engine=engine_name)) == 0


def test_fps_starts_anywhere():
    x = torch.randn(4, 3)
    starts = {int(fps(x, ratio=.25)) for _ in range(200)}
    assert starts == {0, 1, 2, 3}
    torch.manual_seed(5)
    a = fps(torch.randn(50, 3))
    torch.manual_seed(5)
    assert fps(torch.randn(50, 3)).equal(a)
    assert len(fps(torch.randn(30, 2), ratio=.1)) == 3  # .1 * 30 > 3
    same = fps(torch.zeros(5, 3), ratio=1., random_start=False)
    assert same[0] == 0


@pytest.mark.parametrize('engine_name', [
    'torch', pytest.param('torch_cluster', marks=pytest.mark.cluster),
    'pyg_lib'])
@pytest.mark.parametrize('dtype', DTYPES)
def test_fps_takes_each_point_once(engine_name, dtype):
    if engine_name != 'torch':
        pytest.importorskip(engine_name)
    given = {'engine': engine_name}
    same = torch.zeros(5, 3, dtype=dtype)
    assert fps(same, ratio=1., random_start=False, **given).tolist() == [
        0, 1, 2, 3, 4]
    # Drawn with replacement, in several clouds, unsorted.
    x = torch.rand(40, 3, dtype=dtype)[torch.randint(40, (300, ))]
    x = torch.cat([x, same])
    batch = torch.cat([torch.randint(3, (300, )), torch.full((5, ), 4)])
    for ratio in (.2, .7, 1.):
        for start in (True, False):
            out = fps(x, batch, ratio, start, **given)
            assert len(out.unique()) == len(out)
            wanted = (ratio * torch.bincount(batch) - 1e-6).ceil().long()
            assert torch.bincount(batch[out], minlength=5).equal(wanted)
        # The distinct ones first.
        for own in (batch == 0, batch == 2):
            out = fps(x[own], ratio=ratio, random_start=False, **given)
            places = len(x[own].unique(dim=0))
            assert len(x[own][out[:places]].unique(dim=0)) == min(
                places, len(out))
    x = torch.randn(50, 3, dtype=dtype) + 5e5
    assert fps(x, random_start=False, **given).equal(
        fps(x.double() - 5e5, random_start=False))


@pytest.mark.parametrize('engine_name', [
    'torch', pytest.param('torch_cluster', marks=pytest.mark.cluster)])
def test_fps_with_a_ratio_for_each_cloud(engine_name):
    if engine_name != 'torch':
        pytest.importorskip(engine_name)
    x, batch = torch.randn(90, 3), torch.randint(3, (90, ))
    ratio = torch.tensor([.1, .5, 1.])
    out = fps(x, batch, ratio, False, engine=engine_name)
    expected = [own[fps(x[own], ratio=float(r), random_start=False)]
                for r, own in ((r, (batch == b).nonzero()[:, 0])
                               for b, r in enumerate(ratio))]
    assert out.equal(torch.cat(expected))
    for one in (.5, np.float32(.5), np.float64(.5), torch.tensor(.5),
                torch.tensor([.5])):
        assert fps(x, batch, one, False).equal(fps(x, batch, .5, False))
    for bad_ratio in (ratio[:2], torch.tensor([.1, 0., 1.]), ratio * 2,
                      ratio * math.nan):
        with pytest.raises(ValueError, match="'ratio'"):
            fps(x, batch, bad_ratio)
    for bad_ratio in (ratio.cfloat(), 'half', None, [.5], torch.ones(3) > 0):
        with pytest.raises(TypeError, match="'ratio'"):
            fps(x, batch, bad_ratio)
