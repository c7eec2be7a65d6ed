"""Whatever is passed to a data set: the right answer, or an error that names
the argument.
"""
import inspect
import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import pyg_steerable.datasets as datasets
from pyg_steerable.datasets import (
    CathDomains,
    GaussianDensities,
    MeshToVoxels,
    NBodySystem,
    NBodyTrajectories,
    OGBFeatures,
    PointClouds,
    QM9Molecules,
    RMD17Frames,
    VoxelGrids,
    gaussian_densities,
    generate_nbody,
    generate_shapes,
    load_qm9,
    mean_average_precision,
    retrieve,
    rotate_voxels,
    split_qm9,
    split_rmd17,
    tetris_points,
    tetris_voxels,
    write_retrieval_lists,
)
from pyg_steerable.datasets.ogb import ring_edges

BAD = {
    'object': object(), 'none': None, 'string': 'spam', 'bytes': b'x',
    'list': [], 'nested': [[1, 'a']], 'dict': {'a': 1}, 'type': int,
    'function': len, 'bool': True, 'int': 3, 'numpy int': np.int64(3),
    'negative': -1, 'huge': 2**31, 'huger': 10**30, 'float': 0.5, 'nan':
    math.nan, 'inf': math.inf, 'large': 1e300, 'complex': 1j,
    'scalar': torch.tensor(1.), 'empty': torch.empty(0),
    'ints': torch.arange(4), 'matrix': torch.eye(3), 'bools':
    torch.ones(4, 3).bool(), 'complex tensor': torch.eye(3) + 0j,
    'sparse': torch.eye(3).to_sparse(), 'csr': torch.eye(4).to_sparse_csr(),
    'quantised': torch.quantize_per_tensor(torch.eye(3), 1., 0, torch.qint8),
    'meta': torch.empty(4, 3, device='meta'), 'nans': torch.eye(3) * math.nan,
    'half': torch.eye(3).half(), 'array': np.eye(3), 'objects':
    np.array([None, 'a']), 'path': '/nowhere/at.all', 'generator':
    torch.Generator(), 'long list': [1] * 9, 'strings': ['a', 'b'],
    'tensors': [torch.tensor([0]), torch.tensor([1])], 'names': ['../a'],
    'minus': -torch.ones(4).long(), 'far': torch.full((4, ), 2**40),
    'data': Data(), 'large numbers': torch.full((4, 3), 1e30),
}
voxels = torch.rand(2, 1, 3, 3, 3)
atoms = Data(pos=torch.rand(4, 3), x=torch.rand(4, 2))
mesh = Data(pos=torch.rand(4, 3), face=torch.arange(3)[:, None])
methane = load_qm9(limit=1)[0]
two = load_qm9(limit=2)
frame = Data(z=torch.tensor([1, 8]), pos=torch.rand(2, 3),
             energy=torch.rand(1), force=torch.rand(2, 3))
moving = dict(charge=torch.ones(2, 3), pos=torch.rand(2, 3, 3),
              vel=torch.rand(2, 3, 3))


def on(cls, *args, **data):
    """A transform, on data in which something is changed."""
    def call(**changes):
        return cls(*args)(Data(**(data | changes)))
    call.__name__ = f'{cls.__name__}.forward'
    return call, dict(data)


