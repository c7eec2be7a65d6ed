"""What tests of lattice share."""
import pytest
import torch

GRID = (5, 4, 6)
STENCILS = [dict(kernel_size=3), dict(kernel_size=3, stride=2),
            dict(kernel_size=3, stride=3, padding=0),
            dict(kernel_size=3, padding=2, dilate=True),
            dict(kernel_size=1, stride=2)]


def random_voxels(seed=0, grid=GRID, occupancy=0.4):
    generator = torch.Generator().manual_seed(seed)
    voxels = torch.randn(3, *grid, generator=generator, dtype=torch.float64)
    mask = torch.rand(grid, generator=generator) < occupancy
    return voxels * mask, mask


BOTH_ORDERS = pytest.mark.parametrize('lattice_order', ['runs', 'rows'],
                                      indirect=True)


def edges_by_definition(lattice):
    stencil, (targets, batch) = lattice.geometry.stencil, lattice.targets
    at = {(b, *c): n for n, (c, b) in enumerate(
        zip(lattice.coord.tolist(), lattice.sources[1].tolist()))}
    out = []
    for i, (o, b) in enumerate(zip(targets.tolist(), batch.tolist())):
        for k, offset in enumerate(stencil.offsets().tolist()):
            j = at.get((b, *(t * a - p + e for t, a, p, e in zip(
                stencil.stride, o, stencil.padding, offset))))
            if j is not None:
                out.append((j, i, k))
    return sorted(out)
