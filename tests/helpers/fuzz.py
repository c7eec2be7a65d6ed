"""Calls everything public with wrong arguments, at random.

    python tests/helpers/fuzz.py --calls 50000          # or make fuzz ARGS=...

Every public callable is found by introspection: the names of the public
modules, the methods of their classes, and the forward pass of modules. Each
call starts from arguments that work and replaces one or two of them. It must
return, or raise a ValueError or TypeError (ImportError, FileNotFoundError or
MemoryError where natural) *from this package*, with a message of the form
"Expected 'name' ... (got ...)". All else is a fault: another exception, an
error from deep inside of torch, a hang, or an argument that makes no sense
and was taken.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import inspect
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import fuzz_files
import numpy as np
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import MessagePassing

import pyg_steerable
from pyg_steerable import (
    FieldType,
    Group,
    Representation,
    datasets,
    graph,
    nn,
    viz,
)
from pyg_steerable.nn import kernel as kernels
from pyg_steerable.testing import Voxels

MODULES = ('', '.nn', '.graph', '.kernels', '.models', '.datasets',
           '.testing', '.interop', '.intertwiners', '.viz', '.export')
PACKAGE = str(Path(pyg_steerable.__file__).parent)
SECONDS = 8  # a call may take

# Not called: what they are, and why.
SKIPPED = {
    'EquivariantLayerTests': 'a base class of tests',
    'SteerableBasis': 'a base class', 'FieldModule': 'a base class',
    'RadialFunctions': 'a base class',
    'Level': 'a tuple', 'Case': 'a tuple', 'Split': 'a tuple',
    'Target': 'a tuple', 'Frame': 'a tuple', 'Voxels': 'a tuple',
    'PotentialOutput': 'a tuple',
    'VoxelData': 'PyG takes any attribute for its Data',
    'LatticeData': 'PyG takes any attribute for its Data',
    'main': 'a command line, tested with the examples',
    'kernel_of': 'takes any callable',
    'Group.read': 'a check', 'FieldType.check': 'a check',
    'assert_equivariant': 'raises AssertionError by intent, and is '
    'equivariance_error beside that',
}
#: Methods that PyG, torch or Python define, or that take no arguments.
METHODS = ('reset_parameters', 'train', 'message', 'next', 'collect',
           'register_constant', 'register_weights', 'check_attr',
           'check_inputs', 'check_input', 'set_types', 'example',
           'grid_after', 'symmetries')


class Nonsense:
    """An object that is no valid argument of anything."""
    def __repr__(self):
        return 'Nonsense()'


# Arguments that work #######################################################

G = Group('SO(2)xM')
T = FieldType('2x0e + 1x1o', G)
SPHERE = FieldType.sphere(2, 1, G)
SCALARS = FieldType('2x0e', G)
N, E = 10, 24
folder = Path(tempfile.mkdtemp(prefix='fuzz'))


def randn(*shape):
    return torch.randn(*shape)


def edges(n=N, m=N):
    return torch.stack([torch.randint(n, (E, )), torch.randint(m, (E, ))])


def batch(n=N):
    return torch.arange(n) * 2 // n


def atoms():
    return 1 + 7 * torch.randint(2, (N, ))


def cloud():
    return Data(pos=randn(N, 3), x=randn(N, T.dim),
                batch=torch.zeros(N, dtype=torch.long))


def molecule():
    data = Data(pos=randn(N, 3), edge_index=edges())
    data.edge_index = data.coalesce().edge_index
    data.edge_attr = randn(data.num_edges, 4)
    return data


def lattice(**options):
    occupied = (torch.rand(6, 6, 6) < 0.4).nonzero()
    return graph.lattice_graph(occupied, (6, 6, 6),
                               x=randn(len(occupied), T.dim), **options)


def basis():
    return kernels.HarmonicBasis(G, 2)


#: By name of the parameter, whatever takes it; built anew for each call.
USUAL = {
    'in_type': lambda: T, 'out_type': lambda: T, 'field_type': lambda: T,
    'u_type': lambda: T, 'v_type': lambda: T, 'w_type': lambda: T,
    'group': lambda: G, 'basis': basis, 'radius': lambda: 1.,
    'cutoff_radius': lambda: 2.,
    'pos': lambda: randn(N, 3), 'positions': lambda: randn(E, 3),
    'pos_x': lambda: randn(N, 3), 'pos_y': lambda: randn(N, 3),
    'batch': batch, 'batch_x': batch, 'batch_y': batch,
    'batch_size': lambda: 2, 'index': batch, 'k': lambda: 3, 'r': lambda: 1.,
    'x': lambda: randn(N, T.dim), 'ratio': lambda: 0.5,
    'edge_index': edges, 'edge_weight': lambda: torch.rand(E),
    'kernel_size': lambda: 3, 'voxels': lambda: randn(1, 6, 6, 6),
    'data': cloud, 'R': lambda: G.sample(1)[0], 'seed': lambda: 0,
    'max_degree': lambda: 1, 'channels': lambda: 2, 'hidden': lambda: 2,
    'out_channels': lambda: 3, 'num_dst': lambda: N, 'n': lambda: 5,
    'src': lambda: torch.randint(N, (E, )),
    'dst': lambda: torch.randint(N, (E, )), 'dtype': lambda: torch.float32,
    'generator': lambda: torch.Generator(),
    'resolution': lambda: 5, 'module': lambda: nn.Linear(T, T),
    'num_neighbors': lambda: 4., 'eps': lambda: 1e-4, 'bias': lambda: True,
    'idx': lambda: 0, 't': lambda: torch.rand(E, 1),
    'normalize': lambda: 'all', 'constant': lambda: True,
    'radial': lambda: 'gaussian', 'num_radial': lambda: 4,
}


def a_file(kind: str, number: int = 0):
    """The path of a file that loads."""
    def make():
        layout = fuzz_files.FORMATS[kind][number]
        path = folder / layout.name
        if not path.exists():
            layout.make(path)
        return str(path)

    return make


FRAMES = a_file('npz', 5)
#: Of callables that need something else; None leaves a parameter out.
SPECIAL = {
    'Group': dict(name=lambda: 'C4', axis=lambda: 'x'),
    'FieldType': dict(irreps=lambda: '2x0e + 1x1o'),
    'Representation': dict(
        group=lambda: 'C4', name=lambda: 'rho',
        matrices=lambda: Group('C4').generators),
    'SteerableConv': dict(basis=basis),
    'ImplicitSteerableConv': dict(edge_type=lambda: SCALARS,
                                  node_type=lambda: SCALARS,
                                  num_layers=lambda: 2),
    'LatticeLowPass': dict(scale=lambda: 2.),
    'lattice_stack': dict(types=lambda: [T, T], strides=lambda: [1]),
    'QuotientELU': dict(field_type=lambda: SPHERE, samples=lambda: 20),
    'norm_max_pool': dict(size=lambda: 2),
    'interpolate': dict(x=lambda: randn(N, 4)),
    'hierarchy': dict(ratios=lambda: (0.5, 0.5)),
    'knn': dict(x=lambda: randn(N, 3), y=lambda: randn(N, 3)),
    'knn_graph': dict(x=lambda: randn(N, 3)),
    'radius': dict(x=lambda: randn(N, 3), y=lambda: randn(N, 3)),
    'radius_graph': dict(x=lambda: randn(N, 3),
                         max_num_neighbors=lambda: 50),
    'nearest': dict(x=lambda: randn(N, 3), y=lambda: randn(N, 3)),
    'fps': dict(x=lambda: randn(N, 3)),
    'graph_to_voxel': dict(data=lattice, x=None),
    'lattice_graph': dict(
        coord=lambda: torch.randint(6, (20, 3)).unique(dim=0),
        grid=lambda: (6, 6, 6), x=None),
    'GridStencil': dict(stencil=pyg_steerable.graph.Stencil,
                        grid=lambda: (6, 6, 6)),
    'Stencil.on': dict(grid=lambda: (6, 6, 6)),
    'RandomPointSubset': dict(num=lambda: 5),
    'SteerableKernel': dict(gain=lambda: 1.),
    'LatticeKernel': dict(positions=lambda: randn(27, 3)),
    'HarmonicBasis': dict(shells=lambda: 3),
    'ImplicitBasis': dict(attr_type=lambda: SCALARS),
    'QM9Net': dict(blocks=lambda: 1, invariants=lambda: 4,
                   edge_dim=lambda: 0, group=lambda: 'O(3)',
                   radius=lambda: 1.),
    'Potential': dict(elements=lambda: (1, 8), cutoff=lambda: 2.,
                      blocks=lambda: 1),
    'NBodyNet': dict(in_dim=lambda: 1, steps=lambda: 1,
                     group=lambda: 'O(3)'),
    'ModelNetClassifier': dict(in_type=None, invariants=lambda: 4,
                               mlp=lambda: 4, ratios=lambda: (0.5, 0.5),
                               num_classes=lambda: 3),
    'ModelNetSegmenter': dict(in_type=None, mlp=lambda: 4,
                              ratios=lambda: (1., 0.5),
                              num_classes=lambda: 3),
    'TetrisNet': dict(fields=lambda: ('1x0e + 1x1o', ), group=lambda: 'SO(3)',
                      strides=lambda: (1, 1), invariants=lambda: 4),
    'TetrisCNN': dict(channels=lambda: (2, 3), strides=lambda: (1, 1)),
    'ShrecNet': dict(fields=lambda: ('1x0e + 1x1o', ), group=lambda: 'SO(3)',
                     strides=lambda: (1, 1), invariants=lambda: 4),
    'CathNet': dict(channels=lambda: (1, 1), blocks=lambda: (1, 1),
                    invariants=lambda: 4),
    'CathCNN': dict(channels=lambda: (2, 2), blocks=lambda: (1, 1)),
    'AminoAcidCNN': dict(size=lambda: 40, channels=lambda: (2, 2, 2, 2),
                         hidden=lambda: 4),
    'AminoAcidNet': dict(size=lambda: 37, channels=lambda: (1, 1, 1, 1),
                         hidden=lambda: 4),
    'AminoAcidEnvironments': dict(paths=lambda: [a_file('pdb')()]),
    'CathDomains': dict(
        pos=lambda: [randn(4, 3), randn(5, 3)],
        kind=lambda: [torch.zeros(4).long(), torch.zeros(5).long()],
        label=lambda: torch.tensor([0, 1]), atom_types=lambda: ['C'],
        classes=lambda: ['a', 'b']),
    'GaussianDensities': dict(size=lambda: 8),
    'MeshToVoxels': dict(size=lambda: 8),
    'PointClouds': dict(points=lambda: randn(4, 16, 3),
                        label=lambda: torch.tensor([0, 1, 0, 1]),
                        classes=lambda: ['a', 'b']),
    'VoxelGrids': dict(voxels=lambda: torch.rand(4, 1, 6, 6, 6).round().byte(),
                       label=lambda: torch.tensor([0, 1, 0, 1]),
                       classes=lambda: ['a', 'b']),
    'gaussian_densities': dict(x=lambda: randn(N, 2), size=lambda: 8,
                               spacing=lambda: 2.),
    'generate_shapes': dict(num=lambda: 4, num_points=lambda: 8),
    'load_points': dict(path=a_file('npz')),
    'load_voxels': dict(path=a_file('npz', 1)),
    'load_mesh': dict(path=a_file('obj')),
    'load_cath': dict(path=a_file('npz', 2)),
    'load_qm9': dict(source=lambda: 'sample', limit=lambda: 3),
    'QM9Molecules': dict(
        data=lambda: datasets.load_qm9(limit=3)._data,
        slices=lambda: datasets.load_qm9(limit=3).slices,
        source=lambda: 'sample'),
    'load_rmd17': dict(source=FRAMES),
    'RMD17Frames': dict(data=lambda: datasets.load_rmd17(FRAMES())._data,
                        slices=lambda: datasets.load_rmd17(FRAMES()).slices),
    'Shrec17Meshes': dict(root=lambda: str(folder)),
    'mean_average_precision': dict(
        lists=lambda: [torch.tensor([0, 1]), torch.tensor([1, 0])],
        label=lambda: torch.tensor([0, 0])),
    'retrieve': dict(scores=lambda: torch.rand(4, 3)),
    'write_retrieval_lists': dict(
        folder=lambda: str(folder / 'lists'), names=lambda: ['a', 'b'],
        lists=lambda: [torch.tensor([0, 1]), torch.tensor([1, 0])]),
    'NBodySystem': dict(law=lambda: 'gravity', stiffness=lambda: 1.),
    'NBodyTrajectories': dict(
        charge=lambda: torch.ones(2, 3), pos=lambda: randn(2, 3, 3),
        vel=lambda: randn(2, 3, 3), target=lambda: randn(2, 3, 3)),
    'generate_nbody': dict(num=lambda: 2, system=None,
                           num_particles=lambda: 3, start=lambda: 1,
                           steps=lambda: 2),
    'load_nbody': dict(path=a_file('npz', 3)),
    'save_nbody': dict(path=lambda: str(folder / 'saved.npz'),
                       train=lambda: datasets.generate_nbody(
                           2, start=1, steps=1)),
    'rotate_voxels': dict(R=lambda: torch.eye(3)),
    'tetris_points': dict(group=lambda: 'SO(3)'),
    'BasisSpec': dict(basis=lambda: kernels.ImplicitBasis,
                      options=lambda: (('hidden', 4), )),
    'tetris_voxels': dict(cell=lambda: 2, pad=lambda: 1,
                          group=lambda: 'SO(3)'),
    'group_from_escnn': dict(gspace=Nonsense),
    'split_qm9': dict(n=lambda: 120_000),
    'split_rmd17': dict(n=lambda: 2000),
    'e3nn_basis': dict(field_type=lambda: FieldType('1x1o')),
    'linear_basis': dict(V=lambda: '1o', W=lambda: '1o'),
    'bilinear_basis': dict(U=lambda: '1o', V=lambda: '1o', W=lambda: '0e'),
    'equivariance_error': dict(group=None, dtype=None,
                               num_samples=lambda: 1),
    'assert_equivariant': dict(group=None, dtype=None),
    'make_case': dict(dtype=None),
    'sample_plane': dict(module=lambda: kernels.SteerableKernel(
        basis(), T, T)),
    'plot_slices': dict(module=lambda: kernels.SteerableKernel(
        basis(), T, T)),
    'plot_arrows': dict(modules=lambda: {'a': kernels.SteerableKernel(
        basis(), FieldType('1x1o', G), FieldType('1x1o', G))}),
    'plain_demo': dict(kernel_size=lambda: 3),
    'rotated_frames': dict(
        net=lambda: torch.nn.Identity(), out_type=lambda: FieldType('1x0e'),
        rotations=lambda: Group('C4').elements[:1].numpy()),
    'changes': dict(frames=lambda: viz.rotated_frames(
        torch.nn.Identity(), randn(1, 8, 8, 8), FieldType('1x0e'),
        np.eye(3)[None])),
    'equivariance_movie': dict(path=lambda: str(folder / 'a.gif'),
                               frames=lambda: 1, channels=None,
                               voxels=lambda: randn(1, 8, 8, 8),
                               out_type=lambda: FieldType('0e + 1o',
                                                          'SO(3)')),
    'calibrate': dict(model=lambda: nn.HarmonicSteerableConv(T, T),
                      x=lambda: randn(N, T.dim), pos=lambda: randn(N, 3),
                      edge_index=edges),
    'param_groups': dict(model=lambda: nn.NormGate(T)),
    'edge_shift': dict(offset=lambda: torch.randint(-1, 2, (E, 3)),
                       cell=lambda: torch.eye(3), batch=None),
}

#: Of the methods of classes, and of the forward pass.
METHOD = {
    'HarmonicBasis.fit_radius': dict(distance=lambda: torch.rand(E)),
    'ImplicitBasis.fit_radius': dict(distance=lambda: torch.rand(E)),
    'HarmonicBasis.within': dict(distance=lambda: torch.rand(E)),
    'ImplicitBasis.within': dict(distance=lambda: torch.rand(E)),
    'Group.from_generators': dict(matrices=lambda: Group('D3').generators),
    'Group.contains': dict(R=lambda: torch.eye(3)),
    'Group.is_subgroup_of': dict(other=lambda: 'O(3)'),
    'Group.design': dict(degree=lambda: 3),
    'Group.read': dict(name=lambda: 'R', R=lambda: torch.eye(3)),
    'FieldType.restrict': dict(group=lambda: 'M'),
    'FieldType.check': dict(name=lambda: 'x'),
    'FieldType.wrap': dict(field_type=lambda: '1o'),
    'Representation.regular': dict(group=lambda: 'C4'),
    'ImplicitSteerableConv.forward': dict(edge_attr=lambda: randn(E, 2),
                                          node_attr=lambda: randn(N, 2)),
    'Bilinear.forward': dict(h=lambda: randn(E, T.dim)),
    'Bilinear.dense': dict(h=lambda: randn(E, T.dim)),
    'QuotientELU.forward': dict(x=lambda: randn(N, SPHERE.dim)),
    'NormMaxPool.forward': dict(size=lambda: 2),
    'GraphToVoxel.forward': dict(data=lattice),
    'VoxelToGraph.forward': dict(
        data=lambda: Data(voxels=randn(1, 6, 6, 6))),
    'HarmonicBasis.calibrate': dict(attr=lambda: randn(E, 0)),
    'HarmonicBasis.forward': dict(attr=None),
    'ImplicitBasis.forward': dict(attr=lambda: randn(E, 2)),
    'ImplicitBasis.calibrate': dict(attr=lambda: randn(E, 2)),
    'LatticeKernel.forward': dict(positions=lambda: randn(27, 3)),
    'QM9Net.forward': dict(x=lambda: randn(N, 5)),
    'Potential.forward': dict(z=atoms, x=None, edge_index=None,
                              forces=lambda: True),
    'Potential.fit': dict(z=atoms, energy=lambda: randn(2),
                          forces=lambda: randn(N, 3)),
    'NBodyNet.forward': dict(charge=lambda: randn(N, 1),
                             vel=lambda: randn(N, 3)),
    'ModelNetClassifier.forward': dict(x=None),
    'ModelNetSegmenter.forward': dict(x=None),
    'SteerableKernel.convolve': dict(h=lambda: randn(E, basis()
                                                     .field_type.dim)),
    'AminoAcidCNN.forward': dict(voxels=lambda: randn(1, 2, 40, 40, 40)),
    'AminoAcidNet.forward': dict(voxels=lambda: randn(1, 2, 37, 37, 37)),
    'GaussianDensities.forward': dict(
        data=lambda: Data(pos=randn(N, 3), x=randn(N, 2))),
    'RadiusGraphWithBonds.forward': dict(data=molecule),
    'MeshToVoxels.forward': dict(data=lambda: Data(
        pos=randn(4, 3), face=torch.tensor([[0, 1], [1, 2], [2, 3]]))),
    'QM9Molecules.target': dict(name=lambda: 'homo'),
    'OGBFeatures.forward': dict(data=lambda: datasets.load_qm9(limit=1)[0]),
    'AminoAcidEnvironments.split': dict(num_valid=lambda: 0,
                                        num_test=lambda: 0),
}
METHOD.update({f'NBodySystem.{method}': dict(
    charge=lambda: torch.ones(2, 3), pos=lambda: randn(2, 3, 3),
    vel=lambda: randn(2, 3, 3), steps=lambda: 2)
    for method in ('acceleration', 'energy', 'simulate')})
METHOD.update({f'{name}.{method}': {key: lambda: torch.tensor([0])}
               for name in ('AminoAcidEnvironments', 'CathDomains',
                            'PointClouds', 'Shrec17Meshes', 'VoxelGrids')
               for method, key in (('subset', 'index'), ('copy', 'idx'),
                                   ('index_select', 'idx'))})
GRID_LAYERS = ('Lattice', 'Tetris', 'Shrec', 'Cath', 'SteerableDemo')


def good_arguments(name: str, function, owner=None) -> dict:
    """Arguments that work, by name: all that are required, and of the others
    those that are known.
    """
    special = SPECIAL.get(name, METHOD.get(name, {}))
    out = {}
    for p in inspect.signature(function).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.name == 'self':
            continue
        make = special.get(p.name, USUAL.get(p.name))
        if p.name in special and make is None:
            continue
        if name.endswith('.forward') and p.name in ('x', 'voxels') \
                and name not in METHOD \
                and name.startswith(GRID_LAYERS) and not name.startswith(
                    'LatticeKernel'):
            in_type = getattr(owner, 'in_type', None)
            width = in_type.dim if isinstance(in_type, FieldType) else (
                1 if name.startswith(('Tetris', 'Shrec', 'Cath', 'Steer'))
                else 2)

            def make(width=width):
                return randn(1, width, 16, 16, 16)
        elif name.endswith('.forward') and p.name == 'x' \
                and name not in METHOD:
            in_type = getattr(owner, 'in_type', T)

            def make(in_type=in_type):
                return randn(N, in_type.dim)
        if make is None:
            if p.default is p.empty:
                    print(f'no argument for {name}({p.name})')
            continue
        if p.default is p.empty or name in SPECIAL or name in METHOD or \
                p.name in ('batch', 'batch_x', 'batch_y', 'batch_size'):
            out[p.name] = make
    if any(p.kind is p.VAR_KEYWORD
           for p in inspect.signature(function).parameters.values()):
        out.update({k: make for k, make in special.items()
                    if k not in out and make is not None})
    return out


# Subjects ##################################################################


def public_names():
    """(module, name, object) of all that is public."""
    for suffix in MODULES:
        try:
            module = importlib.import_module('pyg_steerable' + suffix)
        except ImportError:
            continue
        names = getattr(module, '__all__', None) or [
            n for n, o in vars(module).items() if not n.startswith('_')
            and getattr(o, '__module__', '') == module.__name__]
        for name in names:
            value = getattr(module, name)
            if callable(value):
                yield suffix, name, value


class Subject:
    """Something to call, and arguments that work."""
    def __init__(self, name, find, owner=None):
        self.name, self.find, self.owner = name, find, owner
        function = find(owner() if owner else None)
        instance = owner() if owner else None
        self.parameters = [
            p.name for p in inspect.signature(function).parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self.make = good_arguments(name, function, instance)
        self.parameters += [k for k in self.make if k not in self.parameters]

    def call(self, kwargs):
        function = self.find(self.owner() if self.owner else None)
        return function(**kwargs)

    def good(self):
        return {k: make() for k, make in self.make.items()}


def subjects() -> list[Subject]:
    """All public callables, with the methods of the classes among them."""
    out = []
    for _, name, value in public_names():
        if name in SKIPPED:
            continue
        out.append(Subject(name, lambda _, value=value: value))
        if not inspect.isclass(value):
            continue
        made = out[-1]

        def owner(made=made):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                return made.call(made.good())
        try:
            instance = owner()
        except (FileNotFoundError, ImportError):
            continue  # a dataset without its files
        base = MessagePassing if isinstance(
            instance, MessagePassing) else torch.nn.Module
        for method, f in inspect.getmembers(type(instance)):
            mine = getattr(f, '__module__', '') or ''
            if method.startswith('_') or method in METHODS or not callable(
                    f) or not mine.startswith('pyg_steerable') or (
                        method != 'forward' and hasattr(base, method)):
                continue
            full = f'{name}.{method}'
            function = getattr(instance, method)
            if full in SKIPPED:
                continue
            if not inspect.signature(function).parameters:
                continue
            if full == 'FieldType.wrap' or isinstance(
                    inspect.getattr_static(type(instance), method),
                    (classmethod, staticmethod)):
                out.append(Subject(full, lambda _, f=function: f))
            else:
                out.append(Subject(
                    full, lambda o, method=method: getattr(o, method),
                    owner))
    return out


# Arguments that do not #####################################################


def odd_tensor(like, rng):
    """A tensor that differs from one that works in one respect."""
    def remade(shape):
        if like.is_floating_point():
            return torch.randn(shape)
        return torch.zeros(shape, dtype=like.dtype)

    shape = list(like.shape)
    kinds = [
        lambda: like[..., :-1] if like.dim() else like[None],
        lambda: like[:0], lambda: like.unsqueeze(0),
        lambda: like.flatten(), lambda: torch.tensor(1.),
        lambda: remade([*shape[:-1], shape[-1] + 1] if shape else [2]),
        lambda: remade([shape[0] + 3, *shape[1:]] if shape else [2]),
        lambda: like.double(), lambda: like.half(), lambda: like.bfloat16(),
        lambda: like.int(), lambda: like.bool(), lambda: like.to(
            torch.complex64), lambda: like.to('meta'),
        lambda: like.float().to_sparse(),
        lambda: torch.quantize_per_tensor(like.float(), 0.1, 0, torch.qint8),
        lambda: torch.full_like(like.float(), float('nan')),
        lambda: torch.full_like(like.float(), float('inf')),
        lambda: like.float() * 1e30, lambda: like.double() * 1e300,
        lambda: torch.full_like(like, 10**6 if not like.is_floating_point()
                                else 1e6),
        lambda: -like - 1 if like.dtype != torch.bool else like,
        lambda: like.numpy(), lambda: like.tolist(),
        lambda: like.clone().requires_grad_() if like.is_floating_point()
        else like,
        lambda: torch.as_strided(torch.zeros(1), like.shape,
                                 [0] * like.dim()),
    ]
    try:
        return rng.choice(kinds)()
    except (RuntimeError, TypeError, ValueError, IndexError,
            NotImplementedError):
        return Nonsense()


def odd_values(rng) -> list:
    """Of every kind, one of which may replace any argument."""
    return [
        None, Nonsense(), 'text', '', b'bytes', [], {}, (), {'a': 1},
        lambda *a, **k: None, -1, 0, 1, 2, 3, 7, 2**31, 2**63, -2**31,
        10**400, 0., -0.5, 0.5, 1.5, 1e300, 1e-300, float('nan'),
        float('inf'), -float('inf'), True, False, 1j, np.int64(3),
        np.float32(0.5), np.array([1., 2.]), np.array('a'), np.zeros((2, 2)),
        np.bool_(True), torch.tensor(3), torch.tensor(0.5),
        torch.tensor([1, 2]), torch.zeros(0), torch.zeros(0, 3),
        torch.zeros(0, dtype=torch.long), torch.ones(3, 3),
        2 * torch.eye(3), torch.eye(3), torch.zeros(3, device='meta'),
        torch.eye(3).to_sparse(), torch.eye(3).bool(), torch.randn(10, 5),
        torch.full((10, 3), float('nan')), torch.Generator(),
        torch.float64, torch.int64, torch.device('cpu'), Group('O'), T,
        FieldType('1x0e', 'O'), FieldType([], G), FieldType('1x5e', G),
        Representation.regular('C2'), torch.nn.Linear(2, 2), Data(),
        Batch.from_data_list([cloud(), cloud()]), lattice(),
        [1, 2], [0.5, 'a'], ['1o'], [T, T], [None], (1, 2, 3), range(3),
        [2**40] * 3, 'C4', '1x0e', '9999999999x0e', '1x99e', 'SO(2)', 'x',
        'max', Path('/nonexistent/file'), str(folder), '\0', slice(None),
        {1, 2}, Voxels(T),
    ]


def spoil(good: dict, subject: Subject, rng) -> tuple[dict, list]:
    """One or two arguments replaced, left out or added."""
    kwargs, changed = dict(good), []
    if not subject.parameters:
        return kwargs, changed
    for _ in range(1 if rng.random() < 0.8 else 2):
        name = rng.choice(subject.parameters)
        # 48 frames of a movie, the default, take longer than a call may.
        if rng.random() < 0.04 and name != 'frames':
            kwargs.pop(name, None)
            changed.append((name, 'left out'))
            continue
        value = good.get(name)
        if isinstance(value, torch.Tensor) and rng.random() < 0.6:
            kwargs[name] = odd_tensor(value, rng)
        else:
            kwargs[name] = rng.choice(odd_values(rng))
        changed.append((name, short(kwargs[name])))
    return kwargs, changed


def short(value) -> str:
    if isinstance(value, torch.Tensor):
        return f'tensor {value.dtype} {list(value.shape)} {value.layout}'
    return repr(value)[:80]


# Verdicts ##################################################################


class Hang(BaseException):
    """The call took too long."""


def _alarm(*_):
    raise Hang


FINE = (ValueError, TypeError, ImportError, FileNotFoundError, MemoryError,
        IsADirectoryError, NotADirectoryError, PermissionError)


def verdict(subject: Subject, kwargs: dict) -> str | None:
    """What is wrong with how the call ended, if anything is."""
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(
                io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            subject.call(kwargs)
    except Hang:
        return f'hang: over {SECONDS} s'
    except FINE as error:
        return _bad_message(error)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return (f'{type(error).__name__}: {str(error)[:160]} [at '
                f'{Path(at.filename).name}:{at.lineno}]')
    finally:
        signal.alarm(0)
    taken = [k for k, v in kwargs.items() if isinstance(v, Nonsense)]
    return f'accepted: nonsense for {taken}' if taken else None


def _bad_message(error: Exception) -> str | None:
    text, frames = str(error), traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    # Python itself, of the call: a missing or unknown argument.
    if isinstance(error, TypeError) and 'argument' in text and (
            last.filename == __file__ or '__init__()' in text
            or re.search(r'\w\(\) (missing|got an unexpected|takes)', text)):
        return None
    if isinstance(error, OSError):
        return None if text else 'empty message'
    where = f'[at {Path(last.filename).name}:{last.lineno}]'
    if not last.filename.startswith(PACKAGE):
        return f'raw {type(error).__name__}: {text[:160]} {where}'
    if isinstance(error, (ImportError, MemoryError)):
        return None
    if 'Expected' not in text or '(got' not in text:
        return f'message: {text[:160]} {where}'
    return None


def run(calls: int, seed: int, only: str | None = None) -> dict:
    """Faults of so many calls, by subject."""
    signal.signal(signal.SIGALRM, _alarm)
    torch.set_num_threads(1)
    faults, found = [], [s for s in subjects()
                         if only is None or s.name.startswith(only)]
    for i in range(calls):
        rng = random.Random(f'{seed}/{i}')
        torch.manual_seed(rng.randrange(2**31))
        subject = found[(i + seed) % len(found)]
        kwargs, changed = spoil(subject.good(), subject, rng)
        fault = verdict(subject, kwargs)
        if fault:
            faults.append(dict(call=i, subject=subject.name, fault=fault,
                               changed=changed))
    return dict(calls=calls, subjects=len(found), faults=faults)


def run_apart(calls: int, seed: int, only: str | None, gigabytes: float
              ) -> dict:
    """The same in a process of its own, with bounded memory: a crash of the
    process is a fault, too.
    """
    command = [sys.executable, str(Path(__file__).resolve()), '--calls',
               str(calls), '--seed', str(seed), '--json', '--here',
               '--memory', str(gigabytes)]
    command += ['--only', only] if only else []
    with tempfile.TemporaryDirectory() as room:  # texts can name files
        done = subprocess.run(command, capture_output=True, text=True,
                              cwd=room)
    if done.returncode:
        return dict(calls=calls, subjects=0, faults=[dict(
            call=-1, subject='?', changed=[],
            fault=f'crash: status {done.returncode} {done.stderr[-600:]}')])
    return json.loads(done.stdout.splitlines()[-1])


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--calls', type=int, default=5000,
                        help='how many calls (default: 5000)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the calls (default: 0)')
    parser.add_argument('--only', help='subjects that start with this '
                        '(default: all)')
    parser.add_argument('--memory', type=float, default=6.,
                        help='GB that a process may take (default: 6)')
    parser.add_argument('--chunk', type=int, default=2500,
                        help='calls of one process (default: 2500)')
    parser.add_argument('--json', action='store_true',
                        help='print the faults as JSON')
    parser.add_argument('--here', action='store_true',
                        help='in this process')
    args = parser.parse_args(argv)
    if args.here:
        limit = int(args.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        result = run(args.calls, args.seed, args.only)
        print(json.dumps(result))
        return 0
    faults, done = [], 0
    while done < args.calls:
        size = min(args.chunk, args.calls - done)
        result = run_apart(size, args.seed + done, args.only, args.memory)
        faults += result['faults']
        done += size
        if not args.json:
            for fault in result['faults']:
                print(fault, file=sys.stderr)
            print(f'{done} calls of {result["subjects"]} subjects, '
                  f'{len(faults)} faults', file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps(dict(calls=done, faults=faults)))
        return bool(faults)
    kinds = collections.Counter(
        (f['subject'], f['fault'].split(':')[0]) for f in faults)
    for (subject, kind), count in kinds.most_common():
        example = next(f for f in faults if f['subject'] == subject
                       and f['fault'].startswith(kind))
        print(f'{count:4d} {subject}: {example["fault"]} with '
              f'{example["changed"]}')
    print(f'{done} calls, {len(faults)} faults')
    return bool(faults)


if __name__ == '__main__':
    os.environ.setdefault('MPLBACKEND', 'Agg')
    raise SystemExit(main())
