r"""Tetris: eight shapes of four cubes, two of them mirror images, as points
and as voxels.

Small steerable networks learn the shapes in one orientation and are tested in
others, points in any, voxels in the 24 that their grid has::

    python examples/tetris.py

Under SO(3) they tell all shapes apart. Invariants of O(3) are the same for a
shape and its mirror image: whatever the training, one of the two is wrong.
The plot shows which shape is taken for which. Stopped and started again, the
command goes on after the last network that it has trained.
"""
import argparse
import itertools
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_add_pool
from tqdm import tqdm

from pyg_steerable import FieldType
from pyg_steerable.datasets import TETRIS, tetris_points, tetris_voxels
from pyg_steerable.graph import VoxelToGraph, radius_graph
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
    """Convolutions of 3 x 3 x 3 voxels, and a sum of invariants."""
    def __init__(self, group: str, channels: int = 8):
        super().__init__()
        one, last = FieldType('0e', group), FieldType('32x0e', group)
        hidden = FieldType.sphere(channels, 2, group)
        self.layers = torch.nn.ModuleList([
            LatticeBlock(one, hidden, 3), LatticeBlock(hidden, hidden, 3),
            LatticeBlock(hidden, last, 3), LatticeGlobalPool('sum')])
        self.linear = torch.nn.Linear(32, 8)

    def forward(self, data):
        x = data.x
        for layer in self.layers:
            x = layer(x, data)
        return self.linear(x)


def load(kind: str, rotations: str, copies: int, seed: int):
    """All shapes in one batch, each copy turned at random."""
    if kind == 'points':
        shapes = tetris_points(copies, rotations, seed)
    else:
        # Graphs of the four voxels: where they lie in a grid is not seen.
        shapes = tetris_voxels(copies, rotations, seed, cell=1, pad=0,
                               transform=VoxelToGraph(3, occupied=True))
    return next(iter(DataLoader(shapes, len(shapes))))


def train(kind: str, group: str, steps: int, seed: int):
    """A network that has learned the shapes in one orientation."""
    torch.manual_seed(seed)
    data = load(kind, '1', 1, seed)
    net = {'points': PointNet, 'voxels': VoxelNet}[kind](group)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in tqdm(range(steps), f'{kind}, {group}, seed {seed}', leave=False):
        optimizer.zero_grad()
        loss = cross_entropy(net(data), data.y)
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def test(net, kind: str, copies: int, seed: int) -> list[list[int]]:
    """How often each shape (row), turned, is taken for which (column)."""
    data = load(kind, 'SO(3)' if kind == 'points' else 'O', copies, seed + 1)
    found = torch.zeros(8, 8, dtype=torch.long)
    found.index_put_((data.y, net(data).argmax(1)), torch.tensor(1),
                     accumulate=True)
    return found.tolist()


def accuracy(matrix: list[list[int]]) -> float:
    matrix = torch.tensor(matrix)
    return float(matrix.trace() / matrix.sum())


def plot(found: dict[str, dict], path: Path) -> None:
    """What test() counts, summed over the seeds."""
    columns = len(found) // 2
    figure, axes = plt.subplots(2, columns, figsize=(0.5 + 3 * columns, 6.5),
                                sharex=True, sharey=True, layout='constrained')
    for ax, (name, seeds) in zip(axes.flat, found.items()):
        ax.imshow(torch.tensor(list(seeds.values())).sum(0).tolist())
        ax.set(title=name, xticks=range(8), yticks=range(8),
               yticklabels=list(TETRIS))
        ax.set_xticklabels(list(TETRIS), rotation=90)
    figure.supxlabel('is taken for')
    figure.supylabel('shape, turned')
    figure.savefig(path, dpi=100)
    plt.close(figure)


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
                        help='a network for each (default: 0 1 2)')
    parser.add_argument('--out', type=Path, default=Path('runs/tetris'),
                        help='folder to write (default: runs/tetris)')
    parser.add_argument('--fresh', action='store_true',
                        help='start again (default: off)')
    return parser


def read(args, path: Path) -> dict:
    """The results so far."""
    options = {k: v for k, v in vars(args).items()
               if k not in ('out', 'fresh')}
    if args.fresh or not path.exists():
        return {'options': options, 'found': {}}
    results = json.loads(path.read_text())
    if results['options'] != options:
        raise ValueError(f"Expected the options of the run in '{args.out}', "
                         f"{results['options']} (got {options}). Start again "
                         f"with '--fresh', or choose another '--out'")
    return results


def main(argv=None) -> dict[str, dict[str, list]]:
    """Runs, or goes on, and prints; returns what test() counts, by kind and
    group, for each seed.
    """
    args = build_parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the tensors are small
    path = args.out / 'results.json'
    results = read(args, path)
    for kind, group, seed in itertools.product(('points', 'voxels'),
                                               args.groups, args.seeds):
        seeds = results['found'].setdefault(f'{kind}, {group}', {})
        if str(seed) not in seeds:
            net = train(kind, group, args.steps, seed)
            seeds[str(seed)] = test(net, kind, args.copies, seed)
            part = path.with_suffix('.part')
            part.write_text(json.dumps(results))
            part.replace(path)  # whole or not at all
    for name, seeds in results['found'].items():
        print(f'{name:13} accuracy on turned shapes: '
              + ', '.join(f'{accuracy(m):.1%}' for m in seeds.values()))
    plot(results['found'], args.out / 'tetris.png')
    print(f"plot: {args.out / 'tetris.png'}")
    return results['found']


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('stopped; without --fresh, the same command goes '
                         'on') from None
