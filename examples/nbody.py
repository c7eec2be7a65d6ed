r"""Where charged particles will be (the N-body task of "E(n) Equivariant Graph
Neural Networks", https://arxiv.org/abs/2102.09844), by steerable convolutions
whose kernels see charges, distances and velocities, as in "Implicit Neural
Convolutional Kernels for Steerable CNNs" (https://arxiv.org/abs/2212.06096)::

    python examples/nbody.py --demo                     # made here, minutes
    python examples/nbody.py --npz nbody.npz
    python examples/nbody.py --law springs --stiffness 4 --open \
        --group 'SO(2)xM'

Stopped at any moment and started again, it goes on after its last epoch and
ends with the same numbers.
"""
import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.optim.swa_utils import AveragedModel
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from pyg_steerable import Group
from pyg_steerable.datasets import NBodySystem, generate_nbody, load_nbody
from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.models import NBodyNet
from pyg_steerable.nn import calibrate

#: Options that may change when a run goes on.
FREE = ('out', 'fresh', 'device', 'threads', 'demo')
PARTS = ('train', 'valid', 'test')


def load(args):
    """Training, validation and test systems: the first ones of a file, or
    made here.
    """
    sizes = dict(train=args.train, valid=args.valid, test=args.valid)
    if not args.npz:
        system = NBodySystem(args.law, args.stiffness)
        return [generate_nbody(sizes[part], system, seed=seed)
                for seed, part in enumerate(PARTS)]
    parts = [load_nbody(args.npz, part) for part in PARTS]
    for name, part in zip(PARTS, parts):
        if len(part) < sizes[name]:
            raise ValueError(f"Expected {sizes[name]} systems to {name} with "
                             f"in '{args.npz}' (got {len(part)}). Take fewer "
                             f"with '--train' or '--valid'")
    return [part[:sizes[name]] for name, part in zip(PARTS, parts)]


def inputs(data):
    return (data.charge, data.pos, data.vel, data.edge_index, data.batch,
            data.num_graphs)


def build(args) -> NBodyNet:
    return NBodyNet(group=args.group, channels=args.channels,
                    steps=args.steps, attributes=args.attributes,
                    closed=not args.open,
                    kernel=ImplicitBasis.spec(hidden=args.hidden))


@torch.no_grad()
def errors(net, dataset, device):
    """The mean squared error of each system."""
    net.eval()
    found = []
    for data in DataLoader(dataset, 500):
        data = data.to(device)
        square = (net(*inputs(data)) - data.y).square()
        found.append(square.view(data.num_graphs, -1).mean(1).cpu())
    return torch.cat(found)


@torch.no_grad()
def largest_change(net, dataset, args) -> float:
    """Of a predicted position, under elements of the group (and shifts)."""
    net.eval()
    data = next(iter(DataLoader(dataset, 128))).to(args.device)
    pos, vel, before, worst = data.pos, data.vel, net(*inputs(data)), 0.
    for R in Group(args.group).sample(20).to(pos):
        shift = torch.randn(3).to(pos) * (not args.open)
        data.pos, data.vel = pos @ R.T + shift, vel @ R.T
        change = net(*inputs(data)) - before @ R.T - shift
        worst = max(worst, float(change.abs().max()))
    return worst


def averaging(decay: float):
    """Of all but the first steps an average that keeps so much in a step."""
    def average(mean, new, count):
        return mean.lerp(new, max(1 - decay, 10 / (10 + int(count))))

    return average


def train(args, train_set, valid_set):
    """The averaged network of the best epoch, and (training error, error of
    the average on validation systems) of every epoch.
    """
    torch.manual_seed(args.seed)
    net = build(args).to(args.device)
    first = next(iter(DataLoader(train_set, 500))).to(args.device)
    calibrate(net, *inputs(first))
    average = AveragedModel(net, avg_fn=averaging(args.average))
    loader = DataLoader(train_set, args.batch_size, shuffle=True,
                        drop_last=len(train_set) > args.batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), args.lr,
                                  weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, max(1, args.epochs * len(loader)), pct_start=0.1)
    learned, log, best = (net, average, optimizer, schedule), [], None
    if (args.out / 'last.pt').exists():
        log, best = restore(args, learned)
    size = sum(p.numel() for p in net.parameters())
    print(f'{len(train_set)} training systems, {size:,} parameters, '
          f'{len(log)} of {args.epochs} epochs done')
    progress = tqdm(total=args.epochs * len(loader),
                    initial=len(log) * len(loader))
    for epoch in range(len(log), args.epochs):
        progress.set_description(f'epoch {epoch + 1}')
        net.train()
        total = 0.
        for data in loader:
            data = data.to(args.device)
            optimizer.zero_grad()
            loss = (net(*inputs(data)) - data.y).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.)
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
            total += float(loss.detach())
            progress.update()
        log.append((total / len(loader), float(
            errors(average, valid_set, args.device).mean())))
        if log[-1][1] == min(error for _, error in log):
            best = {k: v.cpu().clone()
                    for k, v in average.module.state_dict().items()}
        save(args, learned, log, best)
        progress.set_postfix_str('MSE {:.4g}, validation {:.4g}'.format(
            *log[-1]))
    progress.close()
    if best is None:
        raise ValueError(f"Expected an epoch with a finite validation error "
                         f"(got none in {args.epochs}). Take more '--epochs' "
                         f"or a smaller '--lr'")
    net.load_state_dict(best)
    return net, log


def options(args) -> dict:
    return {k: v for k, v in vars(args).items() if k not in FREE}


