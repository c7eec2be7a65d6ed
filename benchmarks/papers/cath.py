r"""Protein domains by their architecture (CATH) from C-alpha atoms as voxels:
the network and the experiment of "3D Steerable CNNs"
(https://arxiv.org/abs/1807.02547), section 5.5::

    python -m benchmarks.papers.cath --npz cath_10arch_ca.npz
    python -m benchmarks.papers.cath --npz FILE --net cnn --reduce 4

The file is that of https://github.com/wouterboomsma/cath_datasets. Without
one, chains made here stand in, which only show that everything runs: they
are no proteins. Defaults are the paper's, for one GPU; started again with the
same --out, it goes on where it was stopped.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor
from torch_geometric.transforms import Compose

from benchmarks.commandline import (
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.classification import (
    Classification,
    add_schedule_options,
    confusion,
    held_then_decayed,
    items,
    predict,
    report,
    set_up,
    subset,
    train,
)
from benchmarks.papers.runs import run_folder
from pyg_steerable.datasets import GaussianDensities, load_cath
from pyg_steerable.graph import RandomGroupElement
from pyg_steerable.models import CathCNN, CathNet

#: Part of the training set -> epochs, epochs with a constant learning rate,
#: its decay; weight decay of the steerable network and of the CNN; dropout
#: of the CNN.
RECIPES = {
    1: (100, 40, 0.94, 1e-8, 1e-7, 0.01),
    2: (200, 80, 0.97, 1.78e-8, 3.16e-7, 0.01125),
    4: (400, 160, 0.985, 3.16e-8, 1e-6, 0.0125),
    8: (800, 320, 0.992, 5.62e-8, 3.16e-6, 0.01375),
    16: (1600, 640, 0.996, 1e-7, 1e-5, 0.015),
}
#: Test accuracy in %, (steerable, CNN).
PAPER = {1: (65.7, 60.9), 2: (64.2, 60.3), 4: (61.8, 57.3), 8: (59.8, 54.6),
         16: (54.4, 48.9)}
NETS = ('steerable', 'cnn')


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults, of the steerable network on all of
    the training set.
    """
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--npz', default=None, metavar='FILE',
                      help='(default: chains made here)')
    data.add_argument('--reduce', type=int, default=1, choices=list(RECIPES),
                      help='train on a part of the set, and longer')
    data.add_argument('--size', type=int, default=50,
                      help='voxels along each axis, of 100 Angstrom in all')
    model = parser.add_argument_group('model')
    model.add_argument('--net', default='steerable', choices=NETS,
                       help='steerable network or its conventional rival')
    model.add_argument('--channels', type=int, nargs='+', default=None,
                       help='of each stage (default: those of the paper, '
                       'different for either network)')
    model.add_argument('--blocks', type=int, nargs='+', default=[3, 4, 6, 3],
                       help='residual blocks of each stage')
    model.add_argument('--degree', type=int, default=3,
                       help='highest degree of the fields')
    model.add_argument('--invariants', type=int, default=256,
                       help='scalars before the classifier')
    add_training_options(parser)
    add_schedule_options(parser, hold=40, decay=0.94)
    parser.add_argument('--l1', type=float, default=1e-8,
                        help='weight of the sum of absolute parameters')
    parser.set_defaults(batch_size=16, lr=0.1)
    add_smoke_option(parser, size=14, channels=[1, 2], blocks=[1, 1],
                     degree=1, invariants=8, epochs=2, threads=1)
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    cnn = NETS.index(args.net)
    epochs, hold, decay, *rest = RECIPES[args.reduce]
    parser.set_defaults(epochs=epochs, hold=hold, decay=decay,
                        l1=rest[cnn], weight_decay=rest[cnn],
                        lr=5e-4 if cnn else 0.1)
    args = read_run(parser, argv, lambda args: f'cath_{args.net}_'
                    f'{args.reduce}_{args.seed}')
    args.dropout = rest[2]
    return args


