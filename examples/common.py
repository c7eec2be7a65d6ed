"""What the examples share: options, trainer, exact resume and plots."""
from __future__ import annotations

import argparse
import csv
import json
import os
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


class EpochSampler(DistributedSampler):
    """Shuffles by seed and epoch only, so that a resumed run sees the data
    in the order of an uninterrupted one; splits it among processes.
    """
    def __init__(self, dataset, seed: int):
        world = int(os.environ.get('WORLD_SIZE', 1))
        rank = int(os.environ.get('RANK', 0))
        super().__init__(dataset, world, rank, shuffle=True, seed=seed)


class SeedEachEpoch(Callback):
    """Random numbers inside an epoch depend on seed and epoch only."""
    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer, module) -> None:
        L.seed_everything(
            hash((self.seed, trainer.current_epoch, trainer.global_rank)) %
            2**31, verbose=False)


def loaders(train, valid, batch_size: int, seed: int):
    """The loaders of the training and validation sets."""
    return (DataLoader(train, batch_size,
                       sampler=EpochSampler(train, seed), drop_last=True),
            DataLoader(valid, max(batch_size, 128)))


def check_checkpoint(path: Path) -> None:
    """Raises a ValueError that names the file unless it can be loaded."""
    try:
        state = torch.load(path, map_location='cpu', weights_only=False)
        missing = {'state_dict', 'epoch', 'optimizer_states'} - set(state)
    except Exception as error:
        raise ValueError(
            f"Expected '{path}' to be a checkpoint of this example (got a "
            f"file that cannot be read, perhaps truncated: {error}). Delete "
            f"it or pass '--fresh' to start again") from error
    if missing:
        raise ValueError(f"Expected '{path}' to be a checkpoint of this "
                         f"example (got one without {sorted(missing)}). "
                         f"Delete it or pass '--fresh' to start again")


def fit(module: L.LightningModule, train_loader, valid_loader, args,
        monitor: str) -> tuple[L.Trainer, Path]:
    """Trains, or goes on where the last checkpoint in :obj:`args.out`
    stopped. Returns the trainer and the path of the best checkpoint.
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
    callbacks = [best, last, SeedEachEpoch(args.seed)]
    if not args.quiet:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    logger = _ResumingCSVLogger(out)
    callbacks.append(LearningRateMonitor('epoch'))
    trainer = L.Trainer(
        max_epochs=args.epochs, accelerator=args.device,
        devices=args.devices if str(args.devices) == 'auto' else
        int(args.devices), logger=logger, callbacks=callbacks,
        precision='bf16-mixed' if args.bf16 else '32-true',
        enable_progress_bar=not args.quiet, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
        log_every_n_steps=20, default_root_dir=out)
    resume = out / 'last.ckpt'
    if resume.exists():
        check_checkpoint(resume)
        print(f'resuming from {resume}')
    trainer.fit(module, train_loader, valid_loader,
                ckpt_path=resume if resume.exists() else None,
                weights_only=False)
    return trainer, Path(best.best_model_path or resume)


class _ResumingCSVLogger(CSVLogger):
    """metrics.csv in the run's folder, continued after a restart."""
    def __init__(self, folder: Path):
        super().__init__(folder, name='', version='')
        self._before = []
        path = Path(folder) / 'metrics.csv'
        if path.exists():
            with path.open() as file:
                self._before = list(csv.DictReader(file))

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


def plot_learning_curve(out: Path, columns: dict[str, str],
                        ylabel: str) -> Path:
    """Plots columns of metrics.csv (name -> label) against the epoch."""
    metrics = read_metrics(out)
    figure, axes = plt.subplots(figsize=(5, 3.5), constrained_layout=True)
    for key, label in columns.items():
        if key in metrics:
            axes.plot(*zip(*metrics[key]), label=label, marker='.')
    axes.set(xlabel='epoch', ylabel=ylabel, yscale='log')
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


def save_json(path: Path, values: dict) -> None:
    """Writes a file whole or not at all."""
    part = path.with_suffix('.part')
    part.write_text(json.dumps(values, indent=2) + '\n')
    part.replace(path)
