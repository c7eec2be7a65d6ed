"""Checkpoints: written whole, read without running anything in them, and with
the log of the run inside, so that both are always of the same epoch.
"""
from __future__ import annotations

import copy
import csv
import numbers
import pickletools
import zipfile
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from benchmarks.report import whole_file

#: What a checkpoint may name: tensors and containers. (torch's own list for
#: loading weights holds more, e.g. bytearray, which can ask for any amount of
#: memory.)
NAMES = {'torch._utils _rebuild_tensor_v2', 'collections OrderedDict'} | {
    f'torch {kind}Storage' for kind in (
        'Float', 'Double', 'Half', 'BFloat16', 'Long', 'Int', 'Short', 'Char',
        'Byte', 'Bool')}
#: What steps change in the state of an optimiser and a schedule.
CHANGING = {'state', 'lr', 'last_epoch', '_step_count', '_last_lr'}
KEYS = {'state_dict', 'epoch', 'global_step'}


# Files #######################################################################


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint: tensors, numbers and text only; a
    ValueError that names the file for anything else.
    """
    try:
        _check_archive(path)
        state = torch.load(path, map_location='cpu', weights_only=True)
        if not isinstance(state, dict) or not KEYS <= set(state):
            raise ValueError(f'it does not hold {sorted(KEYS)}')
    except Exception as error:
        raise _damaged(path, error) from error
    return state


def _damaged(path: Path, why) -> ValueError:
    lines = str(why).strip().splitlines() or [type(why).__name__]
    return ValueError(f"Expected '{path}' to be a checkpoint of this script "
                      f"(got one that cannot be used, perhaps damaged: "
                      f"{lines[0]}). Start again with '--fresh'")


def _check_archive(path: Path) -> None:
    """Raises a ValueError unless every byte of the archive is as it was
    written and its size is that of the file. torch.load looks at neither.
    """
    with zipfile.ZipFile(path) as archive:
        files = archive.infolist()
        if (any(f.compress_type != zipfile.ZIP_STORED for f in files) or
                sum(f.file_size for f in files) > Path(path).stat().st_size):
            raise ValueError('it is compressed')
        if len({f.filename for f in files}) < len(files):
            raise ValueError('it holds two files of one name')
        broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"'{broken}' in it is damaged")
        (pickled, ) = (f for f in files if f.filename.endswith('/data.pkl'))
        _check_pickle(archive.read(pickled))


def _check_pickle(pickled: bytes) -> None:
    """Raises a ValueError where something else is named or made than tensors
    and containers.
    """
    for code, value, _ in pickletools.genops(pickled):
        if code.name == 'GLOBAL' and value not in NAMES:
            raise ValueError(f"it names {value.replace(' ', '.')}, which is "
                             f"not loaded")
        if code.name in ('STACK_GLOBAL', 'INST', 'OBJ', 'NEWOBJ',
                         'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4', 'PERSID'):
            raise ValueError(f'it holds {code.name}, which is not loaded')


def check_form(expected, found, place: str) -> None:
    """Raises a ValueError unless both are nested in the same way, with
    tensors of the same shape and type, and numbers and text at the same
    places.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        if set(expected) != set(found):
            names = sorted(map(str, set(expected) ^ set(found)))
            raise ValueError(f"{place} has other names: {', '.join(names[:3])}"
                             f"{' ...' if len(names) > 3 else ''}")
        for key, value in expected.items():
            check_form(value, found[key], f'{place}.{key}')
    elif isinstance(expected, (list, tuple)) and isinstance(found,
                                                            (list, tuple)):
        if len(expected) != len(found):
            raise ValueError(f'{place} is of another length')
        for i, (a, b) in enumerate(zip(expected, found)):
            check_form(a, b, f'{place}[{i}]')
    elif isinstance(expected, Tensor) and isinstance(found, Tensor):
        if (expected.shape, expected.dtype) != (found.shape, found.dtype):
            raise ValueError(
                f'{place} is {list(found.shape)} of {found.dtype} rather '
                f'than {list(expected.shape)} of {expected.dtype}')
    elif not (isinstance(expected, numbers.Real)
              and isinstance(found, numbers.Real)
              or isinstance(found, type(expected))):
        raise ValueError(f'{place} is a {type(found).__name__}')


def load_weights(path: Path, module: L.LightningModule) -> dict:
    """Puts the weights of a checkpoint into a module; returns the rest."""
    state = read_checkpoint(path)
    try:
        check_form(dict(module.state_dict()), state['state_dict'],
                   'state_dict')
    except ValueError as error:
        raise _damaged(path, error) from error
    module.load_state_dict(state.pop('state_dict'))
    return state


class CheckpointFiles(CheckpointIO):
    """How the trainer writes and reads checkpoints."""
    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        with whole_file(Path(path)) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        return read_checkpoint(path)

    def remove_checkpoint(self, path) -> None:
        Path(path).unlink(missing_ok=True)


# Training ####################################################################


