r"""Energies and forces of a molecule (rMD17): a steerable interatomic
potential, trained on 950 frames of molecular dynamics::

    python examples/rmd17.py --molecule ethanol         # downloads rMD17
    python examples/rmd17.py --npz train.npz test.npz   # your own frames

Stopped at any moment and started again, it goes on after its last epoch and
ends with the same numbers. With --nve 10 the potential also drives molecular
dynamics of 10 ps, whose total energy is plotted.
"""
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from pyg_steerable.datasets import MOLECULES, load_rmd17, split_rmd17
from pyg_steerable.models import Potential
from pyg_steerable.nn import calibrate

MEV = 43.364115  # in a kcal/mol
#: Of kcal/(mol Angstrom) and atomic mass units, in Angstrom / fs^2.
ACCELERATION = 4.184e-4
BOLTZMANN = 1.987204e-3  # kcal/(mol K)
MASSES = {1: 1.008, 6: 12.011, 7: 14.007, 8: 15.999}
#: Options that may change when a run goes on.
FREE = ('out', 'fresh', 'device', 'threads')


def load(args):
    """Training, validation and test frames."""
    if args.npz:
        frames, test = map(load_rmd17, args.npz)
        split = split_rmd17(len(frames), args.train, args.valid, 0, args.seed)
    else:
        frames = test = load_rmd17(args.molecule)
        split = split_rmd17(len(frames), args.train, args.valid, args.test,
                            args.seed)
        test = test[split.test]
    return list(frames[split.train]), list(frames[split.valid]), list(test)


def build(args, train_set) -> Potential:
    """The potential, with the scales of the training frames."""
    torch.manual_seed(args.seed)
    data = next(iter(DataLoader(train_set, len(train_set))))
    net = Potential(data.z.unique().tolist(), cutoff=args.cutoff,
                    group=args.group, channels=args.channels,
                    max_degree=args.degree, blocks=args.blocks,
                    kernel=args.kernel, num_neighbors=8)
    net.fit(data.z, data.energy, data.batch, data.force)
    data = next(iter(DataLoader(train_set, 50)))
    calibrate(net, data.z, data.pos, data.batch, forces=False)
    return net


def forward(net, data):
    return net(data.z, data.pos, data.batch, batch_size=data.num_graphs)


@torch.no_grad()
def predict(net, dataset, device):
    """Predicted and true energies, and predicted and true forces, in meV and
    meV/Angstrom.
    """
    net.eval()
    rows = []
    for data in DataLoader(dataset, 50):
        energy, forces, _ = forward(net, data.to(device))
        rows.append((energy, data.energy, forces, data.force))
    return [MEV * torch.cat(values).cpu() for values in zip(*rows)]


def errors(energy, true_energy, forces, true_forces):
    """The mean absolute errors."""
    return (float((energy - true_energy).abs().mean()),
            float((forces - true_forces).abs().mean()))


def train(args, train_set, valid_set) -> tuple[Potential, list]:
    """The averaged weights of the best epoch, and (energy error, force error)
    on validation frames of every epoch.
    """
    net = build(args, train_set).to(args.device)
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    loader = DataLoader(train_set, args.batch_size, shuffle=True,
                        drop_last=len(train_set) > args.batch_size)
    optimizer = torch.optim.Adam(net.parameters(), args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, max(1, args.epochs * len(loader)),
        pct_start=0.05, cycle_momentum=False)
    learned, log, best = (net, mean, optimizer, schedule), [], None
    if (args.out / 'last.pt').exists():
        log, best = restore(args, learned)
    size = sum(p.numel() for p in net.parameters())
    print(f'{len(train_set)} training frames, {size:,} parameters, '
          f'{len(log)} of {args.epochs} epochs done')
    unit = float(net.scale.mean())
    progress = tqdm(total=args.epochs * len(loader),
                    initial=len(log) * len(loader))
    for epoch in range(len(log), args.epochs):
        progress.set_description(f'epoch {epoch + 1}')
        net.train()
        for data in loader:
            data = data.to(args.device)
            optimizer.zero_grad()
            energy, forces, _ = forward(net, data)
            loss = ((forces - data.force) / unit).square().mean()
            loss = loss + args.energy_weight * (
                (energy - data.energy) / unit).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.)
            optimizer.step()
            schedule.step()
            mean.update_parameters(net)
            progress.update()
        log.append(errors(*predict(mean.module, valid_set, args.device)))
        if log[-1][1] == min(force for _, force in log):
            best = {k: v.cpu().clone()
                    for k, v in mean.module.state_dict().items()}
        save(args, learned, log, best)
        progress.set_postfix_str('validation {:.4g} meV, {:.4g} meV/A'.format(
            *log[-1]))
    progress.close()
    if best is None:
        raise ValueError(f"Expected an epoch with a finite validation error "
                         f"(got none in {args.epochs}). Take more '--epochs' "
                         f"or a smaller '--lr'")
    net.load_state_dict(best)
    return net, log


