"""Damaged and hostile checkpoints: each must end in a ValueError that names
the file (or in training, where only numbers were changed), without much
memory or time::

    PYTHONPATH=. python tests/helpers/fuzz_checkpoints.py --files 5000
"""
import argparse
import logging
import random
import resource
import shutil
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import lightning as L
import torch
from resume import assert_equal
from torch_geometric.data import Data

from benchmarks.papers.checkpoints import read_checkpoint
from benchmarks.papers.training import cosine_schedule, fit, loaders


class Line(L.LightningModule):
    """The smallest thing that can be trained like a network."""
    def __init__(self, args):
        super().__init__()
        self.args, self.net = args, torch.nn.Linear(3, 1)

    def training_step(self, batch, _):
        loss = (self.net(batch.x) - batch.y).abs().mean()
        self.log('train_mae', loss, on_step=False, on_epoch=True,
                 batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch, _):
        self.log('val_mae', (self.net(batch.x) - batch.y).abs().mean(),
                 batch_size=batch.num_graphs)

    def configure_optimizers(self):
        return cosine_schedule(self.net.parameters(), self.args)


def train(out: Path, epochs: int) -> None:
    """Trains, or goes on with what is in the folder."""
    args = argparse.Namespace(
        out=out, epochs=epochs, lr=1e-3, weight_decay=0., seed=0,
        fresh=False, quiet=True, bf16=False, device='cpu', devices=1)
    data = [Data(x=torch.ones(1, 3), y=torch.ones(1, 1)) for _ in range(4)]
    module = Line(args)
    _, kept = fit(module, *loaders(data, data, 2, 0), args, 'val_mae')
    kept.load_best(module)


# Mutations ###################################################################


def flip(data: bytearray, rng) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng) -> None:
    del data[rng.randrange(len(data)):]


def swap(data: bytearray, rng) -> None:
    n = min(rng.choice((1, 16, 256)), len(data) // 4)
    a, b = (rng.randrange(len(data) - n) for _ in range(2))
    data[a:a + n], data[b:b + n] = data[b:b + n], data[a:a + n]


def blank(data: bytearray, rng) -> None:
    a = rng.randrange(len(data))
    n = min(rng.choice((1, 16, 512)), len(data) - a)
    data[a:a + n] = bytes(n) if rng.random() < 0.5 else rng.randbytes(n)


def insert(data: bytearray, rng) -> None:
    a = rng.randrange(len(data))
    data[a:a] = rng.randbytes(rng.choice((1, 4, 100)))


def remove(data: bytearray, rng) -> None:
    a = rng.randrange(len(data))
    del data[a:a + rng.choice((1, 4, 100))]


MUTATIONS = (flip, truncate, swap, blank, insert, remove)


def rezip(path: Path, data: bytes, mutate, rng) -> None:
    """A mutation inside of one file of the archive, with the right sums."""
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        files = {f: archive.read(f) for f in archive.namelist()}
    name = rng.choice([f for f in files if f.endswith('.pkl')] +
                      [f for f in files if files[f]])
    changed = bytearray(files[name])
    mutate(changed, rng)
    files[name] = bytes(changed)
    with zipfile.ZipFile(path, 'w') as archive:
        for f, content in files.items():
            archive.writestr(f, content)


def fuzz(folder: Path, number: int, seed: int = 0) -> Counter:
    """How many files ended how; raises an error for a wrong end."""
    train(folder, 2)
    whole = {f.name: f.read_bytes() for f in folder.glob('*.ckpt')}
    meant = {name: read_checkpoint(folder / name) for name in whole}
    rng, ends = random.Random(seed), Counter()
    for i in range(number):
        for name, data in whole.items():
            (folder / name).write_bytes(data)
        name, mutate = rng.choice(sorted(whole)), rng.choice(MUTATIONS)
        if rng.random() < 0.3:
            rezip(folder / name, whole[name], mutate, rng)
            kind = f'{mutate.__name__}, zipped again'
        else:
            data = bytearray(whole[name])
            mutate(data, rng)
            kind = mutate.__name__
            if data == whole[name]:
                continue
            (folder / name).write_bytes(data)
        start, memory = time.monotonic(), _memory()
        try:
            # The best epoch is read at the end only: nothing is left to do.
            found = read_checkpoint(folder / name)
            train(folder, 3 if name == 'last.ckpt' else 2)
            ends[f'{kind}: trained'] += 1
            if 'again' not in kind:  # what was hit means nothing: a date
                assert_equal(found, meant[name], name)
        except ValueError as error:
            ends[f'{kind}: refused'] += 1
            if f"'{folder / name}'" not in str(error):
                raise AssertionError(f'{i}: {kind} of {name}') from error
        except Exception as error:
            raise AssertionError(f'{i}: {kind} of {name}') from error
        assert time.monotonic() - start < 20, f'{i}: {kind} took long'
        assert _memory() - memory < 1e9, f'{i}: {kind} took memory'
    return ends


def _memory() -> float:
    return 1024. * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(argv=None) -> None:
    """Prints how the files ended."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--files', type=int, default=5000,
                        help='how many (default: 5000)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the mutations (default: 0)')
    args = parser.parse_args(argv)
    warnings.filterwarnings('ignore')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp())
    ends = fuzz(folder, args.files, args.seed)
    shutil.rmtree(folder)
    for kind, count in sorted(ends.items()):
        print(f'{count:6} {kind}')
    print(f'{_memory() / 1e9:.1f} GB at most')


if __name__ == '__main__':
    main()
