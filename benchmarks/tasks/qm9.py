"""Properties of molecules."""
from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.tasks.task import Task, first
from pyg_steerable.datasets import TARGETS, load_qm9, split_qm9

#: Sums over atoms.
EXTENSIVE = ('alpha', 'r2', 'zpve', 'U0', 'U', 'H', 'G', 'Cv')


class QM9(Task, name='qm9'):
    """One property of molecules (:obj:`--target`): mean absolute error."""
    def __init__(self, args):
        dataset = load_qm9(str(args.npz[0]) if args.npz else 'sample')
        target = TARGETS[args.target]
        split = split_qm9(len(dataset))
        chosen = {'train': first(split.train, args.train, 'train'),
                  'valid': split.valid[:args.valid].tolist(),
                  'test': split.test[:args.valid].tolist()}
        y = torch.cat([dataset[i].y[:, target.column]
                       for i in chosen['train']])
        mean, std = float(y.mean()), float(y.std())
        self.extensive = args.target in EXTENSIVE
        self.scale = std * target.factor
        self.units = {'MAE': target.report_unit}
        self.parts = {part: [Data(
            x=d.x, z=d.z, pos=d.pos, edge_index=d.edge_index,
            edge_attr=d.edge_attr, y=(d.y[:, target.column] - mean) / std)
            for d in (dataset[i] for i in index)]
            for part, index in chosen.items()}

    def loss(self, out: Tensor, batch: Data) -> Tensor:
        return (out.squeeze(-1) - batch.y).abs().mean()

    def errors(self, out: Tensor, batch: Data) -> dict[str, Tensor]:
        return {'MAE': (out.squeeze(-1) - batch.y).abs() * self.scale}
