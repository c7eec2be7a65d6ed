"""What the examples share: options, trainer, exact resume and plots."""
from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import lightning as L
import matplotlib
import torch
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data.distributed import DistributedSampler
from torch_geometric.loader import DataLoader

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogFormatter  # noqa: E402


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """The options that every example has."""
    group = parser.add_argument_group('training')
    group.add_argument('--epochs', type=int, default=100)
    group.add_argument('--batch-size', type=int, default=32)
    group.add_argument('--lr', type=float, default=1e-3)
    group.add_argument('--weight-decay', type=float, default=1e-8)
    group.add_argument('--seed', type=int, default=0)
    group.add_argument('--device', default='auto',
                       help="'auto', 'cpu', 'cuda', 'mps' (lightning's "
                       "accelerator)")
    group.add_argument('--devices', default='auto',
                       help='how many; torchrun sets it')
    group.add_argument('--threads', type=int, default=None,
                       help='CPU threads (default: all)')
    group.add_argument('--compile', action='store_true')
    group.add_argument('--bf16', action='store_true')
    group.add_argument('--out', type=Path, default=None,
                       help='folder for logs, checkpoints and plots')
    group.add_argument('--fresh', action='store_true',
                       help='start again instead of resuming from --out')
    group.add_argument('--quiet', action='store_true', help='no bars')


def channels_for(parameters: int, build, most: int = 64) -> int:
    """The number of channels whose network, build(channels), comes closest
    to so many parameters.
    """
    sizes = {}
    for channels in range(2, most + 1):
        with torch.device('meta'):
            net = build(channels)
        sizes[channels] = count_parameters(net)
        if sizes[channels] > parameters:
            break
    return min(sizes, key=lambda c: abs(sizes[c] - parameters))


def count_parameters(net: torch.nn.Module) -> int:
    """The number of learned numbers."""
    return sum(p.numel() for p in net.parameters())


def cosine_schedule(parameters, args):
    """AdamW, and a learning rate that falls along a cosine."""
    optimizer = torch.optim.AdamW(parameters, args.lr,
                                  weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, args.epochs, args.lr / 100)
    return [optimizer], [schedule]


def run_script(script: str, folder: Path, options: list[str]) -> dict:
    """The results of an example in a process of its own, which goes on where
    it was stopped; at once if it is done.
    """
    results = folder / 'results.json'
    if not results.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(Path(__file__).with_name(script)),
                   '--out', str(folder), '--quiet', *options]
        with (folder / 'log.txt').open('a') as log:
            code = subprocess.call(command, stdout=log, stderr=log)
        if code:
            raise RuntimeError(f"Expected '{' '.join(command)}' to end well "
                               f"(got exit status {code}; see "
                               f"{folder / 'log.txt'})")
    return json.loads(results.read_text())


class Augmented(torch.utils.data.Dataset):
    """Some items of a dataset, with a random transform of their own, which
    depends on seed, epoch and item only: not on how often a run was stopped
    or on the processes that load data.
    """
    def __init__(self, dataset, index, transform, seed: int):
        self.dataset, self.index = dataset, list(map(int, index))
        self.transform, self.seed, self.epoch = transform, seed, 0

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, self.epoch, i)) % 2**31)
            return self.transform(self.dataset[self.index[i]])


class EpochSampler(DistributedSampler):
    """Shuffles by seed and epoch only, so that a resumed run sees the data
    in the order of an uninterrupted one; splits it among processes.
    """
    def set_epoch(self, epoch: int) -> None:
        """Also tells the dataset."""
        super().set_epoch(epoch)
        if isinstance(self.dataset, Augmented):
            self.dataset.epoch = epoch

    def __init__(self, dataset, seed: int):
        world = int(os.environ.get('WORLD_SIZE', 1))
        rank = int(os.environ.get('RANK', 0))
        super().__init__(dataset, world, rank, shuffle=True, seed=seed)


