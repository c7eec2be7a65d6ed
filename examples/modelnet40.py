r"""Classification of point clouds (ModelNet-40) for any symmetry group.

The network and the experiment of "Implicit Neural Convolutional Kernels for
Steerable CNNs" (https://arxiv.org/abs/2212.06096), section 5.2::

    python examples/modelnet40.py --demo               # shapes made here
    python examples/modelnet40.py --source pyg --group 'SO(2)xM'
    python examples/modelnet40.py --npz train.npz test.npz --kernel harmonic

Started again with the same --out, it goes on where it was stopped.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import ModelNet
from torch_geometric.transforms import (
    BaseTransform,
    Compose,
    NormalizeScale,
    SamplePoints,
)

sys.path.insert(0, str(Path(__file__).parent))
from common import (  # noqa: E402
    Augmented,
    add_training_options,
    channels_for,
    cosine_schedule,
    count_parameters,
    fit,
    loaders,
    plot_confusion,
    plot_learning_curve,
    save_json,
)
from torch_geometric.loader import DataLoader  # noqa: E402

from pyg_steerable import Group  # noqa: E402
from pyg_steerable.datasets import generate_shapes, load_points  # noqa: E402
from pyg_steerable.graph import (  # noqa: E402
    AnisotropicScale,
    Jitter,
    RandomGroupElement,
    RandomPointSubset,
)
from pyg_steerable.models import ModelNetClassifier  # noqa: E402
from pyg_steerable.nn import NormGate, QuotientELU  # noqa: E402

ACTIVATIONS = {'gate': NormGate, 'quotient': QuotientELU}
ROTATIONS = {'none': '1', 'z': 'SO(2)', 'SO(3)': 'SO(3)'}


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group('data')
    data.add_argument('--source', default='shapes', choices=['shapes', 'pyg'],
                      help="'pyg' downloads the meshes of ModelNet")
    data.add_argument('--classes', default='40', choices=['10', '40'],
                      help='ModelNet-10 or -40, with --source pyg')
    data.add_argument('--npz', nargs=2, default=None,
                      metavar=('TRAIN', 'TEST'),
                      help='clouds from files instead of --source')
    data.add_argument('--root', default='data/modelnet',
                      help='folder for downloads')
    data.add_argument('--points', type=int, default=1024,
                      help='points of each cloud, drawn anew at every access')
    data.add_argument('--train', type=int, default=None,
                      help='use only so many training clouds')
    data.add_argument('--test', type=int, default=None,
                      help='use only so many test clouds')
    data.add_argument('--train-rotation', default='z',
                      choices=list(ROTATIONS),
                      help='random rotations in training and validation; '
                      'the test has them about z and in SO(3)')
    data.add_argument('--jitter', type=float, default=0., metavar='STD')
    data.add_argument('--scale', action='store_true',
                      help='random anisotropic scale, 2/3 to 3/2')
    data.add_argument('--passes', type=int, default=10,
                      help='over the test set, each with points and '
                      'rotations of its own (paper: 40)')
    model = parser.add_argument_group('model')
    model.add_argument('--kernel', default='implicit',
                       choices=['implicit', 'harmonic'])
    model.add_argument('--group', default='SO(2)xM')
    model.add_argument('--channels', type=int, default=16,
                       help='of the implicit network; the harmonic one takes '
                       'as many as give it the same number of parameters')
    model.add_argument('--match', type=int, default=None, metavar='N',
                       help='choose the channels for about N parameters')
    model.add_argument('--degree', type=int, default=2)
    model.add_argument('--ratios', type=float, nargs='+',
                       default=[0.5, 0.5, 0.5, 0.5],
                       help='share of points that each convolution keeps')
    model.add_argument('--neighbors', type=int, default=15)
    model.add_argument('--sampling', default='random',
                       choices=['random', 'fps'])
    model.add_argument('--hidden', type=int, default=8)
    model.add_argument('--kernel-layers', type=int, default=2)
    model.add_argument('--invariants', type=int, default=128)
    model.add_argument('--mlp', type=int, default=128)
    model.add_argument('--dropout', type=float, default=0.3)
    model.add_argument('--smoothing', type=float, default=0.2,
                       help='of the labels')
    model.add_argument('--activation', default='quotient',
                       choices=list(ACTIVATIONS))
    add_training_options(parser)
    parser.add_argument('--demo', action='store_true',
                        help='a few minutes on two CPU cores')
    parser.add_argument('--smoke', action='store_true',
                        help='seconds: does it run?')
    args = parser.parse_args(argv)
    if args.demo:
        parser.set_defaults(points=192, train=800, test=200, epochs=12,
                            channels=8, hidden=4, lr=5e-3, degree=1,
                            ratios=[0.5, 0.5, 0.5], invariants=64, mlp=64,
                            threads=1, passes=4)
    if args.smoke:
        parser.set_defaults(points=64, train=80, test=20, epochs=1,
                            channels=3, hidden=2, degree=1, ratios=[0.5, 0.5],
                            invariants=8, mlp=8, passes=2, batch_size=16)
    args = parser.parse_args(argv)
    if args.out is None:
        name = args.group.replace('(', '').replace(')', '')
        args.out = Path('runs') / f'modelnet_{name}_{args.kernel}_{args.seed}'
    return args


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
        # Points are drawn from the meshes at every access.
        train, test = (
            ModelNet(args.root, args.classes, part,
                     transform=SamplePoints(args.points),
                     pre_transform=NormalizeScale())
            for part in (True, False))
        return train, test, [str(c) for c in range(int(args.classes))]
    empty = [c for c, n in zip(train.classes, train.counts()) if n == 0]
    if empty:
        print(f'no training clouds of {empty}: never predicted')
    return train, test, train.classes


def split(num: int, limit: int | None, seed: int, name: str) -> Tensor:
    """A random choice of clouds."""
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    if limit is not None and not 0 < limit <= num:
        raise ValueError(f"Expected '--{name}' to be at most {num}, the "
                         f"clouds that there are (got {limit})")
    return order[:limit]


# Training ####################################################################


def build_network(args, num_classes: int) -> ModelNetClassifier:
    """The network that the options ask for."""
    def build(kernel: str, channels: int):
        return ModelNetClassifier(
            num_classes, group=args.group, channels=channels,
            max_degree=args.degree, ratios=args.ratios, k=args.neighbors,
            num_points=args.points, kernel=kernel, hidden=args.hidden,
            kernel_layers=args.kernel_layers, invariants=args.invariants,
            mlp=args.mlp, dropout=args.dropout, sampling=args.sampling,
            activation=ACTIVATIONS[args.activation])

    match = args.match
    if match is None and args.kernel == 'harmonic':
        with torch.device('meta'):
            match = count_parameters(build('implicit', args.channels))
    if match is not None:
        args.channels = channels_for(
            match, lambda channels: build(args.kernel, channels))
        args.match = None
    return build(args.kernel, args.channels)


class Classification(L.LightningModule):
    """Cross entropy with smoothed labels."""
    def __init__(self, args, num_classes: int):
        super().__init__()
        self.args = args
        self.net = build_network(args, num_classes)
        if args.compile:
            self.net.compile(dynamic=True)
        self.loss = torch.nn.CrossEntropyLoss(
            label_smoothing=args.smoothing)

    def forward(self, batch: Batch) -> Tensor:
        return self.net(batch.pos, batch.batch,
                        batch_size=batch.num_graphs).float()

    def _log(self, name: str, batch: Batch, **options) -> Tensor:
        logits = self(batch)
        loss = self.loss(logits, batch.y)
        correct = (logits.argmax(-1) == batch.y).float().mean()
        options |= dict(on_step=False, on_epoch=True, prog_bar=True,
                        batch_size=batch.num_graphs)
        self.log(f'{name}_loss', loss, **options)
        self.log(f'{name}_accuracy', 100 * correct, **options)
        return loss

    def training_step(self, batch, _):
        loss = self._log('train', batch)
        self.log('loss', loss.detach(), prog_bar=True,
                 batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch, _):
        self._log('val', batch, sync_dist=True)

    def configure_optimizers(self):
        return cosine_schedule(self.net.parameters(), self.args)


# Report ######################################################################


@torch.no_grad()
def confusion(module: Classification, dataset, passes: int, num_classes: int,
              seed: int) -> Tensor:
    """How often a cloud of a class (rows) gets a label, over passes with
    points and rotations of their own.
    """
    L.seed_everything(seed, verbose=False)  # which points the layers keep
    module.eval()
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.long)
    for dataset.epoch in range(passes):
        for batch in DataLoader(dataset, 64):
            label = module(batch.to(module.device)).argmax(-1)
            matrix.index_put_((batch.y.cpu(), label.cpu()),
                              torch.ones(len(label), dtype=torch.long),
                              accumulate=True)
    return matrix


def accuracy(matrix: Tensor) -> float:
    """In percent."""
    return 100 * float(matrix.trace()) / max(1, int(matrix.sum()))


@torch.no_grad()
def invariance_error(module: Classification, dataset, group: str,
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
    if args.threads:
        torch.set_num_threads(args.threads)
    L.seed_everything(args.seed, verbose=False)
    train, test, classes = load(args)
    chosen = split(len(train), args.train, 0, 'train')
    cut = max(1, len(chosen) // 5)  # the paper's 80/20
    rotation = args.train_rotation
    valid = Augmented(train, chosen[:cut], Prepare(args, rotation, False),
                      args.seed)
    train = Augmented(train, chosen[cut:], Prepare(args, rotation, True),
                      args.seed)
    tests = {
        name: Augmented(test, split(len(test), args.test, 0, 'test'),
                        Prepare(args, name, False), args.seed)
        for name in ('z', 'SO(3)')
    }
    module = Classification(args, len(classes))
    print(f"{len(train)} training, {len(valid)} validation, "
          f"{len(tests['z'])} test clouds of {args.points} points; "
          f"{count_parameters(module.net)} parameters")
    args.out.mkdir(parents=True, exist_ok=True)
    trainer, best = fit(module,
                        *loaders(train, valid, args.batch_size, args.seed),
                        args, 'val_loss')
    if not trainer.is_global_zero:
        return {}
    state = torch.load(best, map_location='cpu', weights_only=False)
    module.load_state_dict(state['state_dict'])
    return report(args, module, trainer, tests, classes)


def report(args, module, trainer, tests, classes) -> dict:
    """Figures, printed and saved, and plots."""
    module = module.to(trainer.strategy.root_device)
    matrices = {
        name: confusion(module, dataset, args.passes, len(classes), args.seed)
        for name, dataset in tests.items()
    }
    outside = 'O(3)' if args.group != 'O(3)' else None
    results = {
        'group': args.group,
        'kernel': args.kernel,
        'activation': args.activation,
        'seed': args.seed,
        'epochs': args.epochs,
        'points': args.points,
        'parameters': count_parameters(module.net),
        'channels': args.channels,
        'passes': args.passes,
        'test_accuracy': {
            f'{args.train_rotation}/{name}': accuracy(matrix)
            for name, matrix in matrices.items()
        },
        'invariance_error': invariance_error(module, tests['z'], args.group),
        'change_under_O(3)': None if outside is None else invariance_error(
            module, tests['z'], outside),
    }
    curve = plot_learning_curve(args.out, {
        'train_accuracy': 'training', 'val_accuracy': 'validation'},
        'accuracy [%]', 'linear')
    picture = plot_confusion(args.out, matrices['z'].numpy(), classes,
                             f'{args.group}, {args.kernel} kernels')
    save_json(args.out / 'results.json', results)
    for protocol, value in results['test_accuracy'].items():
        print(f'test accuracy, trained/tested with rotations {protocol}: '
              f'{value:.2f} % ({args.passes} passes)')
    print(f"largest change of a logit under random elements of {args.group}: "
          f"{results['invariance_error']:.1e} deviations")
    if outside:
        print(f"  and of O(3), which is larger: "
              f"{results['change_under_O(3)']:.1e}")
    print(f'plots: {curve} {picture}')
    return results


if __name__ == '__main__':
    main()
