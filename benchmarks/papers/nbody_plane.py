r"""The stiffness experiment of the published version of "Implicit Neural
Convolutional Kernels for Steerable CNNs": springs tie particles to a plane,
more and more strongly, and what was symmetric under O(3) is so under SO(2)xM
alone. Networks of both groups, of about the same size, learn the motion::

    python -m benchmarks.papers.nbody_plane --train 300 --epochs 60

Every run is that of examples/nbody.py; options that are not named below are
passed on to it. Finished runs are kept, an interrupted one goes on: start the
same command again.
"""
from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from statistics import mean, stdev

from benchmarks.commandline import new_parser
from benchmarks.papers.plots import label_log_axis, plt, save_figure
from benchmarks.papers.training import channels_for
from benchmarks.report import save_json
from examples import nbody


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('--groups', nargs='+', default=['O(3)', 'SO(2)xM'],
                        help='to compare')
    parser.add_argument('--stiffness', type=float, nargs='+',
                        default=[0., 0.1, 1., 10.],
                        help='of the springs to the plane')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1],
                        help='a run of everything for each')
    parser.add_argument('--parameters', type=int, default=3000,
                        help='all networks have about so many (the channels '
                        'are chosen)')
    parser.add_argument('--out', type=Path, default=Path('runs/nbody_plane'),
                        help='folder for the runs, the table and the plot')
    return parser


def channels(group: str, parameters: int, rest: list[str]) -> int:
    """Of the network of that size."""
    def build(number: int):
        return nbody.build(nbody.build_parser().parse_args(
            [*rest, '--group', group, '--open', '--channels', str(number)]))

    return channels_for(parameters, build)


def run(args, rest: list[str], group: str, stiffness: float, seed: int
        ) -> dict:
    """One training run, unless it is there already."""
    name = group.replace('(', '').replace(')', '')
    with contextlib.redirect_stdout(io.StringIO()):
        found = nbody.main([
            '--law', 'springs', *rest, '--open', '--group', group,
            '--stiffness', str(stiffness), '--seed', str(seed), '--channels',
            str(channels(group, args.parameters, rest)), '--out',
            str(args.out / f'{name}_{stiffness:g}_{seed}')])
    print(f"stiffness {stiffness:g}, {group}, seed {seed}: test MSE "
          f"{found['test_mse']:.3g}, of straight lines "
          f"{found['straight_line_mse']:.3g} ({found['parameters']} "
          f"parameters)", flush=True)
    return found


def summarise(runs: dict[tuple[str, float], list[dict]]) -> dict:
    """Mean and deviation over seeds, by group and stiffness."""
    table: dict[str, dict] = {}
    for (group, stiffness), found in runs.items():
        values = [r['test_mse'] for r in found]
        table.setdefault(group, {})[f'{stiffness:g}'] = {
            'mean': mean(values),
            'std': stdev(values) if len(values) > 1 else None,
            'values': values,
            'straight': found[0]['straight_line_mse'],
            'parameters': found[0]['parameters'],
        }
    return table


def plot(table: dict, out: Path) -> Path:
    """Errors against the stiffness; its values at equal distances."""
    figure, axes = plt.subplots(figsize=(4.5, 3.5), constrained_layout=True)
    for i, (group, row) in enumerate(table.items()):
        axes.plot(list(row), [entry['mean'] for entry in row.values()],
                  color=f'C{i}', label=group)
        for place, entry in row.items():
            axes.plot(len(entry['values']) * [place], entry['values'], '.',
                      color=f'C{i}')
    axes.plot(list(row), [entry['straight'] for entry in row.values()], ':',
              color='0.6', label='straight lines')
    axes.set(xlabel='stiffness of the springs to the plane',
             ylabel='test MSE', yscale='log')
    label_log_axis(axes)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save_figure(figure, out / 'plane.png')


def main(argv=None) -> dict:
    """Runs everything that is not there yet."""
    args, rest = build_parser().parse_known_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    runs: dict[tuple[str, float], list[dict]] = {}
    for seed in args.seeds:
        for stiffness in args.stiffness:
            for group in args.groups:
                runs.setdefault((group, stiffness), []).append(
                    run(args, rest, group, stiffness, seed))
    table = summarise(runs)
    save_json(args.out / 'plane.json', table)
    print(f'plot: {plot(table, args.out)}')
    return table


if __name__ == '__main__':
    main()
