r"""Point clouds (ModelNet-40) for any symmetry group: the network of "Implicit
Neural Convolutional Kernels for Steerable CNNs"
(https://arxiv.org/abs/2212.06096), section 5.2, learned upright and tested
upright and turned::

    python examples/modelnet40.py --demo               # shapes made here
    python examples/modelnet40.py --source pyg --group 'SO(2)xM'
    python examples/modelnet40.py --npz train.npz test.npz

Stopped at any moment and started again, it goes on after its last epoch and
ends with the same numbers. More: python -m benchmarks.papers.modelnet40
"""
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import random_split
from torch_geometric.datasets import ModelNet
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose, NormalizeScale, SamplePoints
from tqdm import tqdm

from pyg_steerable.datasets import generate_shapes, load_points
from pyg_steerable.graph import RandomGroupElement, RandomPointSubset
from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.models import ModelNetClassifier

#: Options that may change when a run goes on.
FREE = ('out', 'fresh', 'threads', 'demo')
SMOOTHING = 0.2


def load(args, train: bool, rotation: str = 'SO(2)'):
    """Clouds, whose points and rotations are drawn at every access."""
    turn = RandomGroupElement(rotation)
    if args.source == 'pyg' and not args.npz:
        return ModelNet('data/modelnet/40', '40', train,
                        Compose([SamplePoints(args.points), turn]),
                        NormalizeScale())
    if args.npz:
        clouds = load_points(args.npz[0 if train else 1])
    else:
        clouds = generate_shapes(args.clouds if train else args.clouds // 4,
                                 2 * args.points, seed=1 if train else 2)
    clouds.transform = Compose([RandomPointSubset(args.points), turn])
    return clouds


def build(args, num_classes: int) -> ModelNetClassifier:
    return ModelNetClassifier(
        num_classes, group=args.group, channels=args.channels,
        max_degree=args.degree, ratios=args.levels * [0.5],
        num_points=args.points, kernel=ImplicitBasis.spec(hidden=args.hidden),
        invariants=8 * args.channels, mlp=8 * args.channels)


def forward(net, data):
    return net(data.pos, data.batch, batch_size=data.num_graphs)


@torch.no_grad()
def predict(net, clouds, device):
    """The scores and the labels of all clouds."""
    net.eval()
    pairs = [(forward(net, data.to(device)).cpu(), data.y.cpu())
             for data in DataLoader(clouds, 64)]
    return [torch.cat(values) for values in zip(*pairs)]


def accuracy(scores, label) -> float:
    return 100 * float((scores.argmax(1) == label).float().mean())


def train(args, train_set, valid_set, num_classes: int):
    """The network of the best epoch, and for every epoch (training loss,
    validation loss, validation accuracy).
    """
    torch.manual_seed(args.seed)
    net = build(args, num_classes).to(args.device)
    optimizer = torch.optim.AdamW(net.parameters(), args.lr,
                                  weight_decay=1e-8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, args.epochs, args.lr / 100)
    loader = DataLoader(train_set, args.batch_size, shuffle=True,
                        drop_last=len(train_set) > args.batch_size)
    learned, log, best = (net, optimizer, schedule), [], None
    if (args.out / 'last.pt').exists():
        log, best = restore(args, learned)
    size = sum(p.numel() for p in net.parameters())
    print(f'{len(train_set)} training and {len(valid_set)} validation '
          f'clouds, {size:,} parameters, {len(log)} of {args.epochs} epochs '
          f'done')
    progress = tqdm(total=args.epochs * len(loader),
                    initial=len(log) * len(loader))
    for epoch in range(len(log), args.epochs):
        progress.set_description(f'epoch {epoch + 1}')
        net.train()
        total = 0.
        for data in loader:
            data = data.to(args.device)
            optimizer.zero_grad()
            loss = cross_entropy(forward(net, data), data.y,
                                 label_smoothing=SMOOTHING)
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            progress.update()
        schedule.step()
        scores, label = predict(net, valid_set, args.device)
        valid = float(cross_entropy(scores, label, label_smoothing=SMOOTHING))
        log.append((total / len(loader), valid, accuracy(scores, label)))
        if valid == min(loss for _, loss, _ in log):
            best = {k: v.cpu().clone() for k, v in net.state_dict().items()}
        save(args, learned, log, best)
        progress.set_postfix_str(
            'loss {:.3f}, validation {:.3f}, {:.1f} %'.format(*log[-1]))
    progress.close()
    if best is None:
        raise ValueError(f"Expected an epoch with a finite validation loss "
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
             'rng': torch.get_rng_state(),
             'rng_cuda': torch.cuda.get_rng_state_all()}
    write(args.out / 'last.pt', lambda part: torch.save(state, part))


