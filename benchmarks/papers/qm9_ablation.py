r"""The ablation of Fig. 4 of "Implicit Neural Convolutional Kernels for
Steerable CNNs": harmonic kernels, implicit kernels, and implicit kernels
that see bonds, or bonds and atoms::

    python -m benchmarks.papers.qm9_ablation --npz FILE --train 10000

Every run is qm9 in a process of its own; options that are not named below are
passed on to it. Finished runs are kept, an interrupted one goes on: start the
same command again.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from benchmarks.commandline import new_parser
from benchmarks.papers.plots import plt, save_figure
from benchmarks.papers.runs import going_on, run_all, run_script
from benchmarks.report import save_json

VARIANTS = {
    'harmonic': ['--kernel', 'harmonic', '--condition', 'none'],
    'implicit': ['--kernel', 'implicit', '--condition', 'none'],
    '+ bonds': ['--kernel', 'implicit', '--condition', 'bonds'],
    '+ bonds + atoms': ['--kernel', 'implicit', '--condition', 'atoms'],
}
#: epsilon_HOMO in meV, read off the paper's figure; 100,000 molecules.
PAPER = {'harmonic': 42.97, 'implicit': 37.73, '+ bonds': 35.12,
         '+ bonds + atoms': 30.60}


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('--out', type=Path, default=Path('runs/qm9_ablation'),
                        help='folder for the runs, the table and the bars')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='a run of each kernel for each')
    parser.add_argument('--jobs', type=int, default=1,
                        help='runs at a time')
    parser.add_argument('--parameters', type=int, default=34000,
                        help='all networks have about so many (the channels '
                        'are chosen)')
    return parser


def parse(argv=None):
    """Reads the command line; unknown options go to qm9."""
    return build_parser().parse_known_args(argv)


def run(out: Path, variant: str, seed: int, parameters: int,
        rest: list[str]) -> dict:
    """One training run, unless it is there already."""
    name = variant.replace(' ', '').replace('+', '_').strip('_')
    found = run_script('qm9', out / f'{name}_{seed}', [
        *VARIANTS[variant], '--match', str(parameters), '--seed', str(seed),
        *rest])
    print(f"{variant:16} seed {seed}: test MAE {found['test_mae']:.2f} "
          f"{found['unit']} ({found['parameters']} parameters)", flush=True)
    return found


def summarise(out: Path, rows: dict[str, list[dict]]) -> None:
    """One table, one file, one plot."""
    table, unit = {}, 'meV'
    for variant, found in rows.items():
        errors = [row['test_mae'] for row in found]
        unit = found[0]['unit']
        table[variant] = {
            'test_mae': mean(errors),
            'std': stdev(errors) if len(errors) > 1 else 0.,
            'runs': errors,
            'parameters': found[0]['parameters'],
        }
        print(f"{variant:16} {table[variant]['test_mae']:8.2f} +- "
              f"{table[variant]['std']:.2f} {unit}   (paper, at full size: "
              f"{PAPER[variant]:.2f} meV)")
    save_json(out / 'ablation.json', table)
    figure, axes = plt.subplots(figsize=(5, 3.2), constrained_layout=True)
    axes.bar(list(table), [t['test_mae'] for t in table.values()],
             yerr=[t['std'] for t in table.values()], capsize=4,
             color=['tab:blue'] + 3 * ['tab:orange'])
    axes.set_ylabel(f'test MAE [{unit}]')
    axes.set_title('what the kernel sees')
    save_figure(figure, out / 'ablation.png')


def main(argv=None) -> None:
    """Runs everything that is not there yet."""
    args, rest = parse(argv)
    rows = {variant: [] for variant in VARIANTS}
    tasks = [(args.out, variant, seed, args.parameters, rest)
             for seed in args.seeds for variant in VARIANTS]
    with going_on(__file__, argv):
        for task, found in run_all(tasks, run, args.jobs):
            rows[task[1]].append(found)
    summarise(args.out, rows)


if __name__ == '__main__':
    main()
