"""An example is killed and started again."""
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parent.parent / 'examples'
sys.path.insert(0, str(EXAMPLES))
KEPT = ('last.ckpt', 'best.ckpt', 'metrics.csv', 'results.json',
        'options.json')


def start(script: str, options: list[str], out: Path) -> subprocess.Popen:
    """An example in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *options, '--out', str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when(process: subprocess.Popen, moment) -> bool:
    """Kills a process at a moment; False if it ended before."""
    limit = time.monotonic() + 120
    while not moment():
        assert time.monotonic() < limit
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read()
            return False
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def kill_again_and_again(script: str, options: list[str], out: Path,
                         kills: int, seed: int, pause: float) -> list[str]:
    """Starts a run and kills it, at a random time after it has begun to
    write, until it was killed so often or has ended; which files there were.
    """
    generator, found = random.Random(seed), []
    for _ in range(kills):
        process = start(script, options, out)
        # Not while the interpreter imports: that is most of the time.
        begun = time.time()
        alive = kill_when(process, lambda: any(
            p.stat().st_mtime > begun for p in files(out)))
        if not alive:
            break
    return found


def files(out: Path) -> list[Path]:
    """What there is of a run, and what is being written."""
    return [p for p in out.glob('*') if p.is_file()]


def assert_same_runs(first: Path, second: Path) -> None:
    """Checks that checkpoints, logs and results are equal, number by
    number.
    """
    for name in KEPT:
        assert (first / name).exists() and (second / name).exists(), name
        if name.endswith('.ckpt'):
            a, b = (torch.load(folder / name, weights_only=True)
                    for folder in (first, second))
            assert_equal(a, b, name)
        else:
            assert ((first / name).read_text() ==
                    (second / name).read_text()), name
    left = [p.name for p in second.iterdir() if p.name.endswith('.part')]
    assert not left, left


def assert_equal(a, b, place: str) -> None:
    """Checks that nested values are equal."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert set(a) == set(b), place
        for key in a:
            assert_equal(a[key], b[key], f'{place}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f'{place}[{i}]')
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), place
    else:
        assert a == b or a != a and b != b, (place, a, b)
