r"""Tetris blocks as voxels: rotations that were never seen ("3D Steerable
CNNs", https://arxiv.org/abs/1807.02547, section 5.1).

Eight blocks, two of them mirror images, are learned from one random
orientation of each and tested in others::

    python -m benchmarks.papers.tetris_voxels --small   # minutes on a CPU
    python -m benchmarks.papers.tetris_voxels --net cnn --no-smooth

The table of the paper, {steerable, CNN} x {low-pass filter before
subsampling, none} x 17 seeds at full size, which wants a GPU::

    python -m benchmarks.papers.tetris_voxels --all --out runs/tetris

Every run is a process of its own; finished ones are kept, an interrupted one
goes on: start the same command again. Options that are not named below are
passed on to the runs.
"""
from __future__ import annotations

import argparse
import sys

from benchmarks.commandline import (
    Preset,
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.classification import (
    Classification,
    add_comparison_option,
    add_schedule_options,
    compare,
    confusion,
    held_then_decayed,
    predict,
    report,
    set_up,
    train,
)
from benchmarks.papers.runs import run_folder
from pyg_steerable.datasets import VoxelGrids, tetris_voxels
from pyg_steerable.models import TetrisCNN, TetrisNet

NETS = ('steerable', 'cnn')
VARIANTS = {
    f'{net}, {kind}': ['--net', net, option] for net in NETS
    for kind, option in (('low-pass', '--smooth'),
                         ('no low-pass', '--no-smooth'))
}
#: Test accuracy in % at full size, in the order of the variants: with
#: low-pass of the paper, without in the comments of its code.
PAPER = dict(zip(VARIANTS, (99, 36, 27, 24)))

#: Fewer and coarser voxels, a narrow network that subsamples once. Without
#: norms it did not learn (its ReLUs died). Statistics follow the full batch.
SMALL = dict(
    cell=2, pad=3, fields=['2x0e + 2x1o + 1x2e', '4x0e + 4x1o + 2x2e',
                           '8x0e + 4x1o + 2x2e'], invariants=24,
    channels=[8, 16, 16, 32], strides=[1, 2, 1, 1], dropout=0., norm=True,
    momentum=0.5, lr=0.05, epochs=130, hold=90, decay=0.93, copies=25,
    threads=1)


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--cell', type=int, default=5,
                      help='voxels along each side of a cell')
    data.add_argument('--pad', type=int, default=8,
                      help='voxels of zeros around the block of 4^3 cells')
    data.add_argument('--orientation', default='random',
                      choices=['random', 'fixed'],
                      help='of the training blocks, one for each, or '
                      'that of the axes')
    data.add_argument('--copies', type=int, default=100,
                      help='random rotations of each block in the test')
    model = parser.add_argument_group('model')
    model.add_argument('--net', default='steerable', choices=NETS,
                       help='steerable network or CNN')
    model.add_argument('--smooth', default=True,
                       action=argparse.BooleanOptionalAction,
                       help='low-pass filter before subsampling')
    model.add_argument('--fields', nargs='+', default=None,
                       metavar='IRREPS', help='of the steerable network '
                       '(default: those of the paper)')
    model.add_argument('--invariants', type=int, default=128,
                       help='scalars before the classifier')
    model.add_argument('--channels', type=int, nargs='+',
                       default=[43, 144, 160, 128], help='of the CNN')
    model.add_argument('--strides', type=int, nargs='+',
                       default=[1, 2, 2, 1],
                       help='of the convolutions')
    model.add_argument('--dropout', type=float, default=0.2,
                       help='before the classifier')
    model.add_argument('--norm', default=False,
                       action=argparse.BooleanOptionalAction,
                       help='batch norm in the steerable network, too')
    model.add_argument('--momentum', type=float, default=0.1,
                       help='of the running statistics of norms')
    add_training_options(parser)
    add_schedule_options(parser, hold=100, decay=0.98)
    parser.set_defaults(epochs=250, batch_size=8, lr=0.1, weight_decay=0.)
    parser.add_argument('--validate-every', type=int, default=10,
                        metavar='EPOCHS',
                        help='how often, with rotations of its own')
    parser.add_argument('--small', action=Preset, presets=SMALL,
                        help='minutes on a CPU')
    add_comparison_option(parser)
    add_smoke_option(parser, **{
        **SMALL, 'cell': 1, 'pad': 2, 'copies': 2, 'epochs': 3,
        'validate_every': 1, 'fields': 3 * ['2x0e+1x1o'],
        'channels': [4, 4, 4, 8], 'invariants': 8})
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line of one run."""
    return read_run(
        build_parser(), argv, lambda args: f'tetris_{args.net}_'
        f'{"smooth" if args.smooth else "rough"}_{args.seed}')


def build_network(args):
    """The network that the options ask for."""
    options = dict(strides=args.strides, smooth=args.smooth,
                   dropout=args.dropout)
    if args.net == 'cnn':
        net = TetrisCNN(channels=args.channels, **options)
    else:
        if args.fields is not None:
            options['fields'] = args.fields
        net = TetrisNet(invariants=args.invariants, norm=args.norm, **options)
    for module in net.modules():
        if hasattr(module, 'momentum'):
            module.momentum = args.momentum
    return net


def load(args, part: str) -> VoxelGrids:
    """Rotations differ between seeds and parts."""
    copies = {'train': 1, 'valid': min(4, args.copies), 'test': args.copies}
    fixed = part == 'train' and args.orientation == 'fixed'
    return tetris_voxels(
        copies[part], '1' if fixed else 'SO(3)',
        3 * args.seed + list(copies).index(part), cell=args.cell,
        pad=args.pad)


def main(argv=None) -> dict:
    """Trains and reports, or runs the whole table; returns the figures."""
    argv = sys.argv[1:] if argv is None else argv
    if '--all' in argv:
        return compare(argv, 'tetris_voxels', VARIANTS,
                       list(range(17)), 'runs/tetris', PAPER)
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    set_up(args)
    module = Classification(args, build_network(args),
                            configure=held_then_decayed)
    valid = load(args, 'valid')
    # The network of the last epoch is tested, as in the paper's code.
    if not train(args, module, load(args, 'train'), valid, keep='last',
                 check_val_every_n_epoch=args.validate_every):
        return {}
    matrix = confusion(*predict(module, load(args, 'test')))
    low_pass = 'low-pass' if args.smooth else 'no low-pass'
    return report(args, module, {'random rotations': matrix}, valid.classes,
                  f'{args.net}, {low_pass}', net=args.net,
                  smooth=args.smooth, size=valid.voxels.shape[-1],
                  orientation=args.orientation, copies=args.copies)


if __name__ == '__main__':
    main()