CALLS = [
    (PointClouds, dict(points=torch.rand(2, 4, 3), label=torch.arange(2),
                       classes=['a', 'b'], transform=None)),
    (PointClouds(torch.rand(2, 4, 3), torch.arange(2), ['a', 'b']).subset,
     dict(index=[0], transform=None)),
    (VoxelGrids, dict(voxels=voxels, label=torch.arange(2),
                      classes=['a', 'b'], transform=None)),
    (VoxelGrids(voxels, torch.arange(2), ['a', 'b']).subset,
     dict(index=[0], transform=None)),
    (CathDomains, dict(pos=[torch.rand(4, 3)], kind=[torch.zeros(4).long()],
                       label=torch.tensor([0]), atom_types=['CA'],
                       classes=['a'], transform=None)),
    (gaussian_densities, dict(pos=atoms.pos, x=atoms.x, size=8, spacing=2.,
                              sigma=None)),
    (GaussianDensities, dict(size=8, spacing=2., sigma=None,
                             outside='error')),
    on(GaussianDensities, 8, pos=atoms.pos, x=atoms.x),
    (GaussianDensities(8), dict(data=atoms)),
    (MeshToVoxels, dict(size=8)),
    (MeshToVoxels(8), dict(data=mesh)),
    on(MeshToVoxels, 8, pos=mesh.pos, face=mesh.face),
    (OGBFeatures(), dict(data=methane)),
    on(OGBFeatures, z=methane.z, edge_index=methane.edge_index,
       edge_attr=methane.edge_attr, charge=methane.charge),
    (ring_edges, dict(edge_index=methane.edge_index,
                      num_nodes=methane.num_nodes)),
    (QM9Molecules, dict(data=two._data, slices=two.slices, source='mine',
                        transform=None)),
    (two.target, dict(name='mu')),
    (load_qm9, dict(source='sample', root=None, limit=2, seed=0,
                    transform=None, force_reload=False)),
    (split_qm9, dict(n=20, seed=0)),
    (RMD17Frames, dict(data=frame, slices={
        'z': torch.tensor([0, 2]), 'pos': torch.tensor([0, 2]),
        'force': torch.tensor([0, 2]), 'energy': torch.tensor([0, 1])},
                       transform=None)),
    (datasets.load_rmd17, dict(source='a.npz', root=None, transform=None)),
    (split_rmd17, dict(n=20, num_train=10, num_valid=5, num_test=5, seed=0)),
    (NBodySystem, dict(law='gravity', stiffness=1., strength=1., core=0.1)),
    (NBodySystem().acceleration, dict(charge=moving['charge'],
                                      pos=moving['pos'])),
    (NBodySystem().energy, moving),
    (NBodySystem().simulate, dict(**moving, steps=2, dt=1e-3)),
    (NBodyTrajectories, dict(**moving, target=moving['pos'],
                             transform=None)),
    (generate_nbody, dict(num=2, system=None, num_particles=2, start=1,
                          steps=1, dt=1e-3, seed=0)),
    (datasets.load_nbody, dict(path='a.npz', split='train', transform=None)),
    (datasets.save_nbody, dict(path='out/a.npz', train=generate_nbody(
        2, start=1, steps=1))),
    (rotate_voxels, dict(voxels=voxels, R=torch.eye(3), order=3)),
    (generate_shapes, dict(num=2, num_points=4, seed=0)),
    (tetris_points, dict(copies=1, group='1', seed=0, transform=None)),
    (tetris_voxels, dict(copies=1, group='1', seed=0, transform=None, cell=1,
                         pad=0)),
    (retrieve, dict(scores=torch.rand(3, 2))),
    (mean_average_precision, dict(lists=[torch.tensor([0])],
                                  label=torch.tensor([0]))),
    (write_retrieval_lists, dict(folder='out', lists=[torch.tensor([0])],
                                 names=['a'])),
    (datasets.load_points, dict(path='a.npz')),
    (datasets.load_voxels, dict(path='a.npz', split='train',
                                transform=None)),
    (datasets.load_cath, dict(path='a.npz', split='train', transform=None)),
    (datasets.load_mesh, dict(path='a.obj')),
    (datasets.Shrec17Meshes, dict(root='a', split='train', perturbed=True,
                                  classes=None, transform=None)),
    (datasets.AminoAcidEnvironments, dict(paths=['a.pdb'], radius=12.,
                                          on_error='error', transform=None)),
]


def title(call):
    return getattr(call, '__qualname__', type(call).__name__)


@pytest.mark.parametrize('call, good', CALLS, ids=lambda c: (
    title(c) if callable(c) else None))
