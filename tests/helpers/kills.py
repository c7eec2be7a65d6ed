"""Kills a run at random moments, again and again, and compares what
comes out in the end with an uninterrupted run, number by number::

    PYTHONPATH=. python tests/helpers/kills.py --kills 30
"""
import argparse
import importlib
import random
import shutil
import tempfile
import time
import warnings
from pathlib import Path

from resume import assert_same_runs, killed

OPTIONS = ['--smoke', '--quiet', '--device', 'cpu', '--threads', '1',
           '--epochs', '8']


def main(argv=None) -> dict:
    """Returns how often it was killed, and what there was then."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=30,
                        help='how many (default: 30)')
    parser.add_argument('--script', default='benchmarks.papers.qm9',
                        help='its module (default: benchmarks.papers.qm9)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the moments (default: 0)')
    args, rest = parser.parse_known_args(argv)
    warnings.filterwarnings('ignore')
    run = importlib.import_module(args.script).main
    options = [*OPTIONS, *rest]
    folder, generator = Path(tempfile.mkdtemp()), random.Random(args.seed)
    run([*options, '--out', str(folder / 'whole')])  # warms up, too
    shutil.rmtree(folder / 'whole')
    start = time.perf_counter()
    run([*options, '--out', str(folder / 'whole')])
    duration = time.perf_counter() - start
    kills, runs, seen = 0, 0, {}
    while kills < args.kills:
        part, runs = folder / f'part{runs}', runs + 1
        command = [*options, '--out', str(part)]
        while kills < args.kills and killed(
                run, command, delay=generator.uniform(0, 1) * duration):
            kills += 1
            for path in part.glob('*'):
                seen[path.name] = seen.get(path.name, 0) + 1
        run(command)
        assert_same_runs(folder / 'whole', part)
    shutil.rmtree(folder)
    print(f'{kills} kills in {runs} runs of {duration:.1f} s: all equal to '
          f'an uninterrupted run; there at a kill: '
          + ', '.join(f'{n} {c}x' for n, c in sorted(seen.items())))
    return {'kills': kills, 'runs': runs}


if __name__ == '__main__':
    main()