def restore(args, learned):
    """The log and the best weights; all else is put where it was."""
    state = torch.load(args.out / 'last.pt', map_location='cpu',
                       weights_only=True)
    check_options(args, state['options'])
    for one, values in zip(learned, state['learned']):
        one.load_state_dict(values)
    torch.set_rng_state(state['rng'])
    torch.cuda.set_rng_state_all(state['rng_cuda'])
    return state['log'], state['best']


def plot(log, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4),
                                         layout='constrained')
    train, valid, accuracies = zip(*log)
    epochs = range(1, len(log) + 1)
    left.plot(epochs, train, marker='.', label='training')
    left.plot(epochs, valid, marker='.', label='validation')
    left.set(xlabel='epoch', ylabel='cross entropy')
    left.legend()
    right.plot(epochs, accuracies, marker='.')
    right.set(xlabel='epoch', ylabel='validation accuracy [%]')
    write(path, lambda part: figure.savefig(part, dpi=150, format='png'))
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    class Help(argparse.ArgumentDefaultsHelpFormatter,
               argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=Help)
    add = parser.add_argument
    add('--source', default='shapes', choices=['shapes', 'pyg'],
        help="shapes made here, or ModelNet's meshes, a download of PyG")
    add('--npz', nargs=2, metavar=('TRAIN', 'TEST'), default=[],
        help='clouds from files instead')
    add('--clouds', type=int, default=2000, help='shapes to make')
    add('--points', type=int, default=1024, help='of each cloud')
    add('--group', default='SO(2)xM', help='symmetry of the network')
    add('--channels', type=int, default=16, help='fields of each degree')
    add('--degree', type=int, default=2, help='highest degree of the fields')
    add('--levels', type=int, default=4, help='convolutions, each to half of '
        'the points')
    add('--hidden', type=int, default=8, help='width of the kernels')
    add('--epochs', type=int, default=100, help='passes over the clouds')
    add('--batch-size', type=int, default=32, help='clouds of a step')
    add('--lr', type=float, default=1e-3, help='learning rate at the start')
    add('--seed', type=int, default=0, help='of weights, points, rotations')
    add('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to train')
    add('--threads', type=int, default=1, help='of the CPU')
    add('--out', type=Path, default=Path('runs/modelnet40'),
        help='folder to write')
    add('--fresh', action='store_true', help='start again')
    add('--demo', action='store_true', help='a small network, 12 epochs')
    return parser


def run(args) -> dict:
    """Trains, tests and plots; returns the figures."""
    clouds = load(args, True)
    if len(clouds) < 10:
        raise ValueError(f"Expected at least 10 clouds to train, validate and "
                         f"test with (got {len(clouds)}). Take more with "
                         f"'--clouds'")
    train_set, valid_set = random_split(
        clouds, [0.8, 0.2], torch.Generator().manual_seed(args.seed))
    net, log = train(args, train_set, valid_set, int(clouds.y.max()) + 1)
    plot(log, args.out / 'modelnet40.png')
    found = {group: accuracy(*predict(net, load(args, False, group),
                                      args.device))
             for group in ('SO(2)', 'SO(3)')}
    return {'options': options(args), 'test_accuracy': found, 'log': log}


def main(argv=None) -> dict:
    """Runs, or goes on, and prints; returns the figures."""
    parser = build_parser()
    if parser.parse_args(argv).demo:
        parser.set_defaults(clouds=800, points=192, channels=8, degree=1,
                            levels=3, hidden=4, epochs=12, lr=5e-3)
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
    for group, value in results['test_accuracy'].items():
        print(f'test accuracy, clouds turned by {group}: {value:.1f} %')
    print(f"plot: {args.out / 'modelnet40.png'}")
    return results


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit('stopped; without --fresh, the same command goes '
                         'on') from None
