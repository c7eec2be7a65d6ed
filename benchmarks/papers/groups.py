r"""The comparison of Fig. 3 of "Implicit Neural Convolutional Kernels for
Steerable CNNs": point clouds classified with implicit and with harmonic
kernels, for every symmetry group of the paper::

    python -m benchmarks.papers.groups --all --npz TRAIN TEST
    python -m benchmarks.papers.groups --groups 'SO(2)xM' 'O(3)'

Every run is modelnet40 in a process of its own; options that are not named
below are passed on to it (``--train-rotation 'SO(3)'``). Finished runs are
kept, an interrupted one goes on: start the same command again. All networks
have about the same number of parameters.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from benchmarks.commandline import new_parser
from benchmarks.papers.plots import plt, save_figure
from benchmarks.papers.runs import going_on, run_all, run_script
from benchmarks.report import save_json

KERNELS = ('harmonic', 'implicit')
#: Test accuracy in % at full size, (harmonic, implicit), read off the
#: paper's figure.
PAPER = {
    'M': (81.65, 80.75),
    'Inv': (79.95, 80.69),
    'SO(2)xInv': (83.17, 84.97),
    'SO(2)': (85.62, 86.47),
    'SO(2)xF': (84.10, 85.20),
    'SO(2)xM': (82.91, 86.51),
    'SO(3)': (80.87, 80.23),
    'O(3)': (79.09, 78.92),
}


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument('--all', action='store_true',
                        help="the paper's eight groups and five seeds")
    chosen.add_argument('--groups', nargs='+',
                        default=['SO(2)xM', 'SO(2)', 'SO(3)', 'O(3)'],
                        help='to compare')
    parser.add_argument('--kernels', nargs='+', default=list(KERNELS),
                        choices=KERNELS, help='to compare')
    parser.add_argument('--seeds', type=int, nargs='+', default=None,
                        help='a run of everything for each (default: 0 1 2; '
                        'with --all 0 1 2 3 4)')
    parser.add_argument('--parameters', type=int, default=100000,
                        help='all networks have about so many (the channels '
                        'are chosen)')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time')
    parser.add_argument('--out', type=Path, default=Path('runs/groups'),
                        help='folder for the runs, the table and the bars')
    return parser


def parse(argv=None):
    """Reads the command line; unknown options go to modelnet40."""
    args, rest = build_parser().parse_known_args(argv)
    if args.all:
        args.groups = list(PAPER)
    if args.seeds is None:
        args.seeds = [0, 1, 2, 3, 4] if args.all else [0, 1, 2]
    return args, rest


def folder_name(group: str, kernel: str, seed: int) -> str:
    """Without characters that shells mind."""
    return f"{group.replace('(', '').replace(')', '')}_{kernel}_{seed}"


def run(args, rest, group: str, kernel: str, seed: int) -> dict:
    """One training run, unless it is there already."""
    found = run_script(
        'modelnet40', args.out / folder_name(group, kernel, seed),
        ['--group', group, '--kernel', kernel, '--seed', str(seed), '--match',
         str(args.parameters), *rest])
    protocol = main_protocol(found['test_accuracy'])
    print(f"{group:10} {kernel:9} seed {seed}: "
          f"{found['test_accuracy'][protocol]:.2f} % ({protocol}, "
          f"{found['parameters']} parameters, {found['channels']} channels)",
          flush=True)
    return found


def main_protocol(names) -> str:
    """The test with the rotations of the training, or the first."""
    names = [name for name in names if '/' in name]
    same = [name for name in names if len(set(name.split('/'))) == 1]
    return (same or names)[0]


def summarise(runs: dict[tuple[str, str], list[dict]]) -> dict:
    """Mean and deviation over seeds, for each protocol."""
    table = {}
    for (group, kernel), found in runs.items():
        entry = table.setdefault(group, {})[kernel] = {
            'parameters': found[0]['parameters'],
            'channels': found[0]['channels'],
            'seeds': [r['seed'] for r in found],
        }
        for protocol in found[0]['test_accuracy']:
            values = [r['test_accuracy'][protocol] for r in found]
            entry[protocol] = {
                'mean': mean(values),
                'std': stdev(values) if len(values) > 1 else None,
                'values': values,
            }
        if group in PAPER:
            entry['paper'] = PAPER[group][KERNELS.index(kernel)]
    return table


def plot(table: dict, out: Path) -> Path:
    """Bars from zero, for the main protocol, and every run as a point."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.9 * len(table), 3.4),
                                constrained_layout=True)
    drawn = set()
    for i, entries in enumerate(table.values()):
        for kernel, entry in entries.items():
            k = KERNELS.index(kernel)
            protocol = main_protocol(entry)
            value = entry[protocol]
            axes.bar(i + 0.38 * (k - 0.5), value['mean'], 0.36,
                     yerr=value['std'], capsize=3, color=f'C{k}',
                     label=None if kernel in drawn else f'{kernel} kernels')
            axes.scatter(len(value['values']) * [i + 0.38 * (k - 0.5)],
                         value['values'], s=8, color='0.2', zorder=3)
            drawn.add(kernel)
    axes.set_xticks(range(len(table)), list(table), rotation=20)
    axes.set_ylabel(f'test accuracy [%], rotations {protocol}')
    axes.legend(fontsize=8)
    return save_figure(figure, out / 'groups.png')


def main(argv=None) -> dict:
    """Runs everything that is not there yet."""
    args, rest = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    runs: dict[tuple[str, str], list[dict]] = {}
    tasks = [(args, rest, group, kernel, seed) for seed in args.seeds
             for group in args.groups for kernel in args.kernels]
    with going_on(__file__, argv):
        for task, found in run_all(tasks, run, args.jobs):
            runs.setdefault(task[2:4], []).append(found)
            save_json(args.out / 'groups.json', summarise(runs))
    table = summarise(runs)
    for group, entries in table.items():
        for kernel, entry in entries.items():
            figures = '  '.join(
                f"{protocol} {v['mean']:.2f}" +
                ('' if v['std'] is None else f" +- {v['std']:.2f}")
                for protocol, v in entry.items() if '/' in protocol)
            print(f"{group:10} {kernel:9} {figures}   (paper, at full size, "
                  f"z/z: {entry.get('paper', '-')})")
    print(f'plot: {plot(table, args.out)}')
    return table


if __name__ == '__main__':
    main()
