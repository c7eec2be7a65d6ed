r"""Tetris on points: eight shapes, two of them mirror images of each other.

A small steerable network is trained on the eight shapes in one orientation
and tested on random rotations of them::

    python -m benchmarks.papers.tetris_points

Under SO(3) it tells all of them apart. Invariants of O(3) are the same for a
shape and its mirror image: whatever the training, one of the two is wrong.
"""
from __future__ import annotations

import argparse

import torch
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_add_pool

from benchmarks.commandline import new_parser
from pyg_steerable import FieldType
from pyg_steerable.datasets import tetris_points
from pyg_steerable.graph import radius_graph
from pyg_steerable.nn import ImplicitSteerableConv, InvariantReadout, NormGate


class Net(torch.nn.Module):
    """Two convolutions over adjacent cells, and a sum of invariants."""
    def __init__(self, group: str, num_classes: int, channels: int = 8):
        super().__init__()
        one = FieldType('0e', group)
        hidden = FieldType.sphere(channels, 2, group)
        self.conv1 = ImplicitSteerableConv(one, hidden, num_neighbors=2)
        self.conv2 = ImplicitSteerableConv(hidden, hidden, num_neighbors=2)
        self.conv3 = ImplicitSteerableConv(hidden, hidden, num_neighbors=2)
        self.act1, self.act2 = NormGate(hidden), NormGate(hidden)
        self.readout = InvariantReadout(hidden, num_classes)

    def forward(self, pos, edge_index, batch):
        x = pos.new_ones(len(pos), 1)
        x = self.act1(self.conv1(x, pos, edge_index))
        x = self.act2(self.conv2(x, pos, edge_index))
        x = self.readout(self.conv3(x, pos, edge_index))
        return global_add_pool(x, batch)


def graph(data):
    """Cells that touch, in one batch with their edges."""
    pos = data.pos
    return pos, radius_graph(pos, 1.1, data.batch), data.batch


def run(group: str, steps: int, copies: int, seed: int) -> float:
    """The accuracy on rotated shapes."""
    torch.manual_seed(seed)
    train = next(iter(DataLoader(tetris_points(1, '1'), 8)))
    test = next(iter(DataLoader(tetris_points(copies, seed=seed + 1),
                                8 * copies)))
    net = Net(group, 8)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    inputs = graph(train)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(*inputs), train.y)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        label = net(*graph(test)).argmax(-1)
    return float((label == test.y).float().mean())


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('--groups', nargs='+', default=['SO(3)', 'O(3)'],
                        help='symmetries to compare')
    parser.add_argument('--steps', type=int, default=100,
                        help='of training, each on all eight shapes')
    parser.add_argument('--copies', type=int, default=50,
                        help='random rotations of each shape in the test')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='a run for each')
    return parser


def main(argv=None) -> dict:
    """Prints and returns the accuracies."""
    args = build_parser().parse_args(argv)
    results = {}
    for group in args.groups:
        results[group] = [run(group, args.steps, args.copies, seed)
                          for seed in args.seeds]
        print(f'{group:6} accuracy on rotated shapes, one for each seed: '
              + ', '.join(f'{a:.1%}' for a in results[group]))
    return results


if __name__ == '__main__':
    main()
