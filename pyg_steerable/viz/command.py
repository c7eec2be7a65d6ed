"""All pictures at once."""
from __future__ import annotations

import argparse
import os
import os.path as osp
from collections.abc import Sequence

import torch

from ..nn import LatticeSteerableConv
from ..symmetry.fields import FieldType
from .kernels import plot_arrows, plot_slices, vector_kernels
from .movie import SteerableDemo, equivariance_movie


def main(argv: Sequence[str] | None = None) -> None:
    """Writes all pictures into a folder."""
    parser = argparse.ArgumentParser(
        prog='python -m pyg_steerable.viz',
        description='Draws steerable kernels and the equivariance movie.')
    parser.add_argument('--out', default='pictures',
                        help='the folder to write pictures into '
                        '(default: %(default)s)')
    parser.add_argument('--frames', type=int, default=48,
                        help='the number of frames of the movie, a full turn '
                        '(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='the seed of the random weights '
                        '(default: %(default)s)')
    args = parser.parse_args(argv)
    if args.frames < 1:
        parser.error(f'--frames must be positive (got {args.frames})')
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    kernels = vector_kernels()
    pictures = {'vector_kernels': plot_arrows(kernels)}
    for name, kernel in kernels.items():
        pictures[f'slices_{name.replace(" ", "_")}'] = plot_slices(kernel)
    demo = SteerableDemo()
    few = FieldType('0e + 1o', 'SO(3)')  # of many, nothing could be seen
    random = LatticeSteerableConv(few, few, 5)
    pictures['slices_random'] = plot_slices(random, extent=3.)
    for name, figure in pictures.items():
        path = osp.join(args.out, f'{name}.png')
        figure.savefig(path, dpi=100)
        print(path)
    path = osp.join(args.out, 'equivariance.gif')
    error = equivariance_movie(path, demo, frames=args.frames)
    print(f'{path}: relative change of at most {max(error):.3f}')


if __name__ == '__main__':
    main()
