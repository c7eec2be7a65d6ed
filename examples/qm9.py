r"""Molecular properties (QM9): the network of "Implicit Neural Convolutional
Kernels for Steerable CNNs" (https://arxiv.org/abs/2212.06096), section 5.3,
whose kernels see the relative position, the bond and both atoms::

    python examples/qm9.py --demo                       # minutes, offline
    python examples/qm9.py --source pyg --target gap    # all of QM9

Stopped at any moment and started again, it goes on after its last epoch and
ends with the same numbers. More options: python -m benchmarks.papers.qm9
"""
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.optim.swa_utils import AveragedModel
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from pyg_steerable import Group
from pyg_steerable.datasets import TARGETS, load_qm9, split_qm9
from pyg_steerable.models import QM9Net

EXTENSIVE = ('alpha', 'r2', 'zpve', 'U0', 'U', 'H', 'G', 'Cv')
#: Options that may change when a run goes on.
FREE = ('out', 'fresh', 'device', 'threads', 'demo')


def load(args):
    """Training, validation and test molecules with one target, in units of
    its deviation in the training set; its mean and this deviation.
    """
    dataset = load_qm9(args.source, limit=args.limit or None)
    if len(dataset) < 10:
        raise ValueError(f"Expected at least 10 molecules to train, validate "
                         f"and test with (got {len(dataset)}). Take more "
                         f"with '--limit'")
    parts = [dataset[index] for index in split_qm9(len(dataset))]
    y = parts[0].target(args.target)
    mean, std = float(y.mean()), float(y.std())

    def prepare(data):
        y = data.y[:, TARGETS[args.target].column]
        return Data(x=data.x, pos=data.pos, edge_index=data.edge_index,
                    edge_attr=data.edge_attr, y=(y - mean) / std)

    return [[prepare(data) for data in part] for part in parts], mean, std


def build(args) -> QM9Net:
    """Atoms are one-hot vectors of 5 numbers, bonds of 4."""
    return QM9Net(5, 4, 5, group=args.group, channels=args.channels,
                  blocks=args.blocks,
                  pool='sum' if args.target in EXTENSIVE else 'attention')


def forward(net, data):
    return net(data.x, data.pos, data.edge_index, data.edge_attr, data.batch,
               data.num_graphs).squeeze(1)


@torch.no_grad()
def predict(net, dataset, device):
    """Predicted and true values of all molecules."""
    net.eval()
    pairs = [(forward(net, data.to(device)).cpu(), data.y.cpu())
             for data in DataLoader(dataset, 128)]
    return [torch.cat(values) for values in zip(*pairs)]


@torch.no_grad()
def largest_change(net, dataset, args) -> float:
    """Of a prediction, under elements of the group and shifts."""
    net.eval()
    data = next(iter(DataLoader(dataset, 128))).to(args.device)
    pos, before, worst = data.pos, forward(net, data), 0.
    for R in Group(args.group).sample(20).to(pos):
        data.pos = pos @ R.T + torch.randn(3).to(pos)
        worst = max(worst, float((forward(net, data) - before).abs().max()))
    return worst


def averaging(decay: float):
    """Of all but the first steps an average that keeps so much in a step."""
    def average(mean, new, count):
        return mean.lerp(new, max(1 - decay, 10 / (10 + int(count))))

    return average


