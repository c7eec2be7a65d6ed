"""The folder of a run: its options, which may not change under it; one
process at a time; files that are whole or not there; and Ctrl-C.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.report import load_json, save_json
from pyg_steerable import __version__

#: Options that leave the result as it is, and presets, which are stored as
#: the options that they set.
FREE = {'out', 'fresh', 'quiet', 'device', 'devices', 'threads', 'jobs',
        'demo', 'small', 'smoke', 'all'}
#: What a run writes, the file that says that it is done first, and the one
#: that says what it was last.
FILES = ('results.json', 'last.ckpt', 'best.ckpt', 'metrics.csv',
         'learning_curve.png', 'predictions.png', 'confusion.png',
         'options.json')
STOPPED = 130  # the exit status after Ctrl-C, as shells have it
_children: set[subprocess.Popen] = set()


def fingerprint(path: Path) -> str | None:
    """What tells the content of a file, or of a folder (by the names, sizes
    and times of its files), from another; None if there is nothing.
    """
    digest = hashlib.blake2b(digest_size=8)
    if path.is_file():
        with path.open('rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    elif path.is_dir():
        for file in sorted(p for p in path.rglob('*') if p.is_file()):
            place = file.relative_to(path)
            if place.parts[0] != 'voxels':  # what shrec17.py makes of it
                status = file.stat()
                digest.update(f'{place}\n{status.st_size} '
                              f'{status.st_mtime_ns}\n'.encode())
    else:
        return None
    return digest.hexdigest()


# Options #####################################################################


def describe(args: Namespace, script: str) -> dict:
    """Everything that the result depends on, as JSON holds it."""
    values = {'pyg_steerable': __version__, 'script': Path(script).stem,
              'processes': int(os.environ.get('WORLD_SIZE', 1))}
    options = {key: value for key, value in sorted(vars(args).items())
               if key not in FREE}
    # Beside --source, --root is a folder for downloads.
    inputs = {'npz'} if 'source' in options else {'npz', 'root'}
    for key, value in options.items():
        name = f"--{key.replace('_', '-')}"
        if key in ('npz', 'root') and value is not None:
            paths = [Path(p).resolve() for p in
                     (value if isinstance(value, list) else [value])]
            value = [str(p) for p in paths]
            if key in inputs:
                values[f'content of {name}'] = [fingerprint(p) for p in paths]
        values[name] = str(value) if isinstance(value, Path) else value
    return json.loads(json.dumps(values))


def check_options(out: Path, now: dict) -> None:
    """Raises a ValueError that lists how a run's options differ from those
    that are stored in its folder.
    """
    path = out / 'options.json'
    if not path.exists():
        raise ValueError(f"Expected 'options.json' in '{out}', where a run "
                         f"has been (got none: made by an older version?). "
                         f"Start again with '--fresh', or choose another "
                         f"'--out'")
    before = load_json(path)
    absent = object()
    differing = [
        f'{key}: {_say(before, key)} before, {_say(now, key)} now'
        for key in [*now, *(k for k in before if k not in now)]
        if before.get(key, absent) != now.get(key, absent)
    ]
    if differing:
        lines = '\n  '.join(differing)
        raise ValueError(f"Expected the options of the run in '{out}' (got "
                         f"others):\n  {lines}\nStart again with '--fresh', "
                         f"or choose another '--out'")


def _say(values: dict, key: str) -> str:
    if key not in values:
        return 'not there'
    value = values[key]
    if isinstance(value, list):
        return ' '.join(map(str, value))
    return str(value)


# Runs ########################################################################


@contextlib.contextmanager
def run_folder(args: Namespace, script: str, argv=None) -> Iterator[None]:
    """Holds args.out for a run of a script with these options; says how to go
    on after Ctrl-C.
    """
    out = Path(args.out)
    with going_on(script, argv):
        out.mkdir(parents=True, exist_ok=True)
        if int(os.environ.get('RANK', 0)) > 0:
            yield
            return
        with _alone(out):
            _prepare(out, args, describe(args, script))
            yield


def _prepare(out: Path, args: Namespace, options: dict) -> None:
    """Clears the folder, or checks that the run in it is this one."""
    for part in out.glob('.*.part'):  # of a process that was killed
        part.unlink()
    if args.fresh:
        for name in FILES:
            (out / name).unlink(missing_ok=True)
    if any((out / name).exists() for name in FILES[:3]):
        check_options(out, options)
    else:
        save_json(out / 'options.json', options)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keeps other processes out of a folder. The lock goes with the process,
    however that ends.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with (out / '.lock').open('a+') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RuntimeError(
                f"Expected '--out' to be a folder that no other process runs "
                f"in (got '{out}', used by process {lock.read() or '?'}). "
                f"Wait for it, or choose another '--out'") from error
        except OSError:  # a file system without locks
            pass
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def going_on(script: str | Path, argv=None) -> Iterator[None]:
    """After Ctrl-C, says how to go on and ends with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        if int(os.environ.get('RANK', 0)) == 0:
            options = sys.argv[1:] if argv is None else argv
            command = ['python', '-m', module_of(script),
                       *(o for o in options if o != '--fresh')]
            print(f'\nstopped; to continue, run again:\n'
                  f'  {shlex.join(command)}', flush=True)
        raise SystemExit(STOPPED) from None


def module_of(script: str | Path) -> str:
    """What python -m calls a script of this folder."""
    return f'{__package__}.{Path(script).stem}'


def run_script(script: str, folder: Path, options: list[str]) -> dict:
    """The results of a script of this folder in a process of its own, which
    goes on where it was stopped; at once if it is done.
    """
    results = folder / 'results.json'
    command = ['--out', str(folder), '--quiet', *options]
    args = importlib.import_module(module_of(script)).parse(command)
    if results.exists() and not args.fresh:
        check_options(folder, describe(args, script))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', module_of(script), *command]
        with (folder / 'log.txt').open('a') as log:
            child = subprocess.Popen(command, stdout=log, stderr=log)
            _children.add(child)
            code = child.wait()
            _children.discard(child)
        if code == STOPPED:
            raise KeyboardInterrupt
        if code:
            lines = (folder / 'log.txt').read_text().splitlines()[-8:]
            raise RuntimeError(f"Expected '{' '.join(command)}' to end well "
                               f"(got exit status {code}; the end of "
                               f"{folder / 'log.txt'}):\n" + '\n'.join(lines))
    return load_json(results)


def run_all(tasks: list, run: Callable, jobs: int = 1) -> Iterator[tuple]:
    """Each task with run(*task), so many at a time, in order; says how long
    the rest will take.
    """
    start = time.monotonic()
    pool = ThreadPoolExecutor(jobs)
    try:
        for i, (task, job) in enumerate(
                [(task, pool.submit(run, *task)) for task in tasks]):
            yield task, job.result()
            left = (time.monotonic() - start) / (i + 1) * (len(tasks) - i - 1)
            print(f'  {i + 1} of {len(tasks)} runs, about '
                  f'{clock(left)} left', flush=True)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in list(_children):
            try:  # Ctrl-C reaches it too; a signal to this process does not
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGINT)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes // 60}:{minutes % 60:02d}:{seconds:02d}'