def test_arguments(call, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = []
    for name in good:
        for kind, value in BAD.items():
            try:
                call(**(good | {name: value}))
            except (ValueError, TypeError, FileNotFoundError,
                    ImportError) as error:
                message = str(error)
                if not message.startswith('Expected') and (
                        'expected' not in message):
                    faults.append(f'{name}, {kind}: {message}')
            except Exception as error:
                faults.append(f'{name}, {kind}: {error!r}')
    assert not faults, '\n'.join(faults)
    assert not [p for p in tmp_path.iterdir() if p.name not in (
        'out', 'spam', 'nowhere')]


def test_every_callable_is_here():
    rest = {'Shrec17Meshes', 'Split', 'Target', 'VoxelData'}
    here = {title(call).split('.')[0] for call, _ in CALLS} | rest
    assert {name for name in datasets.__all__ if callable(
        getattr(datasets, name)) and not inspect.ismodule(name)} <= here


def test_numpy_numbers():
    """They do wherever Python's do."""
    i, f = np.int64, np.float32
    assert len(generate_shapes(i(3), i(8), i(1))) == 3
    assert len(load_qm9(limit=i(3), seed=np.uint8(2))) == 3
    assert len(split_qm9(i(20), i(0)).train) == 15
    assert tetris_voxels(i(1), '1', i(0), cell=i(1), pad=i(1)
                         ).voxels.shape == (8, 1, 6, 6, 6)
    assert GaussianDensities(i(8), f(2), f(0.5))(atoms).voxels.shape[1] == 8
    assert MeshToVoxels(np.uint8(8))(mesh).voxels.shape[1] == 8
    assert rotate_voxels(voxels, np.eye(3), i(1)).shape == voxels.shape
    clouds = generate_shapes(4, 8)
    assert torch.equal(clouds[i(1)].pos, clouds[torch.tensor(1)].pos)
    assert len(clouds.subset(np.array([0, 2], np.int32))) == 2


def test_nothing_is_no_mistake():
    clouds = generate_shapes(4, 8)
    assert len(clouds.subset([])) == 0 and clouds.subset([]).counts().sum(
        ) == 0
    assert len(clouds.subset(torch.zeros(4).bool())) == 0
    assert len(generate_shapes(0)) == 0
    grids = VoxelGrids(voxels, torch.arange(2), ['a', 'b'])
    assert len(grids.subset(torch.empty(0).long())) == 0
    assert len(CathDomains([], [], torch.empty(0), [], [])) == 0
    empty = gaussian_densities(torch.empty(0, 3), torch.empty(0, 2), 4)
    assert empty.shape == (2, 4, 4, 4) and not empty.any()
    none = gaussian_densities(torch.zeros(3, 3), torch.empty(3, 0), 4)
    assert none.shape == (0, 4, 4, 4)
    assert retrieve(torch.empty(0, 2)) == []
    assert math.isnan(mean_average_precision([], torch.empty(0).long()).micro)
    R = torch.linalg.qr(torch.randn(3, 3))[0]
    for shape in ((0, 3, 3, 3), (2, 0, 0, 0)):
        assert rotate_voxels(torch.empty(shape), R).shape == shape
    assert OGBFeatures()(Data(
        z=torch.tensor([6]), edge_index=torch.empty(2, 0).long(),
        edge_attr=torch.empty(0, 4))).x_ogb.shape == (1, 9)
    assert ring_edges(torch.empty(2, 0).long(), 0).shape == (0, )


def test_items():
    clouds = generate_shapes(4, 8)
    assert torch.equal(clouds[-1].pos, clouds[3].pos)
    assert len(list(clouds)) == 4
    for data in (clouds, VoxelGrids(voxels, torch.arange(2), ['a', 'b'])):
        for bad in (4, -5, 10**30):
            with pytest.raises(IndexError):
                data[bad]
        for bad in ('a', 1.5, None):
            with pytest.raises(TypeError, match="'index'"):
                data[bad]
        for bad in ([9], [-9], [0.5], 'a', torch.ones(9).bool(), None):
            with pytest.raises((ValueError, TypeError), match="'index'"):
                data.subset(bad)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Sums are kept in float32, also of atoms far from the origin."""
    pos, x = 40 * torch.rand(3000, 3) - 20, torch.rand(3000, 1) + 1
    pos, x = pos.to(dtype), x.to(dtype)
    exact = gaussian_densities(pos.double(), x.double(), 30)
    for context in (False, True):
        with torch.autocast('cpu', enabled=context):
            out = gaussian_densities(pos, x, 30)
        assert out.dtype == dtype
        assert (out.double() - exact).abs().max() < 2e-2 * exact.max()
    single = gaussian_densities(pos.float(), x.float(), 30)
    with torch.autocast('cpu'):
        again = gaussian_densities(pos.float(), x.float(), 30)
    assert torch.equal(single, again)
    R = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    grid = torch.rand(1, 5, 5, 5).to(dtype)
    turned = rotate_voxels(grid, R)
    assert turned.dtype == dtype
    assert (turned - rotate_voxels(grid.double(), R)).abs().max() < 2e-2
