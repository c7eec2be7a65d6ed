r"""Planar steerable convolutions: digits learned upright, tested turned.

A grid one voxel thick is an image, and stencils of (1, 5, 5) make the layers
of 3D Steerable CNNs planar. Networks for rotations in the plane, SO(2) and
its subgroup C4, are compared with a plain CNN of as many parameters as SO(2)
has, on the 1,797 images of 8 x 8 that come with scikit-learn::

    python examples/digits.py

All take the same number of steps on upright digits. The learning rate (of the
first seed) and the epoch are those of the best accuracy on upright images kept
aside. Weights of harmonics that are zero in the plane count as parameters.
"""
from __future__ import annotations

import argparse
import copy
import itertools
import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

from pyg_steerable import FieldType
from pyg_steerable.nn import LatticeBlock, LatticeGlobalPool, LatticeLowPass

#: Digits are enlarged, so that turning them by any angle blurs little; on
#: 21 x 21 pixels no corner is cut off, and strides of two keep the centre.
DIGIT, SIDE = 15, 21
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
ANGLES = range(0, 360, 15)


def steerable(group: str) -> torch.nn.Module:
    """Three blocks, the last one to invariant numbers."""
    one, hidden, last = (FieldType(t, group) for t in (
        '0e', '4x0e + 4x1o + 2x2e', '32x0e'))
    return torch.nn.Sequential(
        LatticeBlock(one, hidden, (1, 5, 5)),
        LatticeLowPass((1, 2, 2), stride=(1, 2, 2)),
        LatticeBlock(hidden, hidden, (1, 5, 5), norm=True),
        LatticeLowPass((1, 2, 2), stride=(1, 2, 2)),
        LatticeBlock(hidden, last, (1, 5, 5), norm=True),
        LatticeGlobalPool(), torch.nn.Linear(32, 10))


def plain(width: int, last: int) -> torch.nn.Module:
    """The same with plain convolutions."""
    def block(c_in, c_out):
        return [torch.nn.Conv3d(c_in, c_out, (1, 5, 5), padding=(0, 2, 2)),
                torch.nn.BatchNorm3d(c_out), torch.nn.ReLU()]

    return torch.nn.Sequential(
        *block(1, width), LatticeLowPass((1, 2, 2), stride=(1, 2, 2)),
        *block(width, width), LatticeLowPass((1, 2, 2), stride=(1, 2, 2)),
        *block(width, last), LatticeGlobalPool(), torch.nn.Linear(last, 10))


def count(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def build(name: str) -> torch.nn.Module:
    if name != 'CNN':
        return steerable(name)
    wanted = count(steerable('SO(2)'))
    widths = itertools.product(range(4, 33), range(24, 41))
    return plain(*min(widths, key=lambda w: abs(count(plain(*w)) - wanted)))


def load(seed: int) -> list[TensorDataset]:
    """Training, validation and test images [N, 1, 1, SIDE, SIDE]."""
    images, label = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    images = F.interpolate(images.view(-1, 1, 8, 8).float() / 16, DIGIT,
                           mode='bicubic', align_corners=True)
    images = F.pad(images, 4 * ((SIDE - DIGIT) // 2, )).unsqueeze(2)
    order = torch.randperm(len(label),
                           generator=torch.Generator().manual_seed(seed))
    return [TensorDataset(images[part], label[part])
            for part in order.split([1147, 200, 450])]


def turn(images: torch.Tensor, angle: int) -> torch.Tensor:
    """Turns by degrees, multiples of 90 exactly."""
    if angle % 90 == 0:
        return images.rot90(angle // 90, (3, 4))
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    grid = F.affine_grid(torch.tensor([[[c, -s, 0.], [s, c, 0.]]]),
                         [1, 1, SIDE, SIDE], align_corners=False)
    flat = images.flatten(0, 2).unsqueeze(0)  # all of them as channels
    return F.grid_sample(flat, grid, align_corners=False).view_as(images)


@torch.no_grad()
def accuracy(net: torch.nn.Module, data: TensorDataset, angle=0) -> float:
    net.eval()
    images, label = data.tensors
    right = net(turn(images, angle)).argmax(1) == label
    return float(right.float().mean())


def train(name, rate, seed, epochs, data, valid):
    """Accuracy on upright images and network of the best epoch."""
    torch.manual_seed(seed)
    net, best, state = build(name), -1., None
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
        if found >= best:
            best, state = found, copy.deepcopy(net.state_dict())
        progress.set_postfix(loss=f'{loss.item():.3f}', valid=f'{found:.1%}')
    net.load_state_dict(state)
    return best, rate, net


def plot(curves: dict[str, torch.Tensor], path: Path) -> None:
    """Accuracies in per cent [seeds, angles], as means and ranges."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout='constrained')
    for name, curve in curves.items():
        line, = axes.plot(ANGLES, curve.mean(0), label=name)
        axes.fill_between(ANGLES, curve.amin(0), curve.amax(0), alpha=0.2,
                          color=line.get_color(), linewidth=0)
    axes.set(xlabel='Test images turned by [degrees]', ylabel='Accuracy [%]',
             xticks=range(0, 361, 45), ylim=(0, 100))
    figure.legend(title='Trained upright', loc='outside right upper')
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv=None) -> dict[str, torch.Tensor]:
    """Prints a table, saves a plot and returns the accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--networks', nargs='+',
                        default=['SO(2)', 'C4', 'CNN'],
                        help='groups, or CNN (default: SO(2) C4 CNN)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2],
                        help='of weights and splits (default: 0 1 2)')
    parser.add_argument('--epochs', type=int, default=30,
                        help='passes over the training images (default: 30)')
    parser.add_argument('--plot', type=Path, default='digits.png',
                        help='accuracy by angle (default: digits.png)')
    args = parser.parse_args(argv)
    curves, lines = {}, []
    exact = torch.tensor([angle % 90 == 0 for angle in ANGLES])
    for name in args.networks:
        rates, found = RATES, []
        for seed in args.seeds:
            data, valid, test = load(seed)
            _, rate, net = max((train(name, rate, seed, args.epochs, data,
                                      valid) for rate in rates),
                               key=lambda one: one[0])
            rates = [rate]  # of the first seed
            found.append([accuracy(net, test, angle) for angle in ANGLES])
        curves[name] = curve = 100 * torch.tensor(found)
        parts = (curve[:, 0], curve[:, exact][:, 1:].mean(1),
                 curve[:, ~exact].mean(1))
        cells = [f'{part.mean():6.1f} +- {part.std(correction=0):4.1f}'
                 for part in parts]
        lines.append(f'{name:8}{count(net):10,}  {"  ".join(cells)}  {rate}')
    print(f'{"":8}parameters         upright    90, 180, 270    other angles'
          f'  rate', *lines, sep='\n')
    plot(curves, args.plot)
    return curves


if __name__ == '__main__':
    main()
