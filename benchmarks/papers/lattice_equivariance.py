r"""How equivariant a network on voxels is under any rotation, with and without
a low-pass filter before subsampling ("3D Steerable CNNs",
https://arxiv.org/abs/1807.02547, section 5: decisive)::

    python -m benchmarks.papers.lattice_equivariance --out runs/lattice

A fresh network of four gated convolutions, two of them followed by
subsampling, sees a smooth density (Gaussian blobs) and the same density
turned: the blobs are moved, nothing is interpolated. The output, a scalar, a
vector and a tensor averaged over the grid, must turn with it; the error is
relative to its size.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.commandline import new_parser
from benchmarks.papers.plots import label_log_axis, plt, save_figure
from benchmarks.report import save_json
from pyg_steerable import FieldType, Group
from pyg_steerable.nn import (
    Gate,
    LatticeGlobalPool,
    LatticeLowPass,
    LatticeSteerableConv,
)


class Layer(torch.nn.Module):
    """Convolution, gate, and perhaps subsampling by two."""
    def __init__(self, in_type, out_type, subsample: str | None):
        super().__init__()
        self.gate = Gate(out_type)
        self.conv = LatticeSteerableConv(in_type, self.gate.in_type, 5)
        self.low_pass = None
        if subsample == 'low-pass':
            self.low_pass = LatticeLowPass(2., stride=2)
        self.stride = 2 if subsample == 'plain' else 1

    def forward(self, x):
        x = self.gate(self.conv(x).movedim(1, -1)).movedim(-1, 1)
        if self.low_pass is not None:
            return self.low_pass(x)
        return x[..., ::self.stride, ::self.stride, ::self.stride]


def network(subsample: str, channels: int = 8) -> torch.nn.Sequential:
    """Four layers; every second one subsamples."""
    hidden = FieldType.sphere(channels, 2, 'SO(3)')
    types = [FieldType('0e', 'SO(3)'), *(4 * [hidden])]
    net = torch.nn.Sequential(*[
        Layer(types[i], types[i + 1], subsample if i % 2 else None)
        for i in range(4)
    ], LatticeGlobalPool())
    net.field_type = hidden
    return net


def density(blobs, width: float, size: int):
    """Gaussian blobs at positions (x, y, z) as voxels [1, 1, z, y, x]."""
    axis = torch.arange(size, dtype=blobs.dtype) - (size - 1) / 2
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing='ij'), -1)
    grid = grid.flip(-1)  # (z, y, x) -> (x, y, z)
    out = torch.zeros(size, size, size, dtype=blobs.dtype)
    for blob in blobs:
        out += torch.exp(-(grid - blob).square().sum(-1) / (2 * width**2))
    return out[None, None]


@torch.no_grad()
def errors(net, rotations, width: float, size: int, inputs: int):
    """The relative error for each rotation, averaged over inputs."""
    total = torch.zeros(len(rotations), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(inputs):
        blobs = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        blobs = blobs * size / 12
        out = net(density(blobs, width, size))
        for i, R in enumerate(rotations):
            turned = net(density(blobs @ R.T, width, size))
            expected = net.field_type.transform(out, R)
            total[i] += (turned - expected).norm() / expected.norm()
    return total / inputs


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('--size', type=int, default=33,
                        help='voxels along each axis')
    parser.add_argument('--widths', type=float, nargs='+',
                        default=[1., 1.5, 2., 3.], help='of the blobs, in '
                        'voxels')
    parser.add_argument('--rotations', type=int, default=6,
                        help='random rotations of each density')
    parser.add_argument('--inputs', type=int, default=2,
                        help='random densities')
    parser.add_argument('--out', type=Path, default=Path('runs/lattice'),
                        help='folder for the table and the plot')
    return parser


def main(argv=None) -> dict:
    """Prints a table and draws it; returns the mean errors."""
    args = build_parser().parse_args(argv)
    rotations = Group('SO(3)').sample(
        args.rotations, generator=torch.Generator().manual_seed(1))
    table = {}
    print(f'mean relative error of the output, {args.size}^3 voxels, '
          f'{args.rotations} random rotations')
    print('blobs of width' + ''.join(f'{w:10g}' for w in args.widths))
    for subsample in ('plain', 'low-pass'):
        torch.manual_seed(0)
        net = network(subsample).double().eval()
        table[subsample] = [
            float(errors(net, rotations, w, args.size, args.inputs).mean())
            for w in args.widths]
        print(f'{subsample:14}' + ''.join(f'{e:10.1e}'
                                          for e in table[subsample]),
              flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    save_json(args.out / 'equivariance.json',
              {'widths': args.widths, **table})
    figure, axes = plt.subplots(figsize=(4.5, 3.2), constrained_layout=True)
    for name, label in (('plain', 'subsampling'),
                        ('low-pass', 'low-pass, then subsampling')):
        axes.plot(args.widths, [100 * e for e in table[name]], marker='o',
                  label=label)
    axes.set(xlabel='width of the blobs [voxels]', yscale='log',
             ylabel='relative equivariance error [%]')
    axes.margins(y=0.3)
    label_log_axis(axes)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower left')
    print(f"plot: {save_figure(figure, args.out / 'equivariance.png')}")
    return table


if __name__ == '__main__':
    main()