def check_options(args, before: dict) -> None:
    if before != options(args):
        raise ValueError(f"Expected the options of the run in '{args.out}', "
                         f"{before} (got {options(args)}). Start again with "
                         f"'--fresh', or choose another '--out'")


def write(path: Path, save) -> None:
    """Writes a file, whole or not at all."""
    part = path.with_name(f'{path.name}.part')
    save(part)
    part.replace(path)


def save(args, learned, log, best) -> None:
    state = {'options': options(args), 'log': log, 'best': best,
             'learned': [one.state_dict() for one in learned],
             'rng': torch.get_rng_state()}
    write(args.out / 'last.pt', lambda part: torch.save(state, part))


def restore(args, learned):
    """The log and the best weights; all else is put where it was."""
    state = torch.load(args.out / 'last.pt', map_location='cpu',
                       weights_only=True)
    check_options(args, state['options'])
    for one, values in zip(learned, state['learned']):
        one.load_state_dict(values)
    torch.set_rng_state(state['rng'])
    return state['log'], state['best']


def plot(log, found, path: Path) -> None:
    """Learning curves, and how errors spread: a few close encounters make
    most of the mean.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4),
                                         layout='constrained')
    for values, label in zip(zip(*log), ('training', 'validation, averaged')):
        left.plot(range(1, len(log) + 1), values, label=label)
    left.set(xlabel='epoch', ylabel='mean squared error', yscale='log')
    left.legend()
    share = torch.arange(1, len(found) + 1) / len(found)
    right.plot(found.sort(descending=True).values, 100 * share)
    right.axvline(float(found.mean()), color='0.7', label='mean')
    right.set(xlabel='mean squared error of a test system', xscale='log',
              ylabel='systems with more [%]')
    right.legend()
    write(path, lambda part: figure.savefig(part, dpi=150, format='png'))
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    class Help(argparse.ArgumentDefaultsHelpFormatter,
               argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=Help)
    add = parser.add_argument
    add('--npz', default='', metavar='FILE', help='systems from a file '
        'instead of systems made here')
    add('--law', default='charged', choices=['charged', 'gravity', 'springs'],
        help='of the systems that are made here')
    add('--stiffness', type=float, default=0., help='of springs to a plane')
    add('--train', type=int, default=3000, help='training systems')
    add('--valid', type=int, default=2000, help='validation systems, and as '
        'many for the test')
    add('--group', default='O(3)', help='symmetry of the network')
    add('--open', action='store_true', help='outer forces may act')
    add('--attributes', default='vectors', choices=['none', 'scalars',
                                                    'vectors'],
        help='what kernels see: charges and distances, and velocities')
    add('--channels', type=int, default=12, help='fields of each degree')
    add('--hidden', type=int, default=8, help='width of the kernels')
    add('--steps', type=int, default=16, help='from now to then')
    add('--epochs', type=int, default=100, help='passes over the systems')
    add('--batch-size', type=int, default=100, help='systems of a step')
    add('--lr', type=float, default=5e-3, help='the highest learning rate')
    add('--weight-decay', type=float, default=1e-3, help='of AdamW')
    add('--average', type=float, default=0.998, help='how much of the '
        'average of the weights a step keeps')
    add('--seed', type=int, default=0, help='of weights and shuffling')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to train')
    add('--threads', type=int, default=1, help='of the CPU')
    add('--out', type=Path, default=Path('runs/nbody'), help='folder to write')
    add('--fresh', action='store_true', help='start again')
    add('--demo', action='store_true', help='a small network, 20 epochs')
    return parser


def straight(train_set, test_set) -> float:
    """The error of the best pos + w vel."""
    x, v, y = train_set.pos, train_set.vel, train_set.y
    w = ((y - x) * v).sum() / v.square().sum()
    x, v, y = test_set.pos, test_set.vel, test_set.y
    return float((x + w * v - y).square().mean())


def run(args) -> dict:
    """Trains, tests and plots; returns the figures."""
    train_set, valid_set, test_set = load(args)
    begin = time.process_time()
    net, log = train(args, train_set, valid_set)
    print(f'{time.process_time() - begin:.0f} s of the CPU, validation after '
          f'each epoch included')
    found = errors(net, test_set, args.device)
    plot(log, found, args.out / 'nbody.png')
    return {'options': options(args),
            'parameters': sum(p.numel() for p in net.parameters()),
            'test_mse': float(found.mean()),
            'test_median': float(found.median()),
            'straight_line_mse': straight(train_set, test_set),
            'largest_change': largest_change(net, test_set, args),
            'log': log}


def main(argv=None) -> dict:
    """Runs, or goes on, and prints; returns the figures."""
    parser = build_parser()
    if parser.parse_args(argv).demo:
        parser.set_defaults(train=1000, valid=500, channels=6, hidden=4,
                            steps=4, epochs=20)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    path = args.out / 'results.json'  # there when all else is
    if args.fresh:
        path.unlink(missing_ok=True)
        (args.out / 'last.pt').unlink(missing_ok=True)
    if not path.exists():
        text = json.dumps(run(args))
        write(path, lambda part: part.write_text(text))
    results = json.loads(path.read_text())
    check_options(args, results['options'])
    print(f"test MSE: {results['test_mse']:.4g} (median of the systems "
          f"{results['test_median']:.2g}); of straight lines: "
          f"{results['straight_line_mse']:.4g}\n"
          f"largest change of a position under {args.group}: "
          f"{results['largest_change']:.1e}\n"
          f"plot: {args.out / 'nbody.png'}")
    return results


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('stopped; without --fresh, the same command goes '
                         'on') from None
