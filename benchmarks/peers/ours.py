"""Our networks, as they are by default unless the name says otherwise."""
from __future__ import annotations

from functools import lru_cache

import torch
from torch_geometric.data import Data

from benchmarks.papers.training import channels_for
from benchmarks.peers.network import Network
from benchmarks.tasks import Task
from pyg_steerable.graph import RadiusGraph
from pyg_steerable.kernels import BasisSpec, HarmonicBasis, ImplicitBasis
from pyg_steerable.models import (
    ModelNetClassifier,
    NBodyNet,
    Potential,
    QM9Net,
)
from pyg_steerable.nn import calibrate

# Molecules ###################################################################


class _OnMolecules(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = QM9Net(5, **options)

    def forward(self, batch: Data):
        return self.net(batch.x, batch.pos, batch.edge_index,
                        batch.edge_attr, batch.batch, batch.num_graphs)


class Ours(Network, name='QM9Net', tasks=['qm9']):
    """On bonds; kernels see them and the atoms."""
    group = 'O(3)'
    options: dict = dict(edge_dim=4, atom_dim=5)

    def build(self, task: Task) -> torch.nn.Module:
        return _OnMolecules(group=self.group, pool='sum' if task.extensive
                            else 'attention', **self.options)


class OursWide(Ours, name='QM9Net, wide', tasks=['qm9']):
    """With twice the channels."""
    options = dict(edge_dim=4, atom_dim=5, channels=32, invariants=128)


class OursSmall(Ours, name='QM9Net, small', tasks=['qm9']):
    """With half the blocks."""
    options = dict(edge_dim=4, atom_dim=5, blocks=2)


class OursBonds(Ours, name='QM9Net, bonds', tasks=['qm9']):
    """Kernels see the bonds."""
    options = dict(edge_dim=4)


class OursPlain(Ours, name='QM9Net, positions', tasks=['qm9']):
    """Kernels see positions alone."""
    options: dict = {}


class OursHarmonic(Ours, name='QM9Net, harmonic', tasks=['qm9']):
    """The same with predefined kernels."""
    options = dict(kernel='harmonic')


# Particles ###################################################################


class _OnParticles(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = NBodyNet(**options)

    def forward(self, batch: Data):
        return self.net(batch.charge, batch.pos, batch.vel, batch.edge_index,
                        batch.batch, batch.num_graphs)


class OursOnParticles(Network, name='NBodyNet', tasks=['nbody']):
    """Kernels see charges, distances and velocities."""
    group = 'O(3)'
    options: dict = {}

    def build(self, task: Task) -> torch.nn.Module:
        return _OnParticles(group=self.group, **self.options)

    def start(self, task: Task, net: torch.nn.Module, batch: Data) -> None:
        calibrate(net, batch)


class OursScalars(OursOnParticles, name='NBodyNet, scalars',
                  tasks=['nbody']):
    """Kernels do not see the velocities."""
    options = dict(attributes='scalars')


class OursNone(OursOnParticles, name='NBodyNet, positions',
               tasks=['nbody']):
    """Kernels see positions alone."""
    options = dict(attributes='none')


# Clouds ######################################################################


class _OnClouds(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = ModelNetClassifier(**options)

    def forward(self, batch: Data):
        return self.net(batch.pos, batch.batch, batch_size=batch.num_graphs)


def _cloud_net(channels: int, num_classes: int, group: str,
               kernel: BasisSpec) -> torch.nn.Module:
    return _OnClouds(num_classes=num_classes, group=group, kernel=kernel,
                     max_degree=1, channels=channels, ratios=(0.5, 0.5, 0.5),
                     invariants=64, mlp=64, num_points=128)


@lru_cache
def _channels(*options) -> int:
    return channels_for(40_000, lambda n: _cloud_net(n, *options))


class OursOnClouds(Network, name='SO(2)xM, harmonic', tasks=['modelnet40']):
    """Three convolutions, for the group of a thing that stands, of as many
    channels as 40,000 parameters allow.
    """
    group = 'SO(2)xM'
    kernel = HarmonicBasis.spec()

    def build(self, task: Task) -> torch.nn.Module:
        options = (task.out_channels, self.group, self.kernel)
        return _cloud_net(_channels(*options), *options)


def _on_clouds(group: str, word: str, kernel: BasisSpec) -> None:
    type(f'OursOnClouds {group} {word}', (OursOnClouds, ),
         {'group': group, 'kernel': kernel}, name=f'{group}, {word}',
         tasks=['modelnet40'])


_IMPLICIT = ImplicitBasis.spec(hidden=4, max_degree=2)
_on_clouds('SO(2)xM', 'implicit', _IMPLICIT)
for _group in ('SO(2)', 'M', 'SO(3)'):
    _on_clouds(_group, 'harmonic', OursOnClouds.kernel)
    _on_clouds(_group, 'implicit', _IMPLICIT)


# Forces ######################################################################


class _OnFrames(torch.nn.Module):
    def __init__(self, elements: list[int], **options):
        super().__init__()
        self.net = Potential(elements, **options)

    def forward(self, batch: Data):
        energy, forces, _ = self.net(
            batch.z, batch.pos, batch.batch, batch_size=batch.num_graphs,
            edge_index=batch.edge_index)
        return energy.to(forces.dtype), forces


class OursOnFrames(Network, name='Potential', tasks=['rmd17']):
    """Pairs of atoms within a cutoff."""
    group = 'O(3)'
    options: dict = {}
    cutoff = 4.

    def prepare(self, task: Task, data: Data) -> Data:
        return RadiusGraph(self.cutoff)(data)

    def build(self, task: Task) -> torch.nn.Module:
        return _OnFrames(task.elements, group=self.group,
                         cutoff=self.cutoff, **self.options)

    def start(self, task: Task, net: torch.nn.Module, batch: Data) -> None:
        calibrate(net.net, batch.z, batch.pos, batch.batch, forces=False)


class OursImplicit(OursOnFrames, name='Potential, implicit',
                   tasks=['rmd17']):
    """With implicit kernels."""
    options = dict(kernel='implicit')
