"""A run is killed and started again."""
import contextlib
import os
import signal
import time
import traceback
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
#: The files of a run in the order in which they are first written.
WRITTEN = ('options.json', 'best.ckpt', 'last.ckpt', 'metrics.csv',
           'learning_curve.png', 'results.json')


def killed(main, argv: list[str], name: str | None = None, count: int = 1,
           delay: float | None = None) -> bool:
    """Runs main in a child that is killed where it puts a file at its
    place for so many times, or after some seconds; False if it ends before.
    """
    child = os.fork()  # starts at once, without imports
    if child == 0:
        code = 1
        try:
            with open(os.devnull, 'w') as sink:
                os.dup2(sink.fileno(), 1)
            _die_at(name, count)
            main(argv)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0, 'it failed'
    return os.WIFSIGNALED(status)


def _die_at(name: str | None, count: int) -> None:
    replace, left = Path.replace, [count]

    def dying(path, target):
        if Path(target).name == name:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = dying


def assert_resumes(tmp_path: Path, main, options: list[str]) -> None:
    """Checks that a run that is killed while it writes each of its files is
    in the end that of an uninterrupted run.
    """
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    main([*options, '--out', str(whole)])
    for name in WRITTEN:
        assert killed(main, [*options, '--out', str(part)], name, 2 if name in
                      ('last.ckpt', 'metrics.csv') else 1), name
        assert not (part / 'results.json').exists()
    main([*options, '--out', str(part)])
    assert_same_runs(whole, part)


def assert_same_runs(first: Path, second: Path) -> None:
    """Checks that checkpoints, logs, results and plots are equal, number by
    number.
    """
    names = {p.name for p in first.iterdir() if p.is_file()} - {'.lock'}
    assert names == {p.name for p in second.iterdir()
                     if p.is_file()} - {'.lock'}
    assert names > set(WRITTEN)
    for name in sorted(names):
        if name.endswith('.ckpt'):
            assert_equal(*(torch.load(folder / name, weights_only=True)
                           for folder in (first, second)), name)
        elif not name.endswith('.npz'):  # these hold the time
            assert (first / name).read_bytes() == \
                (second / name).read_bytes(), name


def assert_equal(a, b, place: str) -> None:
    """Checks that nested values are equal."""
    assert type(a) is type(b), place
    if isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            assert_equal(a[key], b[key], f'{place}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b)):
            assert_equal(x, y, f'{place}[{i}]')
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), place
    else:
        assert a == b, (place, a, b)


@contextlib.contextmanager
def ctrl_c(count: int):
    """Presses Ctrl-C before a step of training, the count-th from now."""
    backward, left = torch.Tensor.backward, [count]

    def interrupted(loss, *args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return backward(loss, *args, **kwargs)

    torch.Tensor.backward = interrupted
    try:
        yield
    finally:
        torch.Tensor.backward = backward


def assert_same_files(first: Path, second: Path) -> None:
    """Checks that two folders of an example hold the same, number by number,
    and nothing that was begun.
    """
    names = {path.name for path in first.iterdir()}
    assert names == {path.name for path in second.iterdir()}
    for name in sorted(names):
        if name.endswith('.pt'):
            assert_equal(*(torch.load(folder / name, weights_only=True)
                           for folder in (first, second)), name)
        else:
            assert (first / name).read_bytes() == \
                (second / name).read_bytes(), name