# Data ########################################################################


def make_chains(path: Path, num: int = 100) -> Path:
    """A file in the published layout with chains of three made-up kinds:
    helices, zigzags and random walks of 3.8 Angstrom steps.
    """
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, num)
    n_atoms = rng.integers(40, 80, num)
    used = np.arange(80) < n_atoms[:, None]
    positions = np.zeros((num, 80, 3))
    for i, n in enumerate(n_atoms):
        positions[i, :n] = _chain(kind[i], n, rng)
    np.savez(path, n_atoms=n_atoms, positions=positions,
             atom_types=np.where(used, 'CA', '').astype('S2'),
             labels=np.stack([kind + 1, np.full(num, 10)], 1),
             split_start_indices=np.arange(10) * (num // 10))
    return path


def _chain(kind: int, n: int, rng) -> np.ndarray:
    """Positions around their centre, turned at random."""
    i = np.arange(n)
    if kind == 0:
        turn = np.deg2rad(100) * i
        pos = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * i], 1)
    elif kind == 1:
        pos = np.stack([i % 2 * 1.8, 0. * i, 3.3 * i], 1)
    else:
        steps = rng.normal(size=(n, 3))
        pos = np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1,
                                                     keepdims=True), 0)
    # Folded back every 60 Angstrom, so that all atoms are inside.
    fold = pos[:, 2] // 60
    pos[:, 2] = np.where(fold % 2 == 0, pos[:, 2] % 60, 60 - pos[:, 2] % 60)
    pos[:, 0] += 6 * fold
    pos -= pos.mean(0)
    pos *= np.minimum(1, 45 / np.linalg.norm(pos, axis=1, keepdims=True))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return pos @ (rotation * np.sign(np.linalg.det(rotation)))


# Training ####################################################################


class Domains(Classification):
    """With an L1 term."""
    def training_step(self, batch, number) -> Tensor:
        loss = super().training_step(batch, number)
        return loss + self.args.l1 * sum(p.abs().sum()
                                         for p in self.net.parameters())


def build_network(args, num_classes: int, in_channels: int):
    """The network that the options ask for."""
    options = dict(blocks=args.blocks)
    if args.channels is not None:
        options['channels'] = args.channels
    if args.net == 'cnn':
        return CathCNN(num_classes, in_channels, dropout=args.dropout,
                       **options)
    return CathNet(num_classes, in_channels, max_degree=args.degree,
                   invariants=args.invariants, **options)


def main(argv=None) -> dict:
    """Trains and reports; returns the figures."""
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    set_up(args)
    path = args.npz
    if path is None:
        path = make_chains(args.out / 'made_up.npz')
        print(f'no --npz: chains made here, not proteins ({path})')
    parts = {part: load_cath(path, part) for part in ('train', 'valid',
                                                      'test')}
    voxels = GaussianDensities(args.size, 100 / args.size)
    turned = Compose([RandomGroupElement('SO(3)'), voxels])
    chosen = subset(parts['train'], len(parts['train']) // args.reduce,
                    'reduce')
    fixed = {part: items(parts[part], voxels, args)
             for part in ('valid', 'test')}
    classes = parts['train'].classes
    module = Domains(
        args, build_network(args, len(classes),
                            len(parts['train'].atom_types)),
        configure=held_then_decayed)
    if not train(args, module, items(parts['train'], turned, args, chosen),
                 fixed['valid']):
        return {}
    matrices = {part: confusion(*predict(module, fixed[part]))
                for part in ('test', 'valid')}
    if args.npz is not None:
        paper = PAPER[args.reduce][NETS.index(args.net)]
        print(f'(paper, test: {paper} %)')
    return report(args, module, matrices, classes, f'CATH, {args.net}',
                  net=args.net, reduce=args.reduce, size=args.size,
                  data=args.npz or 'made up')


if __name__ == '__main__':
    main()
