r"""Shapes as voxels (ModelNet-10), learned upright and recognised in other
rotations: a steerable network beside a plain CNN of ten times its
parameters::

    python -m benchmarks.papers.modelnet10_voxels --npz modelnet10_voxels.npz
    python -m benchmarks.papers.modelnet10_voxels --npz FILE --net cnn
    python -m benchmarks.papers.modelnet10_voxels --npz FILE --all

The layout of the file is that of pyg_steerable.datasets.load_voxels; without
one, shapes are made here. The test has them as they are, turned by one of the
24 rotations of the cube (exact), about z, and in SO(3) (both by trilinear
interpolation: what leaves the grid is lost).

Both networks see the voxels through a low-pass filter on half of the grid,
and have as many convolutions, each with batch norm. Started again with the
same --out, a run goes on where it was stopped.
"""
from __future__ import annotations

import argparse
import sys

import torch
from torch_geometric.transforms import BaseTransform

from benchmarks.commandline import (
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.classification import (
    Classification,
    add_comparison_option,
    compare,
    confusion,
    items,
    predict,
    report,
    set_up,
    subset,
    train,
)
from benchmarks.papers.runs import run_folder
from pyg_steerable import FieldType, Group
from pyg_steerable.datasets import (
    VoxelData,
    VoxelGrids,
    generate_shapes,
    load_voxels,
    rotate_voxels,
)
from pyg_steerable.nn import LatticeGlobalPool, LatticeLowPass, lattice_stack

VARIANTS = {'steerable': ['--net', 'steerable'], 'cnn': ['--net', 'cnn']}
#: Rotations of the test, by the group that they are drawn from.
ROTATIONS = {'aligned': '1', 'cube': 'O', 'z': 'SO(2)', 'SO(3)': 'SO(3)'}


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--npz', default=None, metavar='FILE',
                      help='ModelNet-10 (default: shapes made here)')
    data.add_argument('--train', type=int, default=None,
                      help='use only so many training shapes, a fifth of '
                      'them for validation (default: all)')
    data.add_argument('--test', type=int, default=None,
                      help='use only so many test shapes (default: all)')
    data.add_argument('--train-rotation', default='aligned',
                      choices=list(ROTATIONS),
                      help='random rotations in training and validation')
    model = parser.add_argument_group('model')
    model.add_argument('--net', default='steerable', choices=list(VARIANTS),
                       help='steerable network or CNN')
    model.add_argument('--group', default='SO(3)',
                       help='symmetry of the steerable network')
    model.add_argument('--fields', nargs='+', metavar='IRREPS',
                       default=['6x0e + 4x1o + 2x2e', '12x0e + 6x1o + 3x2e'],
                       help='of the steerable network')
    model.add_argument('--invariants', type=int, default=48,
                       help='scalars before the classifier')
    model.add_argument('--channels', type=int, nargs='+',
                       default=[8, 12, 20], help='of the CNN')
    model.add_argument('--strides', type=int, nargs='+', default=[2, 1, 1],
                       help='of the convolutions')
    add_training_options(parser)
    parser.set_defaults(epochs=20, lr=1e-2)
    add_comparison_option(parser)
    add_smoke_option(parser, train=80, test=40, epochs=1, threads=1,
                     fields=2 * ['2x0e + 1x1o'], invariants=8,
                     channels=[2, 4, 8])
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line of one run."""
    return read_run(build_parser(), argv,
                    lambda args: f'modelnet10_{args.net}_{args.seed}')


# Data ########################################################################


class Rotate(BaseTransform):
    """Turns voxels by a random element of a group, with so many empty ones
    around them that strides keep the centre: sizes are a multiple of the
    product of all strides, and one.
    """
    def __init__(self, group: str, stride: int = 4):
        self.group, self.stride = Group(group), stride

    def forward(self, data: VoxelData) -> VoxelData:
        """Turns one grid."""
        more = (1 - data.voxels.shape[-1]) % self.stride
        grid = torch.nn.functional.pad(
            data.voxels, 3 * (more // 2, more - more // 2))
        data.voxels = rotate_voxels(grid, self.group.sample()[0], 1)
        return data


def made_up_shapes(num: int, seed: int, size: int = 30) -> VoxelGrids:
    """Upright solids, hollow, as large as ModelNet's shapes in their grid:
    what can be had offline.
    """
    clouds = generate_shapes(num, 4096, seed)
    voxels = torch.zeros(num, 1, size, size, size, dtype=torch.bool)
    place = (clouds.points * 0.4 * size + size / 2).long()
    for grid, (x, y, z) in zip(voxels, place.transpose(1, 2)):
        grid[0, z, y, x] = True
    return VoxelGrids(voxels, clouds.label, clouds.classes)


def load(args) -> tuple[VoxelGrids, VoxelGrids]:
    """Training and test set."""
    if args.npz is not None:
        return load_voxels(args.npz, 'train'), load_voxels(args.npz, 'test')
    print('no --npz: solids made here, not ModelNet')
    return (made_up_shapes(args.train or 1000, 1),
            made_up_shapes(args.test or 200, 2))


# Networks ####################################################################


def build_network(args, num_classes: int) -> torch.nn.Sequential:
    """The network that the options ask for."""
    if args.net == 'cnn':
        layers, width = plain_stack(args), args.channels[-1]
    else:
        types = [FieldType(f, args.group) for f in (
            '1x0e', *args.fields, f'{args.invariants}x0e')]
        layers = lattice_stack(types, args.strides, smooth=True, norm=True)
        width = args.invariants
    return torch.nn.Sequential(LatticeLowPass(2., stride=2), layers,
                               LatticeGlobalPool(),
                               torch.nn.Linear(width, num_classes))


def plain_stack(args) -> torch.nn.Sequential:
    """Convolutions of the same form without symmetry."""
    if len(args.strides) != len(args.channels):
        raise ValueError(f"Expected '--strides' to be {len(args.channels)} "
                         f"numbers, one for each of '--channels' (got "
                         f"{args.strides})")
    layers, before = [], 1
    for after, stride in zip(args.channels, args.strides):
        layers += [torch.nn.Conv3d(before, after, 5, padding=2),
                   torch.nn.BatchNorm3d(after), torch.nn.ReLU()]
        if stride > 1:
            layers.append(LatticeLowPass(stride, stride))
        before = after
    return torch.nn.Sequential(*layers)


def main(argv=None) -> dict:
    """Trains and reports, or compares; returns the figures."""
    argv = sys.argv[1:] if argv is None else argv
    if '--all' in argv:
        return compare(argv, 'modelnet10_voxels', VARIANTS, [0, 1, 2],
                       'runs/modelnet10')
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    set_up(args)
    train_set, test_set = load(args)
    chosen = subset(train_set, args.train, 'train')
    cut = max(1, len(chosen) // 5)
    turned = Rotate(ROTATIONS[args.train_rotation])
    module = Classification(args, build_network(args,
                                                len(train_set.classes)))
    if not train(args, module, items(train_set, turned, args, chosen[cut:]),
                 items(train_set, turned, args, chosen[:cut])):
        return {}
    kept = subset(test_set, args.test, 'test')
    matrices = {
        name: confusion(*predict(module, items(test_set, Rotate(group), args,
                                               kept)))
        for name, group in ROTATIONS.items()
    }
    return report(args, module, matrices, train_set.classes,
                  f'{args.net}, aligned', net=args.net, group=args.group,
                  train=len(chosen), test=len(kept),
                  train_rotation=args.train_rotation,
                  data=args.npz or 'made up')


if __name__ == '__main__':
    main()
