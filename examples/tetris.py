r"""Tetris: eight shapes of four cubes, two of them mirror images, as points
and as voxels.

Small steerable networks learn the shapes in one orientation and are tested in
others, points in any, voxels in the 24 that their grid has::

    python examples/tetris.py

Under SO(3) they tell all shapes apart. Invariants of O(3) are the same for a
shape and its mirror image: whatever the training, one of the two is wrong.
"""
import argparse

import torch
from torch.nn.functional import cross_entropy
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_add_pool
from tqdm import tqdm

from pyg_steerable import FieldType
from pyg_steerable.datasets import tetris_points, tetris_voxels
from pyg_steerable.graph import radius_graph
from pyg_steerable.nn import (
    ImplicitSteerableConv,
    InvariantReadout,
    LatticeBlock,
    LatticeGlobalPool,
    NormGate,
)


class PointNet(torch.nn.Module):
    """Convolutions over cubes that touch, and a sum of invariants."""
    def __init__(self, group: str, channels: int = 8):
        super().__init__()
        one = FieldType('0e', group)
        hidden = FieldType.sphere(channels, 2, group)
        self.conv1 = ImplicitSteerableConv(one, hidden, num_neighbors=2)
        self.conv2 = ImplicitSteerableConv(hidden, hidden, num_neighbors=2)
        self.conv3 = ImplicitSteerableConv(hidden, hidden, num_neighbors=2)
        self.act1, self.act2 = NormGate(hidden), NormGate(hidden)
        self.readout = InvariantReadout(hidden, 8)

    def forward(self, data):
        pos, batch = data.pos, data.batch
        edge_index = radius_graph(pos, 1.1, batch)
        x = pos.new_ones(len(pos), 1)
        x = self.act1(self.conv1(x, pos, edge_index))
        x = self.act2(self.conv2(x, pos, edge_index))
        x = self.readout(self.conv3(x, pos, edge_index))
        return global_add_pool(x, batch)


class VoxelNet(torch.nn.Module):
    """Convolutions of 3 x 3 x 3 voxels, and a mean of invariants."""
    def __init__(self, group: str, channels: int = 4):
        super().__init__()
        one, last = FieldType('0e', group), FieldType('32x0e', group)
        hidden = FieldType.sphere(channels, 2, group)
        self.layers = torch.nn.Sequential(
            LatticeBlock(one, hidden, 3),
            LatticeBlock(hidden, hidden, 3, norm=True),
            LatticeBlock(hidden, last, 3, norm=True),
            LatticeGlobalPool(), torch.nn.Linear(32, 8))

    def forward(self, data):
        return self.layers(data.voxels)


def load(kind: str, rotations: str, copies: int, seed: int):
    """All shapes in one batch, each copy turned at random."""
    if kind == 'points':
        shapes = tetris_points(copies, rotations, seed)
    else:
        shapes = tetris_voxels(copies, rotations, seed, cell=1, pad=1)
    return next(iter(DataLoader(shapes, len(shapes))))


def run(kind: str, group: str, steps: int, copies: int, seed: int) -> float:
    """The accuracy on shapes that are turned."""
    torch.manual_seed(seed)
    data = load(kind, '1', 1, seed)
    test = load(kind, 'SO(3)' if kind == 'points' else 'O', copies, seed + 1)
    net = {'points': PointNet, 'voxels': VoxelNet}[kind](group)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in tqdm(range(steps), f'{kind}, {group}, seed {seed}', leave=False):
        optimizer.zero_grad()
        loss = cross_entropy(net(data), data.y)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        return float((net(test).argmax(1) == test.y).float().mean())


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--groups', nargs='+', default=['SO(3)', 'O(3)'],
                        help='symmetries to compare (default: SO(3) O(3))')
    parser.add_argument('--steps', type=int, default=100,
                        help='of training, each on all shapes (default: 100)')
    parser.add_argument('--copies', type=int, default=50,
                        help='of each shape in the test (default: 50)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='a run for each (default: 0 1 2)')
    return parser


def main(argv=None) -> dict[tuple[str, str], list[float]]:
    """Prints and returns the accuracies, one for each seed."""
    args = build_parser().parse_args(argv)
    results = {}
    for kind in ('points', 'voxels'):
        for group in args.groups:
            found = [run(kind, group, args.steps, args.copies, seed)
                     for seed in args.seeds]
            results[kind, group] = found
            print(f'{kind} {group:6} accuracy on turned shapes: '
                  + ', '.join(f'{a:.1%}' for a in found))
    return results


if __name__ == '__main__':
    main()
