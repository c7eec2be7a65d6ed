r"""Molecular properties (QM9) with steerable convolutions.

The network and the experiment of "Implicit Neural Convolutional Kernels for
Steerable CNNs" (https://arxiv.org/abs/2212.06096), section 5.3::

    python -m benchmarks.papers.qm9 --source pyg --target homo
    torchrun --nproc-per-node 2 -m benchmarks.papers.qm9 --demo

Started again with the same --out, it goes on where it was stopped.
"""
from __future__ import annotations

import argparse

import lightning as L
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform

from benchmarks.commandline import (
    Preset,
    add_smoke_option,
    add_training_options,
    new_parser,
    read_run,
)
from benchmarks.papers.kernels import (
    ACTIVATIONS,
    add_kernel_options,
    read_kernel,
)
from benchmarks.papers.plots import plot_learning_curve, plot_predictions
from benchmarks.papers.runs import run_folder
from benchmarks.papers.training import (
    channels_for,
    cosine_schedule,
    count_parameters,
    fit,
    loaders,
)
from benchmarks.report import save_json
from pyg_steerable import Group
from pyg_steerable.datasets import TARGETS, OGBFeatures, load_qm9, split_qm9
from pyg_steerable.graph import RadiusGraphWithBonds
from pyg_steerable.models.qm9 import POOLS, QM9Net


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    data = parser.add_argument_group('data')
    data.add_argument('--source', default='sample',
                      choices=['sample', 'pyg', 'qm9pack'],
                      help='of the molecules: 2,000 that are bundled, a '
                      'download of PyG, or the package qm9pack')
    data.add_argument('--npz', default=None, metavar='FILE',
                      help='molecules from a file instead of --source '
                      '(default: none)')
    data.add_argument('--root', default=None,
                      help='folder for downloads (default: a cache in the '
                      'home folder)')
    data.add_argument('--target', default='homo', choices=list(TARGETS),
                      help='the property')
    data.add_argument('--train', type=int, default=None,
                      help='use only so many training molecules (default: '
                      'all)')
    data.add_argument('--test', type=int, default=None,
                      help='use only so many validation and test molecules '
                      '(default: all)')
    data.add_argument('--graph', default='bonds', choices=['bonds', 'radius'],
                      help='pairs of atoms: bonds, or also those '
                      'within --cutoff')
    data.add_argument('--cutoff', type=float, default=2.5,
                      help='of the radius graph, in Angstrom')
    model = parser.add_argument_group('model')
    model.add_argument('--condition', default=None,
                       choices=['none', 'bonds', 'atoms'],
                       help='what the kernel sees beside the relative '
                       'position; "atoms": bond and both atoms (default: '
                       'atoms for implicit kernels)')
    model.add_argument('--encoder', default='onehot',
                       choices=['onehot', 'ogb'],
                       help="atoms and bonds as one-hot or through OGB's "
                       'encoders (needs ogb)')
    model.add_argument('--group', default='O(3)',
                       help='symmetry of the kernels')
    model.add_argument('--channels', type=int, default=8,
                       help='fields of each degree')
    model.add_argument('--degree', type=int, default=1,
                       help='highest degree of the fields')
    model.add_argument('--blocks', type=int, default=4,
                       help='residual blocks of two convolutions')
    add_kernel_options(model, layers=3)
    model.add_argument('--activation', default='gate',
                       choices=list(ACTIVATIONS),
                       help='in the network and in its kernels')
    model.add_argument('--pool', default=None, choices=POOLS,
                       help='default: sum for extensive targets')
    model.add_argument('--match', type=int, default=None, metavar='N',
                       help='choose --channels for about N parameters '
                       '(default: do not)')
    add_training_options(parser)
    # Small tensors: a second thread would only wait.
    parser.add_argument('--demo', action=Preset, presets=dict(
        target='homo', epochs=30, batch_size=32, lr=3e-3, blocks=3,
        kernel_layers=2, threads=1), help='a few minutes on two CPU cores')
    add_smoke_option(parser, epochs=1, batch_size=32, blocks=1, channels=4,
                     hidden=4, train=64, test=64)
    return parser


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    parser = build_parser()
    kernel = parser.parse_args(argv).kernel
    parser.set_defaults(condition='atoms' if kernel == 'implicit' else 'none')
    args = read_run(parser, argv, lambda args: f'qm9_{args.target}_'
                    f'{args.kernel}_{args.condition}_{args.seed}')
    if args.kernel == 'harmonic' and args.condition != 'none':
        parser.error('--kernel harmonic takes no features: use --condition '
                     'none, or --kernel implicit')
    if args.encoder == 'ogb' and args.graph == 'radius':
        parser.error('--encoder ogb knows bonds only: use --graph bonds, or '
                     '--encoder onehot')
    if args.pool is None:
        extensive = ('alpha', 'r2', 'zpve', 'U0', 'U', 'H', 'G', 'Cv')
        args.pool = 'sum' if args.target in extensive else 'mean'
    return args


