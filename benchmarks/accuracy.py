r"""What error our networks and others reach with the same data, steps and
tuning, in how many seconds of the CPU, with how many parameters::

    python -m benchmarks.accuracy qm9 --npz qm9.npz --train 10000
    python -m benchmarks.accuracy modelnet40 --npz train.npz test.npz
    python -m benchmarks.accuracy nbody --npz nbody.npz --epochs 100
    python -m benchmarks.accuracy rmd17 --npz train.npz test.npz --train 950 \
        --batch-size 5 --seconds 300
    python -m benchmarks.accuracy voxels --npz voxels.npz --batch-size 16

With --epochs networks take the same steps, with --seconds the same time of
the CPU; the learning rate follows a cosine of the one or the other.

Every network tries the same learning rates with the first seed, keeps the one
with the least error on validation data, and is trained with it from the other
seeds. Each run is a file in --out; started again, the command goes on with
those that are not there. --test reads the test data, of the chosen rates
alone.

Other networks join by a subclass of benchmarks.peers.Network, other data by
one of benchmarks.tasks.Task.
"""
from __future__ import annotations

import argparse
import math
import sys
import time
from datetime import date
from pathlib import Path
from statistics import mean, stdev

import torch
from torch_geometric.loader import DataLoader

from benchmarks.commandline import new_parser
from benchmarks.measure import commit, machine
from benchmarks.papers.plots import label_log_axis, plt, save_figure
from benchmarks.papers.runs import fingerprint, going_on
from benchmarks.papers.training import (
    Augmented,
    EpochSampler,
    count_parameters,
)
from benchmarks.peers import NETWORKS, Network
from benchmarks.report import (
    load_json,
    print_head,
    print_row,
    save_json,
    whole_file,
)
from benchmarks.tasks import TASKS, Task
from pyg_steerable.datasets import TARGETS


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('task', choices=list(TASKS),
                        help='the data to learn (no default)')
    parser.add_argument('--npz', type=Path, nargs='+', default=[],
                        metavar='FILE', help='the data (default: for qm9 the '
                        'molecules that are bundled)')
    parser.add_argument('--networks', nargs='+', default=None,
                        choices=list(NETWORKS), metavar='NAME',
                        help=f"of {', '.join(NETWORKS)} (default: all for "
                        f"the task)")
    parser.add_argument('--train', type=int, default=3000,
                        help='samples to train on')
    parser.add_argument('--valid', type=int, default=2000,
                        help='samples to validate and to test on, if there '
                        'are as many')
    parser.add_argument('--target', default='homo', choices=list(TARGETS),
                        help='the property of qm9')
    parser.add_argument('--epochs', type=int, default=4,
                        help='passes over the training samples')
    parser.add_argument('--seconds', type=float, default=None,
                        help='of the CPU for each training, instead of '
                        'epochs (default: as long as these take)')
    parser.add_argument('--batch-size', type=int, default=64,
                        help='samples of a step')
    parser.add_argument('--rates', type=float, nargs='+',
                        default=[1e-3, 3e-3, 1e-2],
                        help='learning rates to choose from')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0],
                        help='runs with the chosen rate; the first is that '
                        'of the choice')
    parser.add_argument('--test', action='store_true',
                        help='also the error on test data')
    parser.add_argument('--out', type=Path, default=None,
                        help='folder for the runs, the table and the plot '
                        '(default: runs/accuracy_ and the task)')
    return parser


def settings(args) -> dict:
    """What the runs of a folder have in common."""
    return {'task': args.task, 'target': args.target, 'train': args.train,
            'valid': args.valid, 'seconds': args.seconds,
            'epochs': args.epochs if args.seconds is None else None,
            'batch_size': args.batch_size,
            'data': [fingerprint(path) for path in args.npz],
            'machine': machine('cpu')}


def as_options(table: dict) -> list[str]:
    """The settings of a table, as options."""
    return [f'--{key.replace("_", "-")}={table[key]}'
            for key in ('target', 'train', 'valid', 'epochs', 'seconds',
                        'batch_size') if table[key] is not None]


# A run #######################################################################


def samples(task: Task, network: Network, part: str, seed: int):
    """A part of the data as the network sees it."""
    found = [network.prepare(task, data.clone()) for data in task.parts[part]]
    if task.transform is None:
        return found
    return Augmented(found, range(len(found)), task.transform, seed)


