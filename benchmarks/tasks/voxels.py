"""Kinds of shapes, as voxels."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.papers.modelnet10_voxels import Rotate
from benchmarks.tasks.task import Task, first, read_files
from pyg_steerable import FieldType, testing
from pyg_steerable.datasets import load_voxels


class Voxels(Task, name='voxels'):
    """The kind of a shape that is turned by one of the 24 rotations of a
    cube: share of wrong labels. Those of the training shapes that come after
    the ones that are trained on are for validation.
    """
    units = {'wrong': '%'}

    def __init__(self, args):
        path, = read_files(args, 1, 'the shapes')
        shapes, test = (load_voxels(str(path), part)
                        for part in ('train', 'test'))
        self.out_channels = len(shapes.classes)
        order = torch.randperm(len(shapes),
                               generator=torch.Generator().manual_seed(0))
        train = first(order[:-1], args.train, 'train')
        valid = order[len(train):][:args.valid].tolist()
        self.parts = {'train': [shapes[i] for i in train],
                      'valid': [shapes[i] for i in valid],
                      'test': [test[i] for i in range(len(test))[
                          :args.valid]]}
        self.transform = Rotate('O')

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return torch.nn.functional.cross_entropy(out, batch.y.flatten())

    def errors(self, out: Tensor, batch: Data) -> dict[str, Tensor]:
        wrong = out.argmax(1) != batch.y.flatten()
        return {'wrong': 100. * wrong.float()}

    def types(self, group: str) -> tuple[dict, list]:
        return {'voxels': testing.Voxels(FieldType('1x0e', group))}, [None]