def train(args, train_set, valid_set, scale: float):
    """The averaged network of the best epoch, and (training error, validation
    error of the average) of every epoch.
    """
    torch.manual_seed(args.seed)
    net = build(args).to(args.device)
    average = AveragedModel(net, avg_fn=averaging(args.average))
    optimizer = torch.optim.AdamW(net.parameters(), args.lr,
                                  weight_decay=args.weight_decay)
    loader = DataLoader(train_set, args.batch_size, shuffle=True,
                        drop_last=len(train_set) > args.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, max(1, args.epochs * len(loader)), args.lr / 100)
    learned, log, best = (net, average, optimizer, schedule), [], None
    if (args.out / 'last.pt').exists():
        log, best = restore(args, learned)
    size = sum(p.numel() for p in net.parameters())
    print(f'{len(train_set)} training molecules, {size:,} parameters, '
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
            loss = (forward(net, data) - data.y).abs().mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(net)
            total += float(loss.detach())
            progress.update()
        predicted, true = predict(average, valid_set, args.device)
        log.append((scale * total / len(loader),
                    scale * float((predicted - true).abs().mean())))
        if log[-1][1] == min(error for _, error in log):
            best = {k: v.cpu().clone()
                    for k, v in average.module.state_dict().items()}
        save(args, learned, log, best)
        progress.set_postfix_str('MAE {:.4g}, validation {:.4g}'.format(
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


def plot(log, predicted, true, unit: str, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4),
                                         layout='constrained')
    for values, label in zip(zip(*log), ('training', 'validation, averaged')):
        left.plot(range(1, len(log) + 1), values, marker='.', label=label)
    left.set(xlabel='epoch', ylabel=f'MAE [{unit}]', yscale='log')
    left.legend()
    right.axline((float(true.mean()), ) * 2, slope=1, color='0.7')
    right.scatter(true, predicted, s=6, alpha=0.6, linewidths=0)
    right.set(xlabel=f'true [{unit}]', ylabel=f'predicted [{unit}]',
              title=f'{len(true)} test molecules')
    write(path, lambda part: figure.savefig(part, dpi=150, format='png'))
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    class Help(argparse.ArgumentDefaultsHelpFormatter,
               argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=Help)
    add = parser.add_argument
    add('--source', default='sample', help='of the molecules: 2,000 that are '
        "bundled, 'pyg' (a download), 'qm9pack' (from pip), an .npz file")
    add('--target', default='homo', choices=list(TARGETS), help='property')
    add('--limit', type=int, default=0, help='molecules to use, 0 for all')
    add('--group', default='O(3)', help='symmetry of the network')
    add('--channels', type=int, default=16, help='fields of each degree')
    add('--blocks', type=int, default=4, help='of two convolutions')
    add('--epochs', type=int, default=100, help='passes over the molecules')
    add('--batch-size', type=int, default=32, help='molecules of a step')
    add('--lr', type=float, default=1e-3, help='learning rate at the start')
    add('--weight-decay', type=float, default=1e-2, help='of AdamW')
    add('--average', type=float, default=0.99, help='how much of the average '
        'of the weights a step keeps')
    add('--seed', type=int, default=0, help='of weights and shuffling')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to train')
    add('--threads', type=int, default=1, help='of the CPU')
    add('--out', type=Path, default=Path('runs/qm9'), help='folder to write')
    add('--fresh', action='store_true', help='start again')
    add('--demo', action='store_true', help='a small network, 30 epochs')
    return parser


def run(args) -> dict:
    """Trains, tests and plots; returns the figures."""
    (train_set, valid_set, test_set), mean, std = load(args)
    _, _, factor, unit = TARGETS[args.target]
    net, log = train(args, train_set, valid_set, std * factor)
    predicted, true = (factor * (std * y + mean) for y in
                       predict(net, test_set, args.device))
    plot(log, predicted, true, unit, args.out / 'qm9.png')
    return {'options': options(args),
            'parameters': sum(p.numel() for p in net.parameters()),
            'test_mae': float((predicted - true).abs().mean()),
            'mean_predictor_mae': float((factor * mean - true).abs().mean()),
            'largest_change': largest_change(net, test_set, args),
            'log': log}


def main(argv=None) -> dict:
    """Runs, or goes on, and prints; returns the figures."""
    parser = build_parser()
    if parser.parse_args(argv).demo:
        parser.set_defaults(epochs=30, lr=5e-3, weight_decay=0.1, blocks=2,
                            channels=24)
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
    unit = TARGETS[args.target].report_unit
    print(f"test MAE of {args.target}: {results['test_mae']:.4g} {unit}; of "
          f"the mean alone: {results['mean_predictor_mae']:.4g} {unit}\n"
          f"largest change of a prediction under {args.group} and shifts: "
          f"{results['largest_change']:.1e} deviations of the target\n"
          f"plot: {args.out / 'qm9.png'}")
    return results


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('stopped; without --fresh, the same command goes '
                         'on') from None