@torch.no_grad()
def evaluate(task: Task, net: torch.nn.Module, data) -> dict[str, float]:
    """The mean errors; what is random in them is the same for all."""
    net.eval()
    errors: dict[str, list] = {name: [] for name in task.units}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in DataLoader(data, 128):
            for name, found in task.errors(net(batch), batch).items():
                errors[name].append(found)
    return {name: float(torch.cat(found).mean())
            for name, found in errors.items()}


class Clock:
    """How much of a training is done, from 0 to 1: of so many steps, or of so
    many seconds of the CPU.
    """
    def __init__(self, steps: int, seconds: float | None):
        self.total, self.limit = steps, seconds
        self.steps, self.begin = 0, time.process_time()

    @property
    def seconds(self) -> float:
        """Those that went by."""
        return time.process_time() - self.begin

    @property
    def done(self) -> float:
        """The share that is done."""
        if self.limit is None:
            return min(1., self.steps / self.total)
        return min(1., self.seconds / self.limit)


def train(task: Task, network: Network, rate: float, seed: int, args
          ) -> tuple[torch.nn.Module, dict]:
    """AdamW with a cosine schedule, from the rate to a hundredth of it, the
    same for every network. Only training is timed: not the search for
    neighbours before it, nor the validation.
    """
    torch.manual_seed(seed)
    net = network.build(task)
    data = samples(task, network, 'train', seed)
    valid = samples(task, network, 'valid', seed=0)
    sampler = EpochSampler(data, seed)
    loader = DataLoader(data, args.batch_size, sampler=sampler,
                        drop_last=True)
    if not len(loader):
        raise ValueError(f"Expected '--batch-size' to be at most {len(data)}, "
                         f"the training samples (got {args.batch_size})")
    network.start(task, net, next(iter(DataLoader(data, 256))))
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-8)
    clock, epoch, shown = Clock(args.epochs * len(loader), args.seconds), 0, 0.
    while clock.done < 1:
        net.train()
        sampler.set_epoch(epoch)
        for batch in loader:
            share = 0.5 + 0.5 * math.cos(math.pi * clock.done)
            for group in optimizer.param_groups:
                group['lr'] = rate * (0.01 + 0.99 * share)
            optimizer.zero_grad()
            loss = task.loss(net(batch), batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.)
            optimizer.step()
            clock.steps += 1
            if clock.seconds - shown > 20:
                shown = clock.seconds
                print(f'  {clock.done:.0%}, {clock.steps} steps, loss '
                      f'{float(loss.detach()):.4g}', flush=True)
            if clock.done >= 1:
                break
        epoch += 1
    seconds = clock.seconds
    return net, {'network': network.name, 'rate': rate, 'seed': seed,
                 'valid': evaluate(task, net, valid), 'seconds': seconds,
                 'parameters': count_parameters(net), 'steps': clock.steps,
                 'units': task.units}


class Runs:
    """The runs in a folder, made where they are not there."""
    def __init__(self, args):
        self.args, self.task = args, None
        self.out = args.out or Path('runs') / f'accuracy_{args.task}'
        self.out.mkdir(parents=True, exist_ok=True)
        now, path = settings(args), self.out / 'settings.json'
        if not path.exists():
            save_json(path, now)
        before = load_json(path)
        for key in now:
            if before.get(key) != now[key]:
                raise ValueError(
                    f"Expected the '{key}' of the runs in '{self.out}', "
                    f"{before.get(key)} (got {now[key]}). Choose another "
                    f"'--out'")

    def load(self) -> Task:
        """The data, once."""
        if self.task is None:
            self.task = TASKS[self.args.task](self.args)
        return self.task

    def path(self, name: str, rate: float, seed: int) -> Path:
        """The file of a run."""
        return self.out / f'{name}_{rate:g}_{seed}.json'.replace(' ', '')

    def run(self, name: str, rate: float, seed: int) -> dict:
        """The figures of a run."""
        path = self.path(name, rate, seed)
        if not path.exists():
            net, found = train(self.load(), NETWORKS[name](), rate, seed,
                               self.args)
            with whole_file(path.with_suffix('.pt')) as part:
                torch.save(net.state_dict(), part)
            save_json(path, found)
        found = load_json(path)
        errors = ', '.join(f'{key} {value:.4g}'
                           for key, value in found['valid'].items())
        print(f"{name}, rate {rate:g}, seed {seed}: validation {errors}; "
              f"{found['steps']} steps, {found['seconds']:.0f} s", flush=True)
        return found

    def test(self, run: dict) -> dict[str, float]:
        """The errors on test data, of a run that was chosen."""
        if 'test' not in run:
            task, network = self.load(), NETWORKS[run['network']]()
            path = self.path(run['network'], run['rate'], run['seed'])
            net = network.build(task)
            net.load_state_dict(torch.load(path.with_suffix('.pt'),
                                           weights_only=True))
            run['test'] = evaluate(task, net, samples(task, network, 'test',
                                                      seed=0))
            save_json(path, run)
        return run['test']