class SeedEachBatch(Callback):
    """Random numbers inside a batch depend on seed, epoch and batch only."""
    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer, module, batch, number) -> None:
        L.seed_everything(
            hash((self.seed, trainer.current_epoch, number,
                  trainer.global_rank)) % 2**31, verbose=False)


def loaders(train, valid, batch_size: int, seed: int, sampler=None):
    """The loaders of the training and validation sets."""
    sampler = EpochSampler(train, seed) if sampler is None else sampler
    return (DataLoader(train, batch_size, sampler=sampler, drop_last=True),
            DataLoader(valid, max(batch_size, 128)))


def check_checkpoint(path: Path) -> int:
    """The step that a checkpoint was written at; a ValueError that names the
    file unless it can be loaded.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=False)
        missing = {'state_dict', 'epoch', 'global_step',
                   'optimizer_states'} - set(state)
    except Exception as error:
        raise ValueError(
            f"Expected '{path}' to be a checkpoint of this example (got a "
            f"file that cannot be read, perhaps truncated: {error}). Delete "
            f"it or pass '--fresh' to start again") from error
    if missing:
        raise ValueError(f"Expected '{path}' to be a checkpoint of this "
                         f"example (got one without {sorted(missing)}). "
                         f"Delete it or pass '--fresh' to start again")
    return state['global_step']


def fit(module: L.LightningModule, train_loader, valid_loader, args,
        monitor: str, **options) -> tuple[L.Trainer, Path]:
    """Trains, or goes on where the last checkpoint in :obj:`args.out`
    stopped. Further options go to the trainer. Returns it, and the path of
    the best checkpoint. (Only the log may lack a line: that of an epoch whose
    checkpoint was just written when the run was killed.)
    """
    warnings.filterwarnings('ignore', '.*does not have many workers.*')
    warnings.filterwarnings('ignore', '.*Checkpoint directory .* exists.*')
    warnings.filterwarnings('ignore', '.*Experiment logs directory.*')
    warnings.filterwarnings('ignore', '.*smaller than the logging interval.*')
    warnings.filterwarnings('ignore', '.*LeafSpec.*')
    out = Path(args.out)
    if args.fresh and out.exists():
        for old in [*out.glob('*.ckpt'), *out.glob('metrics.csv')]:
            old.unlink()
    best = ModelCheckpoint(out, 'best', monitor, mode='min',
                           enable_version_counter=False)
    last = ModelCheckpoint(out, 'last', save_top_k=1, monitor=None,
                           every_n_epochs=1, enable_version_counter=False,
                           save_on_train_epoch_end=True)
    callbacks = [best, last, SeedEachBatch(args.seed)]
    if not args.quiet:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    logger = _ResumingCSVLogger(out)
    callbacks.append(LearningRateMonitor('epoch'))
    trainer = L.Trainer(
        max_epochs=args.epochs, accelerator=args.device, **_processes(args),
        logger=logger, callbacks=callbacks,
        precision='bf16-mixed' if args.bf16 else '32-true',
        enable_progress_bar=not args.quiet, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
        log_every_n_steps=20, default_root_dir=out, **options)
    resume = out / 'last.ckpt'
    if resume.exists():
        logger.forget_after(check_checkpoint(resume))
        print(f'resuming from {resume}')
    trainer.fit(module, train_loader, valid_loader,
                ckpt_path=resume if resume.exists() else None,
                weights_only=False)
    return trainer, Path(best.best_model_path or resume)


def _processes(args) -> dict:
    """The trainer's devices and nodes: what torchrun started, else
    --devices. ('auto' means one process on a CPU, torchrun or not.)
    """
    if 'LOCAL_WORLD_SIZE' in os.environ:
        devices = int(os.environ['LOCAL_WORLD_SIZE'])
        return dict(devices=devices, strategy='ddp' if int(
            os.environ['WORLD_SIZE']) > 1 else 'auto',
            num_nodes=int(os.environ['WORLD_SIZE']) // devices)
    return dict(devices=args.devices if str(args.devices) == 'auto' else
                int(args.devices))


class _ResumingCSVLogger(CSVLogger):
    """metrics.csv in the run's folder, continued after a restart."""
    def __init__(self, folder: Path):
        super().__init__(folder, name='', version='',
                         flush_logs_every_n_steps=1)
        self._before = []
        path = Path(folder) / 'metrics.csv'
        if path.exists():
            with path.open() as file:
                self._before = list(csv.DictReader(file))

    def forget_after(self, step: int) -> None:
        """Drops the lines of steps that will be taken again."""
        self._before = [row for row in self._before
                        if int(row['step']) < step]

    @property
    def experiment(self):
        first = self._experiment is None
        experiment = super().experiment
        if first and self._before and hasattr(experiment, 'metrics'):
            experiment.metrics = list(self._before)
            experiment.metrics_keys = sorted(
                {k for row in self._before for k in row})
        return experiment


