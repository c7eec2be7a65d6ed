"""Energies and forces of a molecule."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.tasks.task import Task, first, read_files
from pyg_steerable.datasets import load_rmd17, split_rmd17

#: Of a kcal/mol, in meV.
MEV = 43.364106


class RMD17(Task, name='rmd17'):
    """Forces and energies of frames of one molecule: mean absolute errors, of
    a component and of a frame. Networks give energies [B] and forces [N, 3]
    in units of the root mean square force; energies are those above the mean.
    The two files are those of training, of which the last ones validate, and
    of test.
    """
    extensive = True
    units = {'force': 'meV/A', 'energy': 'meV'}
    #: Of the squared error of energies in the loss.
    weight = 0.1

    def __init__(self, args):
        frames, test = (load_rmd17(str(path)) for path in read_files(
            args, 2, 'of training and of test'))
        split = split_rmd17(len(frames), args.train, min(
            args.valid, len(frames) - args.train), 0)
        train = [frames[int(i)] for i in split.train]
        energy = torch.cat([d.energy for d in train])
        force = torch.cat([d.force for d in train])
        mean, self.scale = energy.mean(), float(force.square().mean().sqrt())
        self.elements = sorted(set(train[0].z.tolist()))
        self.parts = {part: [Data(
            z=d.z, pos=d.pos, y=((d.energy - mean) / self.scale).float(),
            force=d.force / self.scale) for d in frames_of]
            for part, frames_of in (
                ('train', train), ('valid', [frames[int(i)]
                                             for i in split.valid]),
                ('test', [test[i] for i in first(range(len(test)), min(
                    1000, len(test)), 'valid')]))}

    def loss(self, out: tuple[Tensor, Tensor], batch: Data) -> Tensor:
        energy, force = out
        return ((force - batch.force).square().mean()
                + self.weight * (energy - batch.y).square().mean())

    def errors(self, out: tuple[Tensor, Tensor], batch: Data
               ) -> dict[str, Tensor]:
        energy, force = out
        factor = MEV * self.scale
        return {'force': factor * (force - batch.force).abs().mean(1),
                'energy': factor * (energy - batch.y).abs()}

    def types(self, group: str) -> tuple[dict, list]:
        return {'pos': 'pos'}, [None, '1o']