class LastAndBest(Checkpoint):
    """Writes last.ckpt after each epoch, best.ckpt where the validation is
    better than ever, and metrics.csv, a line for each epoch, which is a copy
    of what last.ckpt holds.

    Killed at any moment, a run goes on from last.ckpt: what is lost is done
    again, and comes out the same.
    """
    def __init__(self, folder: Path, monitor: str):
        self.folder, self.monitor = Path(folder), monitor
        self.last, self.best = self.folder / 'last.ckpt', \
            self.folder / 'best.ckpt'
        self.rows: list[dict[str, float]] = []
        self.score, self.epoch = float('inf'), -1
        self.validated = False

    def on_train_epoch_start(self, trainer, module) -> None:
        self.rate = float(trainer.optimizers[0].param_groups[0]['lr'])

    def on_validation_end(self, trainer, module) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer, module) -> None:
        epoch = trainer.current_epoch
        if self.rows and self.rows[-1]['epoch'] >= epoch:
            return  # the trainer tells it again when it goes on
        values = {name: float(value) for name, value in
                  sorted(trainer.callback_metrics.items())
                  if self.validated or not name.startswith('val_')}
        self.rows.append({'epoch': epoch, 'step': trainer.global_step,
                          'lr': self.rate, **values})
        score = values.get(self.monitor, float('inf'))
        self.validated = False
        # One process decides for all.
        if trainer.strategy.broadcast(score < self.score):
            self.score, self.epoch = score, epoch
            trainer.save_checkpoint(self.best, weights_only=True)
        trainer.save_checkpoint(self.last, weights_only=False)
        if trainer.is_global_zero:
            self.write_log()

    def write_log(self) -> None:
        """Writes metrics.csv."""
        names = {name: None for row in self.rows for name in row}
        with (whole_file(self.folder / 'metrics.csv') as part,
              part.open('w', newline='') as file):
            lines = csv.DictWriter(file, list(names))
            lines.writeheader()
            lines.writerows(self.rows)

    def state_dict(self) -> dict:
        return {'rows': self.rows, 'score': self.score, 'epoch': self.epoch}

    def load_state_dict(self, state: dict) -> None:
        self.rows, self.score, self.epoch = (state['rows'], state['score'],
                                             state['epoch'])

    def restore(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Checks last.ckpt against the network and its optimiser before the
        trainer reads it, and rewinds the log to it.
        """
        state = read_checkpoint(self.last)
        try:
            _check_training(state, trainer, module, self.state_key)
        except Exception as error:
            raise _damaged(self.last, error) from error
        self.load_state_dict(state['callbacks'][self.state_key])
        if trainer.is_global_zero:
            self.write_log()

    def load_best(self, module: L.LightningModule) -> None:
        """The weights of the best epoch; those of the last one, where no
        validation was before the end.
        """
        path = self.last if self.epoch < 0 else self.best
        state = load_weights(path, module)
        if self.epoch >= 0 and state['epoch'] != self.epoch:
            raise _damaged(path, f"it is of epoch {state['epoch']}, and the "
                           f'best was {self.epoch}')


def _check_training(state: dict, trainer, module, key: str) -> None:
    """Raises an error unless a checkpoint has the form of this training."""
    check_form(dict(module.state_dict()), state['state_dict'], 'state_dict')
    optimizers, schedules = copy.deepcopy(module).configure_optimizers()
    for optimizer, schedule in zip(optimizers, schedules):
        for group in optimizer.param_groups:  # one step, to have its moments
            for parameter in group['params']:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        schedule.step()
    states = [optimizer.state_dict() for optimizer in optimizers]
    for have, found in zip(states, state['optimizer_states']):
        have['state'] = {i: moments for i, moments in have['state'].items()
                         if i in found['state']}  # no gradient, no moments
    for name, expected in (
            ('optimizer_states', states),
            ('lr_schedulers', [s.state_dict() for s in schedules])):
        check_form(expected, state[name], name)
        _check_settings(expected, state[name], name)
    check_form(trainer.fit_loop.state_dict(), state['loops']['fit_loop'],
               'fit_loop')
    epoch, log = state['epoch'], state['callbacks'][key]
    check_form({'rows': log['rows'], 'score': 0., 'epoch': 0}, log, 'log')
    progress = state['loops']['fit_loop']['epoch_progress']['current']
    if (not 0 <= epoch < trainer.max_epochs
            or progress['processed'] != epoch + 1
            or progress['completed'] not in (epoch, epoch + 1)
            or [row['epoch'] for row in log['rows']] != list(range(epoch + 1))
            or not all(isinstance(v, numbers.Real) and isinstance(k, str)
                       for row in log['rows'] for k, v in row.items())):
        raise ValueError(f'its log is not that of {epoch + 1} of '
                         f'{trainer.max_epochs} epochs')


def _check_settings(expected, found, place: str) -> None:
    """Raises a ValueError where numbers differ that no step changes."""
    if isinstance(expected, dict):
        for key in expected:
            if key not in CHANGING:
                _check_settings(expected[key], found[key], f'{place}.{key}')
    elif isinstance(expected, (list, tuple)):
        for i, (a, b) in enumerate(zip(expected, found)):
            _check_settings(a, b, f'{place}[{i}]')
    elif expected != found:
        raise ValueError(f'{place} is {found} rather than {expected}')
