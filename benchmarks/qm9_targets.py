r"""All properties of QM9: what networks that were compared on one of them
(python -m benchmarks.accuracy qm9 --out FOLDER) reach on each, with the same
budget, the learning rates that were chosen there, and one seed::

    python -m benchmarks.qm9_targets --like FOLDER --npz qm9.npz

Started again, the command goes on with the runs that are not there.
"""
from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import accuracy
from benchmarks.commandline import new_parser
from benchmarks.measure import commit
from benchmarks.papers.plots import plt, save_figure
from benchmarks.papers.runs import going_on
from benchmarks.report import load_json, print_head, print_row, save_json
from pyg_steerable.datasets import TARGETS


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('--like', type=Path, required=True, metavar='FOLDER',
                        help='the comparison whose settings and rates are '
                        'taken (no default)')
    parser.add_argument('--npz', type=Path, default=None, metavar='FILE',
                        help='the molecules (default: those that are '
                        'bundled)')
    parser.add_argument('--targets', nargs='+', default=list(TARGETS),
                        choices=list(TARGETS), metavar='NAME',
                        help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument('--out', type=Path, default=Path('runs/qm9_targets'),
                        help='folder for the runs, the table and the plot')
    return parser


def like(table: dict) -> list[str]:
    """The settings of a comparison, as options."""
    if table['task'] != 'qm9':
        raise ValueError(f"Expected '--like' to be a comparison on qm9 (got "
                         f"one on {table['task']})")
    return accuracy.as_options(table)


def compare(args) -> dict[str, dict[str, float]]:
    """The test errors of each network, by target."""
    before = load_json(args.like / 'table.json')
    command = ['qm9', *like(before)]
    if args.npz is not None:
        command += ['--npz', str(args.npz)]
    found: dict[str, dict[str, float]] = {}
    for target in args.targets:
        runs = accuracy.Runs(accuracy.parse(
            [*command, f'--target={target}',
             f'--out={args.out / target}']))
        found[target] = {}
        for name, row in before['networks'].items():
            run = runs.run(name, row['rate'], 0)
            found[target][name] = runs.test(run)['MAE']
    save_json(args.out / 'table.json', {
        'like': before['command'], 'commit': commit(), 'test_MAE': found,
        'units': {t: TARGETS[t].report_unit for t in args.targets}})
    return found


def plot(found: dict[str, dict[str, float]], out: Path) -> None:
    """Errors in units of the least one."""
    figure, axes = plt.subplots(figsize=(9, 3.5), constrained_layout=True)
    names = list(next(iter(found.values())))
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        axes.bar([k + (i - (len(names) - 1) / 2) * width
                  for k in range(len(found))],
                 [row[name] / min(row.values()) for row in found.values()],
                 width, label=name)
    axes.set_xticks(range(len(found)), list(found))
    axes.set_ylabel('test MAE / least one')
    axes.grid(alpha=0.3, axis='y')
    axes.legend(fontsize=8, ncols=3)
    save_figure(figure, out / 'targets.png')


def main(argv=None) -> dict:
    """Runs what is not there yet, and shows everything."""
    args = build_parser().parse_args(argv)
    with going_on('qm9_targets.py', argv):
        found = compare(args)
    names = list(next(iter(found.values())))
    print_head(['target', 'unit', *names])
    for target, row in found.items():
        print_row([target, TARGETS[target].report_unit,
                   *(f'{row[name]:.4g}' for name in names)])
    plot(found, args.out)
    return found


if __name__ == '__main__':
    main()