def read_metrics(out: Path) -> dict[str, list[tuple[float, float]]]:
    """Each column of metrics.csv as (epoch, value), the last one of an
    epoch.
    """
    series: dict[str, dict[int, float]] = {}
    with (Path(out) / 'metrics.csv').open() as file:
        for row in csv.DictReader(file):
            for key, value in row.items():
                if value and key not in ('epoch', 'step') and row['epoch']:
                    series.setdefault(key, {})[int(row['epoch'])] = float(
                        value)
    return {key: sorted(rows.items()) for key, rows in series.items()}


def plot_learning_curve(out: Path, columns: dict[str, str], ylabel: str,
                        yscale: str = 'log') -> Path:
    """Plots columns of metrics.csv (name -> label) against the epoch."""
    metrics = read_metrics(out)
    figure, axes = plt.subplots(figsize=(5, 3.5), constrained_layout=True)
    for key, label in columns.items():
        if key in metrics:
            axes.plot(*zip(*metrics[key]), label=label, marker='.')
    axes.set(xlabel='epoch', ylabel=ylabel, yscale=yscale)
    if yscale == 'log':  # 200 rather than 2 x 10^2
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axes.grid(alpha=0.3, which='both')
    axes.legend()
    path = Path(out) / 'learning_curve.png'
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def plot_predictions(out: Path, predicted, true, unit: str,
                     title: str) -> Path:
    """Plots predicted against true values."""
    figure, axes = plt.subplots(figsize=(4, 4), constrained_layout=True)
    low, high = float(true.min()), float(true.max())
    axes.plot([low, high], [low, high], color='0.7', linewidth=1)
    axes.scatter(true, predicted, s=6, alpha=0.6, linewidths=0)
    axes.set(xlabel=f'true [{unit}]', ylabel=f'predicted [{unit}]',
             title=title)
    path = Path(out) / 'predictions.png'
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def plot_confusion(out: Path, matrix, classes: list[str], title: str
                   ) -> Path:
    """Plots the share of each true class (rows) given each label."""
    share = matrix / matrix.sum(1, keepdims=True).clip(min=1)
    size = 2 + 0.18 * len(classes)
    figure, axes = plt.subplots(figsize=(size + 0.6, size),
                                constrained_layout=True)
    image = axes.imshow(share, vmin=0, vmax=1, cmap='viridis')
    places = range(len(classes))
    axes.set_xticks(places, classes, rotation=90, fontsize=7)
    axes.set_yticks(places, classes, fontsize=7)
    axes.set(xlabel='predicted', ylabel='true', title=title)
    figure.colorbar(image, shrink=0.8, label='share of the true class')
    path = Path(out) / 'confusion.png'
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def save_json(path: Path, values: dict) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix('.part')
    part.write_text(json.dumps(values, indent=2) + '\n')
    part.replace(path)
