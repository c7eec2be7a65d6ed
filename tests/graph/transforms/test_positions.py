import pytest
import torch
from helpers.transforms import TRANSFORMS, random_cloud
from torch_geometric.data import Data

from pyg_steerable import Group
from pyg_steerable.graph import (
    AnisotropicScale,
    Jitter,
    Normalise,
)


def test_jitter():
    data = random_cloud(4000)
    noise = Jitter(0.1, clip=None)(data).pos - data.pos
    assert (noise.std(0) - 0.1).abs().max() < 0.006
    assert noise.mean(0).abs().max() < 0.01
    out = Jitter(0.1, clip=0.15)(data)
    noise = (out.pos - data.pos).norm(dim=-1)
    assert (noise - 0.15).max() < 1e-12
    assert 0.4 < (noise > 0.15 - 1e-9).double().mean() < 0.6
    assert torch.equal(out.normal, data.normal)
    assert torch.equal(Jitter(0.)(data).pos, data.pos)
    for bad in (-1, float('nan')):
        with pytest.raises(ValueError, match="Expected 'std'"):
            Jitter(bad)
        with pytest.raises(ValueError, match="Expected 'clip'"):
            Jitter(0.1, clip=bad)


def test_anisotropic_scale():
    data = random_cloud()
    scales = []
    for _ in range(200):
        out = AnisotropicScale()(data)
        scales.append(out.pos / data.pos)
        assert torch.allclose(scales[-1], scales[-1][:1])
        assert torch.equal(out.normal, data.normal)
    scale = torch.stack(scales)[:, 0]
    assert 2 / 3 <= scale.min() < 0.75 and 1.4 < scale.max() <= 1.5 + 1e-12
    assert not torch.allclose(scale[:, 0], scale[:, 1], rtol=0.1)
    for low, high in ((0, 1), (2, 1), (1, float('inf'))):
        with pytest.raises(ValueError, match="Expected '(low|high)' to be"):
            AnisotropicScale(low, high)


@pytest.mark.parametrize('size', ['sphere', 'deviation'])
def test_normalise(size):
    data = random_cloud()
    data.pos = 7 * data.pos + 100
    out = Normalise(size)(data)
    assert out.pos.mean(0).abs().max() < 1e-12
    unit = (out.pos.norm(dim=-1).max() if size == 'sphere' else
            out.pos.square().mean().sqrt())
    assert abs(unit - 1) < 1e-12
    assert torch.allclose(Normalise(size)(out).pos, out.pos)
    # It commutes with O(3).
    for g in Group('O(3)').sample(3):
        moved = Data(pos=data.pos @ g.T)
        assert torch.allclose(Normalise(size)(moved).pos, out.pos @ g.T)


@pytest.mark.parametrize('size', ['sphere', 'deviation'])
def test_normalise_clouds_without_size(size):
    for dtype in (torch.float32, torch.float64):
        pos = (0.1 * torch.rand(3, dtype=dtype)).expand(11, 3)
        assert Normalise(size)(Data(pos=pos)).pos.abs().max() < 1e-6
    assert Normalise(size)(random_cloud(1)).pos.eq(0).all()
    assert Normalise(size)(random_cloud(0)).pos.shape == (0, 3)
    with pytest.raises(ValueError, match="'size' to be one of 'sphere', "):
        Normalise('cube')


@pytest.mark.parametrize('transform', TRANSFORMS[2:], ids=str)
def test_bad_positions(transform):
    data = random_cloud()
    data.pos[4, 1] = float('nan')
    with pytest.raises(ValueError, match='to be finite .*at point 4'):
        transform(data)
    with pytest.raises(ValueError, match=r'shape \[N, 3\] .got \[12, 2\]'):
        transform(Data(pos=torch.randn(12, 2)))
    with pytest.raises(ValueError, match=r'shape \[N, 3\] .got None'):
        transform(Data(x=torch.randn(12, 2)))
    with pytest.raises(TypeError, match="'data.pos' to be a tensor of"):
        transform(Data(pos=torch.ones(12, 3, dtype=torch.long)))


def test_registered_under_free_names():
    from torch.utils.data.datapipes.iter import IterableWrapper
    pipe = IterableWrapper([random_cloud(), random_cloud()])
    pipe = pipe.normalise_cloud().random_point_subset(5)
    pipe = pipe.anisotropic_scale().random_group_element('SO(2)')
    assert [d.pos.shape for d in pipe.gaussian_jitter(0.01)] == [(5, 3)] * 2
