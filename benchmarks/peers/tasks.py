"""Data, loss and error of each task of the comparison."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from pyg_steerable.datasets import TARGETS, load_points, load_qm9, split_qm9
from pyg_steerable.graph import RandomGroupElement, RandomPointSubset

#: By name.
TASKS: dict[str, type[Task]] = {}


class Task:
    """Three parts of a data set, with targets :obj:`y`, and how to judge.

    Args:
        files (list[Path]): The data.
        train (int): Samples to train on, the first ones.
        valid (int): Samples to validate on; the test has no more.
    """
    out_channels = 1
    unit: str
    #: Whether samples are drawn anew at every access.
    transform = None

    def __init_subclass__(cls, name: str):
        TASKS[name] = cls
        cls.name = name

    name: str
    parts: dict[str, Sequence[Data]]

    def __init__(self, files: list[Path], train: int, valid: int):
        raise NotImplementedError

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        """What is minimised."""
        raise NotImplementedError

    def error(self, out: Tensor, batch: Data) -> Tensor:
        """The errors of single samples, which are averaged, in
        :obj:`unit`.
        """
        raise NotImplementedError


def _first(indices: Sequence, count: int, what: str) -> list[int]:
    if not 0 < count <= len(indices):
        raise ValueError(f"Expected '--{what}' to be at most {len(indices)}, "
                         f"the samples that there are (got {count})")
    return [int(i) for i in indices[:count]]


class QM9(Task, name='qm9'):
    """The energy of the highest occupied orbital: mean absolute error."""
    unit = 'meV'

    def __init__(self, files: list[Path], train: int, valid: int):
        dataset = load_qm9(str(files[0]) if files else 'sample')
        target = TARGETS['homo']
        parts = split_qm9(len(dataset))
        chosen = {'train': _first(parts.train, train, 'train'),
                  'valid': _first(parts.valid, min(valid, len(parts.valid)),
                                  'valid'),
                  'test': _first(parts.test, min(valid, len(parts.test)),
                                 'valid')}
        y = torch.cat([dataset[i].y[:, target.column]
                       for i in chosen['train']])
        mean, std = float(y.mean()), float(y.std())
        self.scale = std * target.factor
        self.unit = target.report_unit
        self.parts = {part: [Data(
            x=d.x, z=d.z, pos=d.pos, edge_index=d.edge_index,
            edge_attr=d.edge_attr, y=(d.y[:, target.column] - mean) / std)
            for d in (dataset[i] for i in index)]
            for part, index in chosen.items()}

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return (out.squeeze(-1) - batch.y).abs().mean()

    def error(self, out: Tensor, batch: Data) -> Tensor:
        return (out.squeeze(-1) - batch.y).abs() * self.scale


class NBody(Task, name='nbody'):
    """Where charged particles are 1,000 steps later, from positions and
    velocities: mean squared error of a coordinate.
    """
    out_channels = 3
    unit = 'length^2'

    def __init__(self, files: list[Path], train: int, valid: int):
        if len(files) != 1:
            raise ValueError(f"Expected one file of '--npz' for nbody (got "
                             f"{len(files)})")
        self.parts = {}
        with np.load(files[0]) as raw:
            for part in ('train', 'valid', 'test'):
                rows = {key: torch.from_numpy(raw[f'{part}_{key}']).float()
                        for key in ('charge', 'pos', 'vel', 'target')}
                size, bodies = rows['charge'].shape
                count = train if part == 'train' else min(valid, size)
                pairs = (1 - torch.eye(bodies)).nonzero().T.contiguous()
                self.parts[part] = [Data(
                    charge=rows['charge'][i, :, None], pos=rows['pos'][i],
                    vel=rows['vel'][i], y=rows['target'][i],
                    edge_index=pairs)
                    for i in _first(range(size), count, 'train')]

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return (out - batch.y).square().mean()

    def error(self, out: Tensor, batch: Data) -> Tensor:
        return (out - batch.y).square().mean(1)


class ModelNet40(Task, name='modelnet40'):
    """The kind of a shape that is turned about z, from some of its points:
    share of wrong labels. A fifth of the official training clouds, those
    that are not trained on, are for validation.
    """
    unit = '%'
    points = 128

    def __init__(self, files: list[Path], train: int, valid: int):
        if len(files) != 2:
            raise ValueError(f"Expected two files of '--npz' for modelnet40, "
                             f"of training and of test (got {len(files)})")
        clouds, test = (load_points(str(path)) for path in files)
        self.out_channels = len(clouds.classes)
        order = torch.randperm(len(clouds),
                               generator=torch.Generator().manual_seed(0))
        kept = len(clouds) // 5
        chosen = {
            'valid': (clouds, order[:kept][:valid]),
            'train': (clouds, _first(order[kept:], train, 'train')),
            'test': (test, range(len(test))[:valid]),
        }
        self.parts = {part: [dataset[int(i)] for i in index]
                      for part, (dataset, index) in chosen.items()}
        self.transform = Compose([RandomPointSubset(self.points),
                                  RandomGroupElement('SO(2)')])

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return torch.nn.functional.cross_entropy(out, batch.y.flatten(),
                                                 label_smoothing=0.2)

    def error(self, out: Tensor, batch: Data) -> Tensor:
        return 100. * (out.argmax(1) != batch.y.flatten()).float()
