"""Kinds of shapes, as point clouds."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import Compose

from benchmarks.tasks.task import Task, first, read_files
from pyg_steerable.datasets import load_points
from pyg_steerable.graph import RandomGroupElement, RandomPointSubset


class ModelNet40(Task, name='modelnet40'):
    """The kind of a shape that is turned about z, from some of its points:
    share of wrong labels. A fifth of the official training clouds, those
    that are not trained on, are for validation.
    """
    units = {'wrong': '%'}
    points = 128

    def __init__(self, args):
        clouds, test = (load_points(str(path)) for path in read_files(
            args, 2, 'of training and of test'))
        self.out_channels = len(clouds.classes)
        order = torch.randperm(len(clouds),
                               generator=torch.Generator().manual_seed(0))
        kept = len(clouds) // 5
        chosen = {
            'valid': (clouds, order[:kept][:args.valid]),
            'train': (clouds, first(order[kept:], args.train, 'train')),
            'test': (test, range(len(test))[:args.valid]),
        }
        self.parts = {part: [dataset[int(i)] for i in index]
                      for part, (dataset, index) in chosen.items()}
        self.transform = Compose([RandomPointSubset(self.points),
                                  RandomGroupElement('SO(2)')])

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return torch.nn.functional.cross_entropy(out, batch.y.flatten(),
                                                 label_smoothing=0.2)

    def errors(self, out: Tensor, batch: Data) -> dict[str, Tensor]:
        wrong = out.argmax(1) != batch.y.flatten()
        return {'wrong': 100. * wrong.float()}
