r"""Classification of point clouds (ModelNet-40) for any symmetry group.

The network and the experiment of "Implicit Neural Convolutional Kernels for
Steerable CNNs" (https://arxiv.org/abs/2212.06096), section 5.2::

    python -m benchmarks.papers.modelnet40 --source pyg --group 'SO(2)xM'
    python -m benchmarks.papers.modelnet40 --npz train.npz test.npz

Started again with the same --out, it goes on where it was stopped.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import ModelNet
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import (
    BaseTransform,
    Compose,
    NormalizeScale,
    SamplePoints,
)

from benchmarks.commandline import (
    Preset,
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.classification import (
    Classification,
    confusion,
    predict,
    report,
    set_up,
    subset,
    train,
)
from benchmarks.papers.kernels import (
    ACTIVATIONS,
    add_kernel_options,
    read_kernel,
)
from benchmarks.papers.runs import run_folder
from benchmarks.papers.training import (
    Augmented,
    channels_for,
    count_parameters,
)
from pyg_steerable import Group
from pyg_steerable.datasets import generate_shapes, load_points
from pyg_steerable.graph import (
    AnisotropicScale,
    Jitter,
    RandomGroupElement,
    RandomPointSubset,
)
from pyg_steerable.models import ModelNetClassifier

ROTATIONS = {'none': '1', 'z': 'SO(2)', 'SO(3)': 'SO(3)'}


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--source', default='shapes', choices=['shapes', 'pyg'],
                      help="shapes made here, or 'pyg', which downloads the "
                      'meshes of ModelNet')
    data.add_argument('--classes', default='40', choices=['10', '40'],
                      help='ModelNet-10 or -40, with --source pyg')
    data.add_argument('--npz', nargs=2, default=None,
                      metavar=('TRAIN', 'TEST'),
                      help='clouds from files instead of --source (default: '
                      'none)')
    data.add_argument('--root', default='data/modelnet',
                      help='folder for downloads')
    data.add_argument('--points', type=int, default=1024,
                      help='points of each cloud, drawn anew at every access')
    data.add_argument('--train', type=int, default=None,
                      help='use only so many training clouds (default: all)')
    data.add_argument('--test', type=int, default=None,
                      help='use only so many test clouds (default: all)')
    data.add_argument('--train-rotation', default='z',
                      choices=list(ROTATIONS),
                      help='random rotations in training and validation; '
                      'the test has them about z and in SO(3)')
    data.add_argument('--jitter', type=float, default=0., metavar='STD',
                      help='deviation of noise on training points')
    data.add_argument('--scale', action='store_true',
                      help='random anisotropic scale, 2/3 to 3/2')
    data.add_argument('--passes', type=int, default=10,
                      help='over the test set, each with points and '
                      'rotations of its own (paper: 40)')
    model = parser.add_argument_group('model')
    model.add_argument('--group', default='SO(2)xM',
                       help='symmetry of the network')
    model.add_argument('--channels', type=int, default=16,
                       help='of the implicit network; the harmonic one takes '
                       'as many as give it the same number of parameters')
    model.add_argument('--match', type=int, default=None, metavar='N',
                       help='choose the channels for about N parameters '
                       '(default: do not)')
    model.add_argument('--degree', type=int, default=2,
                       help='highest degree of the fields')
    model.add_argument('--ratios', type=float, nargs='+',
                       default=[0.5, 0.5, 0.5, 0.5],
                       help='share of points that each convolution keeps')
    model.add_argument('--neighbors', type=int, default=15,
                       help='of each point')
    model.add_argument('--sampling', default='random',
                       choices=['random', 'fps'],
                       help='which points a convolution keeps: at random, or '
                       'the farthest')
    add_kernel_options(model, layers=2)
    model.add_argument('--activation', default='quotient',
                       choices=list(ACTIVATIONS), help='in the network')
    model.add_argument('--invariants', type=int, default=128,
                       help='scalars that are pooled')
    model.add_argument('--mlp', type=int, default=128,
                       help='width of the classifier')
    model.add_argument('--dropout', type=float, default=0.3,
                       help='in the classifier')
    model.add_argument('--smoothing', type=float, default=0.2,
                       help='of the labels')
    add_training_options(parser)
    parser.add_argument('--demo', action=Preset, presets=dict(
        points=192, train=800, test=200, epochs=12, channels=8, hidden=4,
        lr=5e-3, degree=1, ratios=[0.5, 0.5, 0.5], invariants=64, mlp=64,
        threads=1, passes=4), help='a few minutes on two CPU cores')
    add_smoke_option(parser, points=64, train=80, test=20, epochs=1,
                     channels=3, hidden=2, degree=1, ratios=[0.5, 0.5],
                     invariants=8, mlp=8, passes=2, batch_size=16)
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    def name(args):
        group = args.group.replace('(', '').replace(')', '')
        return f'modelnet_{group}_{args.kernel}_{args.seed}'

    return read_run(build_parser(), argv, name)


# Data ########################################################################


class Prepare(BaseTransform):
    """A random subset of the points, moved by a random rotation."""
    def __init__(self, args, rotation: str, augment: bool):
        steps = [RandomPointSubset(args.points)]
        if augment and args.scale:
            steps.append(AnisotropicScale())
        steps.append(RandomGroupElement(ROTATIONS[rotation]))
        if augment and args.jitter:
            steps.append(Jitter(args.jitter))
        self.steps = Compose(steps)

    def forward(self, data: Data) -> Data:
        """Prepares one cloud."""
        return self.steps(Data(pos=data.pos, y=data.y))


def load(args):
    """Training and test sets, and the names of the classes."""
    if args.npz is not None:
        train, test = (load_points(path) for path in args.npz)
        if train.classes != test.classes:
            raise ValueError(f"Expected both files of '--npz' to have the "
                             f"same classes (got {len(train.classes)} and "
                             f"{len(test.classes)}, or other names)")
    elif args.source == 'shapes':
        train = generate_shapes(args.train or 2000, 2 * args.points, seed=1)
        test = generate_shapes(args.test or 400, 2 * args.points, seed=2)
    else:
        # A folder for each: PyG would take one for the other. Points are
        # drawn from the meshes at every access.
        root = Path(args.root) / args.classes
        train, test = (
            ModelNet(str(root), args.classes, part,
                     transform=SamplePoints(args.points),
                     pre_transform=NormalizeScale())
            for part in (True, False))
        return train, test, mesh_classes(root / 'raw', int(args.classes))
    return train, test, train.classes


def mesh_classes(folder: Path, num: int) -> list[str]:
    """The names that ModelNet numbers, if its meshes are still there."""
    names = sorted(path.name for path in folder.glob('*/'))
    return names if len(names) == num else [str(c) for c in range(num)]


def tell_empty(label: Tensor, classes: list[str]) -> None:
    """Names the classes that a network will not learn."""
    count = label.bincount(minlength=len(classes))
    empty = [c for c, n in zip(classes, count) if n == 0]
    if empty:
        print(f'no training clouds of {empty}: not learned')


# Training ####################################################################


def build_network(args, num_classes: int) -> ModelNetClassifier:
    """The network that the options ask for."""
    def build(channels: int, **changes):
        asked = argparse.Namespace(**{**vars(args), **changes})
        return ModelNetClassifier(
            num_classes, group=args.group, channels=channels,
            max_degree=args.degree, ratios=args.ratios, k=args.neighbors,
            num_points=args.points, kernel=read_kernel(asked),
            invariants=args.invariants, mlp=args.mlp, dropout=args.dropout,
            sampling=args.sampling, activation=ACTIVATIONS[args.activation])

    match = args.match
    if match is None and args.kernel == 'harmonic':
        with torch.device('meta'):
            match = count_parameters(build(args.channels, kernel='implicit'))
    if match is not None:
        args.channels = channels_for(match, build)
        args.match = None
    return build(args.channels)


class Clouds(Classification):
    """Batches of point clouds."""
    def forward(self, batch: Batch) -> Tensor:
        return self.net(batch.pos, batch.batch,
                        batch_size=batch.num_graphs).float()


# Report ######################################################################


def pooled_confusion(module: Clouds, dataset, passes: int,
                     seed: int) -> Tensor:
    """How often a cloud of a class (rows) gets a label, over passes with
    points and rotations of their own.
    """
    L.seed_everything(seed, verbose=False)  # which points the layers keep
    total = 0
    for dataset.epoch in range(passes):
        total = total + confusion(*predict(module, dataset))
    return total


@torch.no_grad()
def invariance_error(module: Clouds, dataset, group: str,
                     n: int = 10) -> float:
    """The largest change of a logit, in units of their deviation, when clouds
    (with the same points kept in every layer) are moved by elements of a
    group.
    """
    module.eval()
    batch = next(iter(DataLoader(dataset, 32))).to(module.device)
    net, pos = module.net, batch.pos
    levels = net.levels(pos, batch.batch)

    def logits(R):
        moved = [v._replace(pos=v.pos @ R.T) for v in levels]
        return net(pos @ R.T, batch.batch, levels=moved)

    before, worst = logits(torch.eye(3).to(pos)), 0.
    generator = torch.Generator().manual_seed(0)
    for R in Group(group).sample(n, generator=generator).to(pos):
        worst = max(worst, float((logits(R) - before).abs().max()))
    return worst / float(before.std())


def main(argv=None) -> dict:
    """Trains and reports; returns the figures."""
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    set_up(args)
    train_set, test_set, classes = load(args)
    chosen = subset(train_set, args.train, 'train')
    cut = max(1, len(chosen) // 5)  # the paper's 80/20
    tell_empty(train_set.y[chosen[cut:]], classes)
    rotation = args.train_rotation
    valid = Augmented(train_set, chosen[:cut],
                      Prepare(args, rotation, False), args.seed)
    used = Augmented(train_set, chosen[cut:], Prepare(args, rotation, True),
                     args.seed)
    tests = {
        name: Augmented(test_set, subset(test_set, args.test, 'test'),
                        Prepare(args, name, False), args.seed)
        for name in ('z', 'SO(3)')
    }
    module = Clouds(args, build_network(args, len(classes)), args.smoothing)
    print(f"{len(tests['z'])} test clouds, {args.points} points of each")
    if not train(args, module, used, valid):
        return {}
    return figures(args, module, tests, classes)


def figures(args, module: Clouds, tests, classes) -> dict:
    """Tests, and reports."""
    matrices = {
        f'{args.train_rotation}/{name}': pooled_confusion(
            module, dataset, args.passes, args.seed)
        for name, dataset in tests.items()
    }
    error = invariance_error(module, tests['z'], args.group)
    outside = None
    if args.group != 'O(3)':
        outside = invariance_error(module, tests['z'], 'O(3)')
    print(f'trained/tested with rotations, {args.passes} passes:')
    results = report(
        args, module, matrices, classes,
        f'{args.group}, {args.kernel} kernels', group=args.group,
        kernel=args.kernel, activation=args.activation, points=args.points,
        channels=args.channels, passes=args.passes, invariance_error=error,
        **{'change_under_O(3)': outside})
    print(f'largest change of a logit under random elements of {args.group}: '
          f'{error:.1e} deviations')
    if outside is not None:
        print(f'  and of O(3), which is larger: {outside:.1e}')
    return results


if __name__ == '__main__':
    main()
