"""What the protocols that classify share: training with cross entropy, test,
figures and plots.
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import lightning as L
import torch
from torch import Tensor
from torch_geometric.loader import DataLoader

from benchmarks.commandline import new_parser
from benchmarks.papers.plots import (
    plot_confusion,
    plot_learning_curve,
    plt,
    save_figure,
)
from benchmarks.papers.runs import going_on, run_all, run_script
from benchmarks.papers.training import (
    Augmented,
    cosine_schedule,
    count_parameters,
    fit,
    loaders,
)
from benchmarks.report import save_json


class Classification(L.LightningModule):
    """Cross entropy. Batches hold voxels, unless a subclass says how the
    network sees them.

    The optimizer and its schedule are what configure(net, args) makes, by
    default AdamW along a cosine.
    """
    def __init__(self, args, net: torch.nn.Module, smoothing: float = 0.,
                 configure: Callable | None = None):
        super().__init__()
        self.args, self.net, self.configure = args, net, configure
        if args.compile:
            self.net.compile(dynamic=True)
        self.loss = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)

    def forward(self, batch) -> Tensor:
        return self.net(batch.voxels).float()

    def _log(self, name: str, batch, logits: Tensor, **options) -> Tensor:
        loss = self.loss(logits, batch.y)
        correct = (logits.argmax(-1) == batch.y).float().mean()
        options |= dict(on_step=False, on_epoch=True, prog_bar=True,
                        sync_dist=True, batch_size=batch.num_graphs)
        self.log(f'{name}_loss', loss, **options)
        self.log(f'{name}_accuracy', 100 * correct, **options)
        return loss

    def training_step(self, batch, _):
        loss = self._log('train', batch, self(batch))
        self.log('loss', loss.detach(), prog_bar=True,
                 batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch, _):
        self._log('val', batch, self(batch))

    def configure_optimizers(self):
        if self.configure is None:
            return cosine_schedule(self.net.parameters(), self.args)
        return self.configure(self.net, self.args)


def adam(parameters, args, factor: Callable[[int], float]):
    """Adam with the square of parameters (L2) in the loss, and the learning
    rate times a factor for each epoch.
    """
    optimizer = torch.optim.Adam(parameters, args.lr,
                                 weight_decay=args.weight_decay)
    return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]


def held_then_decayed(net: torch.nn.Module, args):
    """The learning rate is constant for args.hold epochs, and then multiplied
    by args.decay after every epoch.
    """
    return adam(net.parameters(), args,
                lambda epoch: args.decay**max(0, epoch - args.hold))


def add_schedule_options(parser, hold: int, decay: float) -> None:
    """The options of held_then_decayed."""
    parser.add_argument('--hold', type=int, default=hold,
                        help='epochs with a constant learning rate')
    parser.add_argument('--decay', type=float, default=decay,
                        help='of the learning rate, per epoch, afterwards')


# Test ########################################################################


@torch.no_grad()
def predict(module: Classification, dataset, batch_size: int = 64
            ) -> tuple[Tensor, Tensor]:
    """The scores [n, K] and the labels [n] of all items."""
    module.eval()
    found = [(module(batch.to(module.device)).cpu(), batch.y.cpu())
             for batch in DataLoader(dataset, batch_size)]
    scores, label = zip(*found)
    return torch.cat(scores), torch.cat(label)


def confusion(scores: Tensor, label: Tensor) -> Tensor:
    """How often a class (rows) gets a label, [K, K]."""
    K = scores.shape[1]
    return (K * label + scores.argmax(-1)).bincount(minlength=K * K).view(
        K, K)


def accuracy(matrix: Tensor) -> float:
    """In percent."""
    return 100 * float(matrix.trace()) / max(1, int(matrix.sum()))


# Runs ########################################################################


def subset(dataset, limit: int | None, name: str, seed: int = 0) -> Tensor:
    """A random choice of so many items."""
    num = len(dataset)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    if limit is not None and not 0 < limit <= num:
        raise ValueError(f"Expected '--{name}' to be at most {num}, the "
                         f"items that there are (got {limit})")
    return order[:limit]


def items(dataset, transform, args, index=None) -> Augmented:
    """Items (by default all) with a transform that is random or not."""
    index = range(len(dataset)) if index is None else index
    return Augmented(dataset, index, transform, args.seed)


def set_up(args) -> None:
    """Threads and seed of one run."""
    if args.threads:
        torch.set_num_threads(args.threads)
    L.seed_everything(args.seed, verbose=False)


def train(args, module: Classification, used, valid,
          monitor: str = 'val_loss', keep: str = 'best', sampler=None,
          **options) -> bool:
    """Trains; leaves the weights of the best or the last epoch in the module,
    on the device that it was trained on. False in all processes but one.
    """
    print(f'{len(used)} training and {len(valid)} validation items, '
          f'{count_parameters(module.net)} parameters', flush=True)
    trainer, kept = fit(
        module, *loaders(used, valid, args.batch_size, args.seed, sampler),
        args, monitor, **options)
    if keep == 'best' and trainer.is_global_zero:
        kept.load_best(module)
    module.to(trainer.strategy.root_device)
    return trainer.is_global_zero


def report(args, module: Classification, matrices: dict[str, Tensor],
           classes: list[str], title: str, **figures) -> dict:
    """Accuracies, printed and saved with further figures; plots of the
    learning curve and of the first confusion.
    """
    results = {
        'seed': args.seed,
        'epochs': args.epochs,
        'parameters': count_parameters(module.net),
        'test_accuracy': {name: accuracy(matrix)
                          for name, matrix in matrices.items()},
        **figures,
    }
    curve = plot_learning_curve(args.out, {
        'train_accuracy': 'training', 'val_accuracy': 'validation'},
        'accuracy [%]', 'linear')
    first = next(iter(matrices.values()))
    picture = plot_confusion(args.out, first.numpy(), classes, title)
    save_json(args.out / 'results.json', results)
    for name, value in results['test_accuracy'].items():
        print(f'accuracy, {name}: {value:.2f} %')
    print(f'plots: {curve} {picture}')
    return results


# Comparisons #################################################################


def add_comparison_option(parser) -> None:
    """The option that asks for compare()."""
    parser.add_argument('--all', action='store_true',
                        help='run all variants with many --seeds')


def comparison_parser(script: str, seeds: list[int], out: str):
    """The options of compare(); others go to the runs."""
    parser = new_parser(f'All variants of {script} with many seeds; other '
                        f'options are passed on to the runs.')
    add_comparison_option(parser)
    parser.add_argument('--seeds', type=int, nargs='+', default=seeds,
                        help='a run of each variant for each')
    parser.add_argument('--out', type=Path, default=Path(out),
                        help='folder for the runs, the table and the bars')
    return parser


def compare(argv, script: str, variants: dict[str, list[str]],
            seeds: list[int], out: str, paper: dict[str, float] | None = None
            ) -> dict:
    """Runs a script for each variant, options by name, and each seed,
    unless the run is there already: a table, printed and saved, and bars.
    """
    args, rest = comparison_parser(script, seeds, out).parse_known_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict]] = {}

    def run(seed: int, name: str) -> dict:
        folder = f"{name.replace(', ', '_').replace(' ', '-')}_{seed}"
        return run_script(script, args.out / folder,
                          [*variants[name], '--seed', str(seed), *rest])

    tasks = [(seed, name) for seed in args.seeds for name in variants]
    with going_on(script, argv):
        for (seed, name), found in run_all(tasks, run):
            runs.setdefault(name, []).append(found)
            values = '  '.join(f'{protocol} {value:.2f} %' for protocol, value
                               in found['test_accuracy'].items())
            print(f"{name:24} seed {seed}: {values} ({found['parameters']} "
                  f"parameters)", flush=True)
            table = {n: _summary(r) for n, r in runs.items()}
            save_json(args.out / 'comparison.json', table)
    for name, entry in table.items():
        values = '  '.join(f"{protocol} {v['mean']:.2f} +- {v['std']:.2f} %"
                           for protocol, v in entry['test_accuracy'].items())
        print(f'{name:24} {values}' + (
            f'   (paper, at full size: {paper[name]} %)' if paper else ''))
    print(f'plot: {_bars(table, args.out)}')
    return table


def _summary(runs: list[dict]) -> dict:
    """Mean and deviation over seeds."""
    accuracies = {}
    for protocol in runs[0]['test_accuracy']:
        values = [r['test_accuracy'][protocol] for r in runs]
        accuracies[protocol] = {
            'mean': mean(values),
            'std': stdev(values) if len(values) > 1 else 0.,
            'values': values,
        }
    return {'parameters': runs[0]['parameters'],
            'seeds': [r['seed'] for r in runs], 'test_accuracy': accuracies}


def _bars(table: dict, out: Path) -> Path:
    """A group for each test, a bar for each variant, all runs as points."""
    protocols = list(next(iter(table.values()))['test_accuracy'])
    width = 0.85 / len(table)
    figure, axes = plt.subplots(
        figsize=(1.6 + 0.6 * len(table) * len(protocols), 3.6),
        constrained_layout=True)
    for k, (name, entry) in enumerate(table.items()):
        for i, v in enumerate(entry['test_accuracy'].values()):
            x = i + width * (k - (len(table) - 1) / 2)
            axes.bar(x, v['mean'], 0.92 * width, yerr=v['std'], capsize=3,
                     color=f'C{k}', label=None if i else name)
            axes.scatter(len(v['values']) * [x], v['values'], s=8,
                         color='0.2', zorder=3)
    axes.set_xticks(range(len(protocols)), protocols)
    axes.set(ylabel='test accuracy [%]', ylim=(0, 105))
    figure.legend(loc='outside upper center', fontsize=8, ncols=2)
    return save_figure(figure, out / 'comparison.png')