class Normalise(BaseTransform):
    """Keeps one target, in units of its deviation in the training set, and
    drops what the network does not use.
    """
    def __init__(self, args, mean: float, std: float):
        self.column = TARGETS[args.target].column
        self.mean, self.std = mean, std
        self.radius = (RadiusGraphWithBonds(args.cutoff)
                       if args.graph == 'radius' else None)
        self.ogb = OGBFeatures() if args.encoder == 'ogb' else None

    def forward(self, data: Data) -> Data:
        """Prepares one molecule."""
        y = (data.y[:, self.column] - self.mean) / self.std
        extra = {}
        if self.ogb is not None:
            data = self.ogb(data)
            extra = {'x_ogb': data.x_ogb, 'edge_attr_ogb': data.edge_attr_ogb}
        data = Data(x=data.x, pos=data.pos, edge_index=data.edge_index,
                    edge_attr=data.edge_attr, y=y, z=data.z, **extra)
        return data if self.radius is None else self.radius(data)


class OGBNet(torch.nn.Module):
    """The network behind OGB's encoders of atoms and bonds."""
    def __init__(self, channels: int, condition: str, **options):
        super().__init__()
        try:
            from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
        except ImportError as error:
            raise ImportError("Expected the package 'ogb' for --encoder ogb "
                              "(got none). Install it with 'pip install "
                              "pyg_steerable[ogb]'") from error
        self.atoms, self.bonds = AtomEncoder(channels), BondEncoder(channels)
        self.net = QM9Net(channels,
                          channels if condition != 'none' else 0,
                          channels if condition == 'atoms' else 0,
                          channels=channels, **options)

    def forward(self, x, pos, edge_index, edge_attr, batch, batch_size):
        return self.net(self.atoms(x), pos, edge_index, self.bonds(edge_attr),
                        batch, batch_size)


def build_network(args) -> torch.nn.Module:
    """The network that the options ask for."""
    activation = ACTIVATIONS[args.activation]
    options = dict(group=args.group, max_degree=args.degree,
                   blocks=args.blocks, pool=args.pool,
                   kernel=read_kernel(args, activation),
                   activation=activation)
    if args.graph == 'radius':
        options |= dict(radius=args.cutoff / 2, num_neighbors=8.)
        if args.kernel == 'harmonic':
            options |= dict(radius=args.cutoff)
    if args.encoder == 'ogb':
        return OGBNet(args.channels, args.condition, **options)
    # Four types of bonds; where edges are no bonds, this is one more.
    edge_dim = (0 if args.condition == 'none' else
                4 + (args.graph == 'radius'))
    atom_dim = 5 if args.condition == 'atoms' else 0
    if args.match is None:
        return QM9Net(5, edge_dim, atom_dim, channels=args.channels,
                      **options)
    args.channels = channels_for(args.match, lambda channels: QM9Net(
        5, edge_dim, atom_dim, channels=channels, **options))
    args.match = None
    return build_network(args)


class Regression(L.LightningModule):
    """Absolute error of a standardised target."""
    def __init__(self, args, mean: float, std: float):
        super().__init__()
        self.args = args
        self.net = build_network(args)
        if args.compile:
            self.net.compile(dynamic=True)
        target = TARGETS[args.target]
        self.unit = target.report_unit
        self.register_buffer('mean', torch.tensor(float(mean)))
        self.register_buffer('std', torch.tensor(float(std)))
        self.scale = float(std) * target.factor

    def forward(self, batch: Data) -> Tensor:
        ogb = self.args.encoder == 'ogb'
        out = self.net(batch.x_ogb if ogb else batch.x, batch.pos,
                       batch.edge_index,
                       batch.edge_attr_ogb if ogb else batch.edge_attr,
                       batch.batch, batch.num_graphs)
        return out.squeeze(-1).float()

    def training_step(self, batch, _):
        loss = (self(batch) - batch.y).abs().mean()
        self.log('train_mae', loss * self.scale, prog_bar=True,
                 on_step=False, on_epoch=True, batch_size=batch.num_graphs,
                 sync_dist=True)
        self.log('loss', loss, prog_bar=True, batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch, _):
        mae = (self(batch) - batch.y).abs().mean() * self.scale
        self.log('val_mae', mae, prog_bar=True, batch_size=batch.num_graphs,
                 sync_dist=True)

    def configure_optimizers(self):
        return cosine_schedule(self.net.parameters(), self.args)


def split(dataset, args):
    """Training, validation and test sets, cut to the asked sizes."""
    parts = list(split_qm9(len(dataset)))
    for k, limit in enumerate((args.train, args.test, args.test)):
        if limit is not None:
            if not 0 < limit <= len(parts[k]):
                raise ValueError(f"Expected at most {len(parts[k])} "
                                 f"molecules of part {k} of "
                                 f"'{dataset.source}' (got {limit})")
            parts[k] = parts[k][:limit]
    return [dataset[part] for part in parts]


