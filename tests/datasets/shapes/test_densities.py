import pytest
import torch
from helpers.datasets_voxels import CUBE, atoms
from torch_geometric.data import Data

from pyg_steerable import Group
from pyg_steerable.datasets import (
    GaussianDensities,
    gaussian_densities,
    rotate_voxels,
)


@pytest.mark.parametrize('sigma', [None, 0., 0.01, 3.])
def test_mass_is_preserved(sigma):
    pos, x = atoms(2000, 2.)  # more than are spread at once
    voxels = gaussian_densities(pos, x, 11, 2., sigma)
    assert voxels.shape == (2, 11, 11, 11) and (voxels >= 0).all()
    assert torch.allclose(voxels.sum((1, 2, 3)), x.sum(0), rtol=1e-12)


def test_density_of_one_atom():
    pos = torch.tensor([[2., 0.5, -4.]], dtype=torch.float64)
    voxels = gaussian_densities(pos, torch.ones(1, 1).double(), 9, 2.)[0]
    line = torch.arange(-4., 5).double() * 2
    z, y, x = torch.meshgrid(line, line, line, indexing='ij')
    far = (x - 2)**2 + (y - 0.5)**2 + (z + 4)**2
    expected = torch.exp(-far / 2)  # sigma is half of the spacing
    assert torch.allclose(voxels, expected / expected.sum(), atol=1e-15)
    nearest = gaussian_densities(pos, torch.ones(1, 1).double(), 9, 2., 0.)
    assert nearest[0].nonzero().tolist() == [[2, 4, 5]]


@pytest.mark.parametrize('size', [10, 11])
def test_rotating_atoms_rotates_densities(size):
    pos, x = atoms(spread=1.5)
    voxels = gaussian_densities(pos, x, size)
    for R in CUBE:
        turned = gaussian_densities(pos @ R.T, x, size)
        assert torch.allclose(turned, rotate_voxels(voxels, R), atol=1e-13)


def test_any_rotation_of_smooth_densities():
    pos, x = atoms(spread=1.5)
    R = Group('SO(3)').sample()[0]
    a = gaussian_densities(pos @ R.T, x, 25, 1., 2.)
    b = rotate_voxels(gaussian_densities(pos, x, 25, 1., 2.), R)
    assert (a - b).norm() < 1e-2 * a.norm()


def test_atoms_outside():
    pos = torch.tensor([[5., 0, 0], [5.1, 0, 0], [0, 0, -9]])
    x = torch.ones(3, 1)
    with pytest.raises(ValueError, match='-5 to 5 .got 2 of 3'):
        gaussian_densities(pos, x, 5, 2.)
    data = Data(pos=pos, x=x, y=torch.tensor([3]))
    out = GaussianDensities(5, 2., outside='skip')(data)
    assert out.num_outside == 2 and out.y == 3
    assert torch.allclose(out.voxels.sum(), torch.ones(()))
    assert set(out.keys()) == {'voxels', 'y', 'num_outside'}
    with pytest.raises(ValueError, match='2 of 3'):
        GaussianDensities(5, 2.)(data)
    alone = GaussianDensities(5)(Data(pos=pos[:1], x=x[:1], y=data.y))
    assert alone.y == 3 and alone.voxels.shape == (1, 5, 5, 5)


@pytest.mark.parametrize('change, match', [
    (dict(pos=torch.zeros(3, 2)), r'\[N, 3\]'),
    (dict(pos=torch.full((3, 3), torch.nan)), 'atom 0'),
    (dict(x=torch.zeros(2, 1)), r'\[3, C\]'),
    (dict(x=torch.zeros(3, 1, dtype=torch.long)), 'int64'),
    (dict(x=torch.full((3, 1), torch.inf)), "'x' to be finite"),
    (dict(size=0), "'size'"),
    (dict(size=2.5), "'size'"),
    (dict(spacing=0.), "'spacing'"),
    (dict(sigma=-1.), "'sigma'"),
])
def test_bad_densities(change, match):
    with pytest.raises((ValueError, TypeError), match=match):
        gaussian_densities(**dict(pos=torch.zeros(3, 3), x=torch.ones(3, 1))
                           | change)
    with pytest.raises(ValueError, match="'drop'"):
        GaussianDensities(outside='drop')
