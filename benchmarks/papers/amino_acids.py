r"""Which amino acid is missing in its surroundings, as voxels: the network and
the experiment of "3D Steerable CNNs" (https://arxiv.org/abs/1807.02547),
section 5.4::

    python -m benchmarks.papers.amino_acids --root FOLDER_OF_PDB_FILES

Proteins are split into training, validation and test. Without a folder,
chains made here stand in, which only show that everything runs: they are no
proteins. Defaults are those of the baseline that the paper compares with (its
own are not published), for one GPU; started again with the same --out, it
goes on where it was stopped.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.commandline import (
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.classification import (
    Classification,
    adam,
    confusion,
    items,
    predict,
    report,
    set_up,
    train,
)
from benchmarks.papers.runs import run_folder
from pyg_steerable.datasets import AminoAcidEnvironments, GaussianDensities
from pyg_steerable.models import AminoAcidNet

SUFFIXES = ('.pdb', '.ent', '.cif', '.mmcif')


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--root', type=Path, default=None,
                      help='folder of PDB or mmCIF files, also .gz '
                      '(default: chains made here)')
    data.add_argument('--on-error', default='error',
                      choices=['error', 'skip'],
                      help='what to do about damaged files')
    data.add_argument('--valid', type=int, default=10,
                      help='proteins for validation; a quarter is for test')
    data.add_argument('--split-seed', type=int, default=0,
                      help='which proteins are for training, validation and '
                      'test')
    data.add_argument('--radius', type=float, default=12.,
                      help='of the surroundings, in Angstrom')
    data.add_argument('--size', type=int, default=48,
                      help='voxels along twice the radius')
    model = parser.add_argument_group('model')
    model.add_argument('--channels', type=int, nargs=4,
                       default=[4, 8, 16, 32],
                       help='fields of each degree, of the four convolutions')
    model.add_argument('--degree', type=int, default=3,
                       help='highest degree of the fields')
    model.add_argument('--hidden', type=int, default=2048,
                       help='width of the classifier')
    model.add_argument('--dropout', type=float, default=0.5,
                       help='in the classifier')
    add_training_options(parser)
    parser.set_defaults(epochs=10, batch_size=25, weight_decay=1e-3)
    add_smoke_option(parser, size=37, channels=[1, 1, 1, 1], degree=1,
                     hidden=16, epochs=2, valid=2, threads=1)
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    return read_run(build_parser(), argv,
                    lambda args: f'amino_acids_{args.seed}')


# Data ########################################################################


def make_chains(folder: Path, num: int = 8, length: int = 12) -> Path:
    """PDB files of made-up chains: backbones in a helix, with CB. Each
    residue is mostly followed by the next one of the alphabet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, rng = AminoAcidEnvironments.classes, np.random.default_rng(0)
    for number in range(num):
        residue, lines = rng.integers(20), []
        for i in range(length):
            for name, pos in _backbone(i).items():
                if name == 'CB' and names[residue] == 'GLY':
                    continue
                x, y, z = pos + rng.normal(0, 0.1, 3)
                lines.append(
                    f'ATOM  {len(lines) + 1:5d}  {name:<3} '
                    f'{names[residue]} A{i + 1:4d}    {x:8.3f}{y:8.3f}'
                    f'{z:8.3f}  1.00  0.00           {name[0]}\n')
            step = 1 if rng.uniform() < 0.9 else rng.integers(20)
            residue = (residue + step) % 20
        (folder / f'made_up_{number}.pdb').write_text(
            ''.join(lines) + 'END\n')
    return folder


def _backbone(i: int) -> dict[str, np.ndarray]:
    """The atoms of residue i, on cylinders around z."""
    places = {'N': (1.5, -28, -0.9), 'CA': (2.3, 0, 0.), 'CB': (3.3, -10, -1.),
              'C': (1.6, 27, 1.), 'O': (2., 30, 2.2)}
    return {name: np.array([r * np.cos(a), r * np.sin(a), 1.5 * i + z])
            for name, (r, turn, z) in places.items()
            for a in [np.deg2rad(100 * i + turn)]}


def load(args) -> AminoAcidEnvironments:
    """The surroundings of all residues; prints what was left out."""
    root = args.root
    if root is None:
        root = make_chains(args.out / 'made_up')
        print(f'no --root: chains made here, not proteins ({root})')
    paths = sorted(str(p) for p in root.rglob('*')
                   if p.name.lower().removesuffix('.gz').endswith(SUFFIXES))
    if not paths:
        raise FileNotFoundError(f"Expected files {SUFFIXES} in '--root' (got "
                                f"none in '{root}')")
    data = AminoAcidEnvironments(paths, args.radius, args.on_error)
    print(data)
    if data.skipped:
        print(f'left out: {dict(data.skipped)}')
    return data


# Training ####################################################################


def weights_decay(net: torch.nn.Module, args):
    """A constant learning rate, and L2 for all parameters but biases."""
    biases = [p for name, p in net.named_parameters()
              if name.endswith('bias')]
    weights = [p for name, p in net.named_parameters()
               if not name.endswith('bias')]
    return adam([{'params': weights},
                 {'params': biases, 'weight_decay': 0.}], args, lambda _: 1.)


def main(argv=None) -> dict:
    """Trains and reports; returns the figures."""
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    set_up(args)
    data = load(args)
    split = data.split(args.split_seed, args.valid)
    voxels = GaussianDensities(args.size, 2 * args.radius / args.size, 0.)
    parts = [items(data, voxels, args, index) for index in split]
    net = AminoAcidNet(len(data.classes), size=args.size,
                       channels=args.channels, max_degree=args.degree,
                       hidden=args.hidden, dropout=args.dropout)
    module = Classification(args, net, configure=weights_decay)
    if not train(args, module, parts[0], parts[1]):
        return {}
    if args.root is not None:
        print('(paper, test: 58 %)')
    return report(args, module, {'test': confusion(*predict(module,
                                                            parts[2]))},
                  data.classes, 'amino acids', size=args.size,
                  residues=[len(p) for p in parts],
                  skipped=dict(data.skipped),
                  data='made up' if args.root is None else str(args.root))


if __name__ == '__main__':
    main()