@torch.no_grad()
def predict(module: Regression, dataset, batch_size: int = 128):
    """Predicted and true values in the target's unit."""
    module.eval()
    predicted, true = [], []
    for batch in DataLoader(dataset, batch_size):
        batch = batch.to(module.device)
        predicted.append(module(batch).cpu())
        true.append(batch.y.cpu())
    scale = module.scale
    mean = float(module.mean) * TARGETS[module.args.target].factor
    return (torch.cat(predicted) * scale + mean,
            torch.cat(true) * scale + mean)


def composition(dataset) -> Tensor:
    """The number of atoms of each element, and a one, [n, 6]."""
    rows = [torch.cat([data.x.sum(0), torch.ones(1)]) for data in dataset]
    return torch.stack(rows).double()


def baselines(train, test) -> tuple[float, float]:
    """Mean errors, in deviations of the training set, of the mean and of a
    linear regression on atom counts.
    """
    y, y_test = (torch.cat([d.y for d in part]).double()
                 for part in (train, test))
    mean = (y_test - y.mean()).abs().mean()
    fitted = torch.linalg.lstsq(composition(train), y[:, None],
                                driver='gelsd').solution
    linear = (composition(test) @ fitted).squeeze(1) - y_test
    return float(mean), float(linear.abs().mean())


@torch.no_grad()
def invariance_error(module: Regression, dataset, n: int = 20) -> float:
    """The largest change of a prediction, in deviations of the target, when
    molecules are moved by elements of the group (O(3): rotations and
    reflections) and shifted.
    """
    module.eval()
    batch = next(iter(DataLoader(dataset, 128))).to(module.device)
    generator = torch.Generator().manual_seed(0)
    before, pos, worst = module(batch), batch.pos, 0.
    group = Group(module.args.group)
    for R in group.sample(n, generator=generator).to(pos):
        batch.pos = pos @ R.T + torch.randn(3, generator=generator).to(pos)
        worst = max(worst, float((module(batch) - before).abs().max()))
    return worst


def main(argv=None) -> dict:
    """Trains and reports; returns the figures."""
    args = parse(argv)
    with run_folder(args, __file__, argv):
        return run(args)


def run(args) -> dict:
    """One run in its folder."""
    if args.threads:
        torch.set_num_threads(args.threads)
    L.seed_everything(args.seed, verbose=False)
    dataset = load_qm9(args.npz or args.source, args.root)
    train, valid, test = split(dataset, args)
    y = train.target(args.target)
    mean, std = float(y.mean()), float(y.std())
    for part in (train, valid, test):
        part.transform = Normalise(args, mean, std)
    train, valid, test = ([d for d in part] for part in (train, valid, test))
    module = Regression(args, mean, std)
    parameters = count_parameters(module.net)
    print(f'{len(train)} training, {len(valid)} validation, {len(test)} test '
          f'molecules; {parameters} parameters')
    trainer, kept = fit(module,
                        *loaders(train, valid, args.batch_size, args.seed),
                        args, 'val_mae')
    if not trainer.is_global_zero:
        return {}
    print(f'trained by {trainer.world_size} process(es)')
    kept.load_best(module)
    return report(args, module.cpu(), train, valid, test, parameters)


def report(args, module, train, valid, test, parameters) -> dict:
    """Figures, printed and saved, and plots."""
    predicted, true = predict(module, test)
    val_predicted, val_true = predict(module, valid)
    mean_mae, linear_mae = baselines(train, test)
    results = {
        'target': args.target,
        'unit': module.unit,
        'kernel': args.kernel,
        'condition': args.condition,
        'group': args.group,
        'seed': args.seed,
        'epochs': args.epochs,
        'train_molecules': len(train),
        'parameters': parameters,
        'test_mae': float((predicted - true).abs().mean()),
        'val_mae': float((val_predicted - val_true).abs().mean()),
        'mean_predictor_mae': mean_mae * module.scale,
        'linear_regression_mae': linear_mae * module.scale,
        'invariance_error': invariance_error(module, test),
    }
    curve = plot_learning_curve(args.out, {'train_mae': 'training',
                                           'val_mae': 'validation'},
                                f'MAE of {args.target} [{module.unit}]')
    scatter_plot = plot_predictions(args.out, predicted, true, module.unit,
                                    f'{args.target}, {len(test)} molecules')
    save_json(args.out / 'results.json', results)
    print(f"test MAE of {args.target}: {results['test_mae']:.4g} "
          f"{module.unit}")
    print(f"  mean predictor:               "
          f"{results['mean_predictor_mae']:.4g} {module.unit}")
    print(f"  linear regression on counts:  "
          f"{results['linear_regression_mae']:.4g} {module.unit}")
    moves = ('rotations and reflections' if args.group == 'O(3)' else
             f'elements of {args.group}')
    print(f"equivariance error, the largest change of a prediction under "
          f"random {moves} and shifts: {results['invariance_error']:.1e} "
          f"deviations")
    print(f'plots: {curve} {scatter_plot}')
    return results


if __name__ == '__main__':
    main()