def dynamics(net, data, picoseconds: float, step: float = 0.5,
             kelvin: float = 300., seed: int = 0):
    """Velocity Verlet without a thermostat, in float64: times [ps] and total
    energies [meV].
    """
    net, data = net.double().eval(), data.clone().to(net.shift.device)
    mass = torch.tensor([[MASSES[int(z)]] for z in data.z],
                        dtype=torch.float64)
    noise = torch.randn(mass.shape[0], 3, dtype=torch.float64,
                        generator=torch.Generator().manual_seed(seed))
    velocity = noise * (BOLTZMANN * kelvin * ACCELERATION / mass).sqrt()
    velocity -= (mass * velocity).sum(0) / mass.sum()
    mass, velocity = mass.to(data.pos.device), velocity.to(data.pos.device)
    pos, total = data.pos.double(), []
    energy, forces, _ = net(data.z, pos)
    for _ in tqdm(range(round(1000 * picoseconds / step)), 'dynamics'):
        kinetic = (mass * velocity.square()).sum() / (2 * ACCELERATION)
        total.append(MEV * float(energy + kinetic))
        velocity = velocity + step / 2 * ACCELERATION * forces / mass
        pos = pos + step * velocity
        energy, forces, _ = net(data.z, pos)
        velocity = velocity + step / 2 * ACCELERATION * forces / mass
    return [step * i / 1000 for i in range(len(total))], total


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


def plot(log, found, nve, path: Path) -> None:
    figure, axes = plt.subplots(1, 3 if nve else 2, layout='constrained',
                                figsize=(13 if nve else 9, 4))
    for values, label in zip(zip(*log), ('energy [meV]',
                                         'forces [meV/$\\AA$]')):
        axes[0].plot(range(1, len(log) + 1), values, label=label)
    axes[0].set(xlabel='epoch', ylabel='validation MAE', yscale='log')
    axes[0].legend()
    forces, true = found[2].flatten(), found[3].flatten()
    axes[1].axline((0, 0), slope=1, color='0.7')
    axes[1].scatter(true[:9999], forces[:9999], s=4, alpha=0.5, linewidths=0)
    axes[1].set(xlabel='true force [meV/$\\AA$]', title='test frames',
                ylabel='predicted force [meV/$\\AA$]')
    if nve:
        time, total = nve
        axes[2].plot(time, [e - total[0] for e in total], linewidth=0.5)
        axes[2].set(xlabel='time [ps]', ylabel='total energy [meV]',
                    title='dynamics without a thermostat')
    write(path, lambda part: figure.savefig(part, dpi=150, format='png'))
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    class Help(argparse.ArgumentDefaultsHelpFormatter,
               argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=Help)
    add = parser.add_argument
    add('--molecule', default='ethanol', choices=MOLECULES, help='of rMD17')
    add('--npz', nargs=2, metavar=('TRAIN', 'TEST'), default=[], help='frames '
        'of your own: the first file is for training and validation')
    add('--train', type=int, default=950, help='training frames')
    add('--valid', type=int, default=50, help='validation frames')
    add('--test', type=int, default=1000, help='test frames of --molecule')
    add('--group', default='O(3)', help='symmetry of the network')
    add('--cutoff', type=float, default=5., help='of neighbours, Angstrom')
    add('--channels', type=int, default=16, help='fields of each degree')
    add('--degree', type=int, default=1, help='highest degree of fields')
    add('--blocks', type=int, default=3, help='convolutions')
    add('--kernel', default='harmonic', help='basis of the kernels')
    add('--epochs', type=int, default=100, help='passes over the frames')
    add('--batch-size', type=int, default=5, help='frames of a step')
    add('--lr', type=float, default=1e-2, help='highest learning rate')
    add('--ema', type=float, default=0.99, help='decay of averaged weights')
    add('--energy-weight', type=float, default=0.1, help='in the loss')
    add('--nve', type=float, default=0., help='picoseconds of dynamics')
    add('--seed', type=int, default=0, help='of weights and shuffling')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to train')
    add('--threads', type=int, default=1, help='of the CPU')
    add('--out', type=Path, default=Path('runs/rmd17'), help='folder to write')
    add('--fresh', action='store_true', help='start again')
    return parser


def run(args) -> dict:
    """Trains, tests and plots; returns the figures."""
    train_set, valid_set, test_set = load(args)
    net, log = train(args, train_set, valid_set)
    found = predict(net, test_set, args.device)
    energy, force = errors(*found)
    nve = dynamics(net, test_set[0], args.nve) if args.nve else None
    plot(log, found, nve, args.out / 'rmd17.png')
    return {'options': options(args),
            'parameters': sum(p.numel() for p in net.parameters()),
            'test_energy_mae': energy, 'test_force_mae': force,
            'mean_force': float(found[3].abs().mean()), 'log': log,
            'nve': nve and nve[1][::20]}  # every 10 fs


def main(argv=None) -> dict:
    """Runs, or goes on, and prints; returns the figures."""
    args = build_parser().parse_args(argv)
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
    print(f"test MAE: energy {results['test_energy_mae']:.4g} meV, forces "
          f"{results['test_force_mae']:.4g} meV/A; mean size of a component "
          f"of the forces: {results['mean_force']:.4g} meV/A\n"
          f"plot: {args.out / 'rmd17.png'}")
    return results


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('stopped; without --fresh, the same command goes '
                         'on') from None