# All of them #################################################################


def first_error(run: dict) -> float:
    """The one that decides."""
    return next(iter(run['valid'].values()))


def compare(args) -> dict[str, list[dict]]:
    """The runs with the best rate of each network, a seed each."""
    known = [n for n, cls in NETWORKS.items() if args.task in cls.tasks]
    names = known if args.networks is None else args.networks
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ValueError(f"Expected '--networks' for {args.task}, of {known} "
                         f"(got {wrong})")
    runs, chosen = Runs(args), {}
    for name in names:
        tried = [runs.run(name, rate, args.seeds[0]) for rate in args.rates]
        best = min(tried, key=first_error)
        chosen[name] = [best, *(runs.run(name, best['rate'], seed)
                                for seed in args.seeds[1:])]
        if args.test:
            for run in chosen[name]:
                runs.test(run)
    return chosen


def summarise(chosen: dict[str, list[dict]], args, out: Path) -> dict:
    """A table, a file and a plot."""
    units = next(iter(chosen.values()))[0]['units']
    parts = ['valid'] + ['test'] * all('test' in run for found in
                                       chosen.values() for run in found)
    table = {}
    for name, found in chosen.items():
        row = {key: found[0][key] for key in ('rate', 'parameters')}
        row['seeds'] = [run['seed'] for run in found]
        for key in ('seconds', 'steps'):
            row[key] = mean(run[key] for run in found)
        for part in parts:
            for error in units:
                values = [run[part][error] for run in found]
                row[f'{part}_{error}'] = mean(values)
                row[f'{part}_{error}_std'] = (
                    stdev(values) if len(values) > 1 else None)
        table[name] = row
    columns = [f'{part}_{error}' for part in parts for error in units]
    print_head(['network', *(f"{c.replace('_', ' ')} [{unit}]" for c, unit in
                             zip(columns, len(parts) * [*units.values()])),
                'CPU s', 'steps', 'parameters', 'rate', 'runs'])
    for name, row in sorted(table.items(), key=lambda r: r[1][columns[0]]):
        errors = [f'{row[c]:.4g}' + (f" +- {row[f'{c}_std']:.2g}"
                                     if len(row['seeds']) > 1 else '')
                  for c in columns]
        print_row([name, *errors, f"{row['seconds']:.0f}",
                   f"{row['steps']:.0f}", row['parameters'],
                   f"{row['rate']:g}", len(row['seeds'])])
    save_json(out / 'table.json', {
        'command': ' '.join(['python -m benchmarks.accuracy', *args.command]),
        'commit': commit(), 'date': str(date.today()), **settings(args),
        'units': units, 'networks': table})
    error = next(iter(units))
    plot(table, f'{parts[-1]}_{error}', units[error], out)
    return table


def plot(table: dict, key: str, unit: str, out: Path) -> None:
    """Error against seconds and against parameters."""
    figure, both = plt.subplots(1, 2, figsize=(8, 3.5), sharey=True,
                                constrained_layout=True)
    for axes, x, label in zip(both, ('seconds', 'parameters'),
                              ('CPU seconds of training', 'parameters')):
        for i, (name, row) in enumerate(table.items()):
            axes.errorbar(row[x], row[key], yerr=row[f'{key}_std'],
                          marker='os^vDPX*'[i % 8], color=f'C{i % 10}',
                          linestyle='none', capsize=3, label=name)
        axes.set(xlabel=label, xscale='log', yscale='log')
        axes.grid(alpha=0.3, which='both')
    label_log_axis(both[0])
    part, error = key.split('_')
    words = {'valid': 'validation', 'test': 'test'}
    both[0].set_ylabel(f'{words[part]} {error} [{unit}]')
    both[1].legend(fontsize=8)
    save_figure(figure, out / 'accuracy.png')


def parse(argv=None) -> argparse.Namespace:
    """Reads the command line."""
    args = build_parser().parse_args(argv)
    args.command = list(sys.argv[1:] if argv is None else argv)
    return args


def main(argv=None) -> dict:
    """Runs what is not there yet, and shows everything."""
    args = parse(argv)
    with going_on('accuracy.py', argv):
        chosen = compare(args)
        out = args.out or Path('runs') / f'accuracy_{args.task}'
        return summarise(chosen, args, out)


if __name__ == '__main__':
    main()
