"""Training: data in a fixed order, trainer, exact resume."""
from __future__ import annotations

import logging
import os
import signal
import time
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch.utils.data.distributed import DistributedSampler
from torch_geometric.loader import DataLoader

from benchmarks.papers.checkpoints import CheckpointFiles, LastAndBest
from benchmarks.papers.runs import clock


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


def fit(module: L.LightningModule, train_loader, valid_loader, args,
        monitor: str, **options) -> tuple[L.Trainer, LastAndBest]:
    """Trains, or goes on where the last checkpoint in :obj:`args.out`
    stopped. Further options go to the trainer. Returns it, and what kept the
    checkpoints.
    """
    warnings.filterwarnings('ignore', '.*does not have many workers.*')
    warnings.filterwarnings('ignore', '.*smaller than the logging interval.*')
    warnings.filterwarnings('ignore', '.*LeafSpec.*')
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    kept = LastAndBest(args.out, monitor)
    callbacks = [kept, SeedEachBatch(args.seed)]
    if not args.quiet:
        callbacks.append(Progress())
    trainer = L.Trainer(
        max_epochs=args.epochs, accelerator=args.device, **_processes(args),
        logger=False, callbacks=callbacks, plugins=[CheckpointFiles()],
        precision='bf16-mixed' if args.bf16 else '32-true',
        enable_progress_bar=not args.quiet, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0,
        default_root_dir=args.out, **options)
    resume = kept.last if kept.last.exists() and not args.fresh else None
    if resume is not None:
        kept.restore(trainer, module)
        print(f'resuming from {resume}')
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, train_loader, valid_loader, ckpt_path=resume)
    except SystemExit:  # what lightning makes of Ctrl-C
        if not trainer.interrupted:
            raise
    if trainer.interrupted:
        signal.signal(signal.SIGINT, handler)  # which lightning took away
        raise KeyboardInterrupt
    return trainer, kept


def _processes(args) -> dict:
    """The trainer's devices and nodes: what torchrun started, else one
    process. (Left to itself, the trainer takes one process on a CPU, torchrun
    or not, and would start more where there are more GPUs, to which
    EpochSampler would give the same data.)
    """
    if 'LOCAL_WORLD_SIZE' in os.environ:
        devices = int(os.environ['LOCAL_WORLD_SIZE'])
        return dict(devices=devices, strategy='ddp' if int(
            os.environ['WORLD_SIZE']) > 1 else 'auto',
            num_nodes=int(os.environ['WORLD_SIZE']) // devices)
    if str(args.devices) not in ('auto', '1'):
        raise ValueError(f"Expected '--devices' to be 1 or 'auto' without "
                         f"torchrun (got {args.devices!r}). Start more with "
                         f"'torchrun --nproc-per-node {args.devices}'")
    return dict(devices=1)


class Progress(TQDMProgressBar):
    """A bar for each epoch, and the time that all of the rest will take."""
    def __init__(self):
        super().__init__(refresh_rate=5)

    def on_train_start(self, trainer, module) -> None:
        super().on_train_start(trainer, module)
        self.start, self.first = time.monotonic(), trainer.current_epoch

    def on_train_epoch_start(self, trainer, *args) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(
            f'epoch {trainer.current_epoch + 1} of {trainer.max_epochs}')

    def get_metrics(self, trainer, module) -> dict:
        """The trainer's, and the time left."""
        metrics = super().get_metrics(trainer, module)
        bar = self.train_progress_bar
        done = trainer.current_epoch - self.first + bar.n / (bar.total or 1)
        if done > 0:
            left = trainer.max_epochs - self.first - done
            left *= (time.monotonic() - self.start) / done
            metrics['left'] = clock(max(0., left))
        return metrics
