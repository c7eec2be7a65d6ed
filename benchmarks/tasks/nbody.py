"""Motions of a few bodies."""
from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data

from benchmarks.tasks.task import Task, first, read_files
from pyg_steerable.datasets import load_nbody


class NBody(Task, name='nbody'):
    """Where charged particles are some time later, from positions and
    velocities: mean squared error of a coordinate.
    """
    out_channels = 3
    units = {'MSE': 'length^2'}

    def __init__(self, args):
        path, = read_files(args, 1, 'the systems')
        self.parts = {}
        for part in ('train', 'valid', 'test'):
            data = load_nbody(str(path), part)
            kept = first(range(len(data)), args.train if part == 'train'
                         else min(args.valid, len(data)), 'train')
            self.parts[part] = [data[i] for i in kept]

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return (out - batch.y).square().mean()

    def errors(self, out: Tensor, batch: Data) -> dict[str, Tensor]:
        return {'MSE': (out - batch.y).square().mean(1)}

    def types(self, group: str) -> tuple[dict, list]:
        return {'pos': 'pos', 'vel': '1o'}, ['pos']
