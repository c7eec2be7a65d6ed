r"""Planar steerable convolutions: digits learned upright, tested turned.

A grid one voxel thick is an image, and stencils of (1, 5, 5) make the layers
of 3D Steerable CNNs planar. Networks for rotations in the plane, SO(2) and
its subgroup C4, are compared with a plain CNN of as many parameters as SO(2)
has, on the 1,797 images of 8 x 8 that come with scikit-learn::

    python examples/digits.py

All take the same number of steps on upright digits. The learning rate (of the
first seed) and the epoch are those of the best accuracy on upright images kept
aside. Sizes are those whose SO(2) network was best on such images, turned
(``python -m benchmarks.digits``). Weights of harmonics that are zero in the
plane count as parameters. Stopped and started again, the command goes on.
"""
import argparse
import copy
import itertools
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scipy.ndimage import rotate
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from pyg_steerable import FieldType
from pyg_steerable.nn import LatticeBlock, LatticeGlobalPool, LatticeLowPass

#: Digits are enlarged, so that turning them by any angle blurs little, and no
#: corner is cut off; strides of two keep the centre of 4 n + 1 pixels.
DIGIT, SIDE = 15, 21
HIDDEN, LOW_PASS = '6x0e + 6x1o + 3x2e', 2
PLAIN = 16  #: channels, for as many parameters as SO(2) has
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
ANGLES = range(0, 360, 15)


def plain_block(c_in: int, c_out: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv3d(c_in, c_out, (1, 5, 5), padding=(0, 2, 2)),
        torch.nn.BatchNorm3d(c_out), torch.nn.ReLU())


def build(name: str) -> torch.nn.Module:
    """Three blocks, the last one to invariant numbers, or a plain CNN."""
    if name == 'CNN':
        blocks = [plain_block(1, PLAIN), plain_block(PLAIN, PLAIN),
                  plain_block(PLAIN, 32)]
    else:
        one, hidden, last = (FieldType(t, name)
                             for t in ('0e', HIDDEN, '32x0e'))
        blocks = [LatticeBlock(one, hidden, (1, 5, 5)),
                  LatticeBlock(hidden, hidden, (1, 5, 5), norm=True),
                  LatticeBlock(hidden, last, (1, 5, 5), norm=True)]
    down = LatticeLowPass((1, LOW_PASS, LOW_PASS), stride=(1, 2, 2))
    return torch.nn.Sequential(blocks[0], down, blocks[1], down, blocks[2],
                               LatticeGlobalPool(), torch.nn.Linear(32, 10))


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def load(seed: int) -> list[TensorDataset]:
    """Training, validation and test images [N, 1, 1, SIDE, SIDE]."""
    images, label = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, DIGIT,
                           mode='bicubic', align_corners=True)
    images = F.pad(images, 4 * ((SIDE - DIGIT) // 2, )).unsqueeze(2)
    draw = torch.Generator()
    rest, test = torch.randperm(1797, generator=draw.manual_seed(0)).split(
        [1347, 450])  # the test is the same for all seeds
    rest = rest[torch.randperm(1347, generator=draw.manual_seed(seed))]
    return [TensorDataset(images[part], label[part])
            for part in (*rest.split([1147, 200]), test)]


def turn(images: torch.Tensor, angle: int) -> torch.Tensor:
    """Turns by degrees, multiples of 90 without rounding."""
    return torch.from_numpy(rotate(images.numpy(), angle, (4, 3),
                                   reshape=False, order=1))


@torch.no_grad()
def accuracy(net: torch.nn.Module, data: TensorDataset, angle=0) -> float:
    net.eval()
    images, label = data.tensors
    return float((net(turn(images, angle)).argmax(1) == label).float().mean())


def train(name, rate, seed, epochs, data, valid):
    """Accuracy on upright images, rate and network of the best epoch."""
    torch.manual_seed(seed)
    net, best = build(name), (-1., )
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    loader = DataLoader(data, 64, shuffle=True, drop_last=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, epochs * len(loader))
    progress = tqdm(range(epochs), f'{name}, rate {rate}, seed {seed}')
    for _ in progress:
        net.train()
        for images, label in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(images), label)
            loss.backward()
            optimizer.step()
            schedule.step()
        found = accuracy(net, valid)
        if found >= best[0]:
            best = found, rate, copy.deepcopy(net)
        progress.set_postfix(loss=f'{loss.item():.3f}', valid=f'{found:.1%}')
    return best


def report(found: dict[str, dict], path: Path) -> None:
    """Prints a table and saves a plot: means and deviations over seeds."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout='constrained')
    print(f'{"":8}parameters  rate       upright    90 degrees    all angles')
    for name, runs in found.items():
        size, rate, _ = next(iter(runs.values())).values()
        curve = 100 * torch.tensor([r['accuracy'] for r in runs.values()])
        parts = curve[:, 0], curve[:, ANGLES.index(90)], curve.mean(1)
        print(f'{name:8}{size:10,}{rate:6}', *(
            f'{p.mean():6.1f} +- {p.std(correction=0):3.1f}' for p in parts))
        axes.errorbar(ANGLES, curve.mean(0), curve.std(0, correction=0),
                      label=name)
    axes.set(xlabel='Test images turned by [degrees]', ylabel='Accuracy [%]',
             xticks=range(0, 361, 45), ylim=(0, 100))
    figure.legend(title='Trained upright', loc='outside right upper')
    figure.savefig(path, dpi=100)
    plt.close(figure)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add('--networks', nargs='+', default=['SO(2)', 'C4', 'CNN'],
        help='groups, or CNN (default: SO(2) C4 CNN)')
    add('--seeds', type=int, nargs='+', default=[0, 1, 2],
        help='of weights and validation images (default: 0 1 2)')
    add('--epochs', type=int, default=30, help='passes (default: 30)')
    add('--out', type=Path, default=Path('runs/digits'),
        help='folder to write (default: runs/digits)')
    add('--fresh', action='store_true', help='start again (default: off)')
    return parser


def main(argv=None) -> dict[str, dict]:
    """Runs, or goes on after the last network, and reports."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.epochs < 1:
        parser.error(f"Expected '--epochs' to be positive (got {args.epochs})")
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the tensors are small
    path, found = args.out / 'results.json', {}
    options = [args.networks, args.seeds, args.epochs]
    if path.exists() and not args.fresh:
        before, found = json.loads(path.read_text())
        if before != options:
            raise ValueError(f"Expected {before}, the options of '{path}' "
                             f"(got {options}). Start again with '--fresh', "
                             f"or choose another '--out'")
    for name, seed in itertools.product(args.networks, args.seeds):
        runs = found.setdefault(name, {})
        if str(seed) not in runs:
            rates = [run['rate'] for run in runs.values()][:1] or RATES
            data, valid, test = load(seed)
            _, rate, net = max((train(name, rate, seed, args.epochs, data,
                                      valid) for rate in rates),
                               key=lambda one: one[0])
            runs[str(seed)] = {
                'parameters': count(net), 'rate': rate,
                'accuracy': [accuracy(net, test, a) for a in ANGLES]}
            part = path.with_suffix('.part')
            part.write_text(json.dumps([options, found]))
            part.replace(path)  # whole or not at all
    report(found, args.out / 'digits.png')
    return found


if __name__ == '__main__':
    main()
