"""Convolutions of voxels: time and peak memory, beside torch's conv3d and
escnn's R3Conv.

    python -m benchmarks.lattice
    python -m benchmarks.lattice --sizes 32 --kernels 5 --json lattice.json

All layers map the same number of channels to the same number, in one process,
their repetitions alternating. `graph` finds the neighbours among the voxels
that are occupied, a ball or (`--pattern random`) voxels drawn at random, and
gathers and multiplies their features; `dense` is the same layer on the whole
grid. Both assemble their kernel in every pass. `escnn` is left out where it
is not installed. "speed-up" is the time of the plain `conv3d` over that of
the layer, for forward with backward.

Memory is measured as in benchmarks.conv.
"""
import argparse
import json
import statistics
import sys
import time
import warnings

import torch

from benchmarks.commandline import new_parser
from benchmarks.measure import fresh, peak_memory
from benchmarks.report import add_json_option, print_machine, save_report
from pyg_steerable import FieldType
from pyg_steerable.graph import lattice_graph
from pyg_steerable.nn import LatticeSteerableConv

WARM_UP = 8  # voxels along the axes of the grid to warm up with


def make_graph(dim, size, kernel_size, occupancy, device, pattern='ball'):
    """So many voxels around the centre of the grid, or at random."""
    line = torch.arange(size, device=device) - (size - 1) / 2
    square = line.square()
    distance = square[:, None, None] + square[:, None] + square
    if pattern == 'random':
        distance = torch.rand(distance.shape, device=device)
    keep = max(1, round(occupancy * size**3))
    near = distance <= distance.flatten().kthvalue(keep).values
    coord = near.nonzero()
    x = torch.randn(len(coord), dim, device=device)
    return lattice_graph(coord, near.shape, x, kernel_size=kernel_size,
                         list_edges=False)


class EscnnConv(torch.nn.Module):
    """R3Conv on plain tensors."""
    def __init__(self, channels, degree, kernel_size):
        super().__init__()
        import escnn
        self.escnn = escnn
        space = escnn.gspaces.rot3dOnR3(maximum_frequency=2 * degree)
        self.type = escnn.nn.FieldType(space, [
            space.irrep(l) for l in range(degree + 1)
            for _ in range(channels)])
        self.conv = escnn.nn.R3Conv(self.type, self.type, kernel_size,
                                    padding=kernel_size // 2)

    def forward(self, x):
        return self.conv(self.escnn.nn.GeometricTensor(x, self.type)).tensor


def build(name, args, kernel_size):
    torch.manual_seed(0)
    field_type = FieldType.sphere(args.channels, args.degree, 'SO(3)')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if name == 'escnn':
            layer = EscnnConv(args.channels, args.degree, kernel_size)
        elif name == 'conv3d':
            layer = torch.nn.Conv3d(field_type.dim, field_type.dim,
                                    kernel_size, padding=kernel_size // 2)
        else:
            layer = LatticeSteerableConv(field_type, field_type, kernel_size,
                                         order='graph')
    return layer.to(args.device)


def inputs(name, args, size, kernel_size, occupancy):
    dim = FieldType.sphere(args.channels, args.degree).dim
    if name == 'graph':
        lattice = make_graph(dim, size, kernel_size, occupancy, args.device,
                             args.pattern)
        return lattice.x, lattice
    return (torch.randn(1, dim, size, size, size, device=args.device), )


def step(layer, arguments, backward):
    """One pass, in seconds."""
    x, *rest = arguments
    start = time.perf_counter()
    if backward:
        layer(x.requires_grad_(), *rest).square().sum().backward()
        layer.zero_grad()
        x.grad = None
    else:
        with torch.no_grad():
            layer(x, *rest)
    if x.device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def cases(args):
    """(layer, occupancy) to compare on one grid."""
    for name in args.only:
        for occupancy in args.occupancy if name == 'graph' else [1.]:
            yield name, occupancy


def measure_time(args, size, kernel_size):
    """Medians over rounds in which every layer has its turn."""
    layers, times = {}, {}
    for name, occupancy in cases(args):
        layer = build(name, args, kernel_size)
        layers[name, occupancy] = (
            layer, inputs(name, args, size, kernel_size, occupancy))
        times[name, occupancy] = ([], [])
    for _ in range(args.rounds + 1):
        for case, (layer, arguments) in layers.items():
            for backward in (False, True):
                if sum(map(sum, times[case])) < args.seconds:
                    times[case][backward].append(
                        step(layer, arguments, backward))
    return {case: {key: statistics.median(t[1:] or t)  # the first warms up
                   for key, t in zip(('forward', 'both'), pair)}
            for case, pair in times.items()}


def measure_memory(args, name, size, kernel_size, occupancy):
    """Growth of the peak by one step, forward alone and with backward."""
    layer = build(name, args, kernel_size)
    small = inputs(name, args, WARM_UP, kernel_size, 1.)
    for _ in range(3):
        step(layer, small, True)
    arguments = inputs(name, args, size, kernel_size, occupancy)
    before = peak_memory(args.device)
    step(layer, arguments, False)
    forward = peak_memory(args.device) - before
    step(layer, arguments, True)
    return {'forward': forward, 'both': peak_memory(args.device) - before}


def memory_of(*case):
    """The same in a fresh process."""
    return json.loads(fresh('-m', 'benchmarks.lattice', *sys.argv[1:],
                            '--measure', json.dumps(case)))


def print_rows(size, kernel_size, results):
    plain = results.get(('conv3d', 1.))
    for (name, occupancy), r in results.items():
        row = (f'{size:3d}^3  s={kernel_size}  {name:7s}{occupancy:6.0%}'
               f'{r["forward"] * 1e3:10.1f} ms{r["both"] * 1e3:10.1f} ms')
        if plain:
            row += f'{plain["both"] / r["both"]:9.2f}'
        if 'memory' in r:
            row += (f'{r["memory"]["forward"] / 2**20:9.0f} MB'
                    f'{r["memory"]["both"] / 2**20:9.0f} MB')
        print(row, flush=True)


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--sizes', type=int, nargs='+', default=[16, 32, 64],
                        help='voxels along each axis')
    parser.add_argument('--kernels', type=int, nargs='+', default=[3, 5],
                        help='voxels along each axis of a stencil')
    parser.add_argument('--occupancy', type=float, nargs='+',
                        default=[1., 0.2, 0.05, 0.01],
                        help='shares of voxels that are nodes of sparse '
                        'graphs')
    parser.add_argument('--pattern', default='ball',
                        choices=['ball', 'random'],
                        help='where these are')
    parser.add_argument('--channels', type=int, default=8,
                        help='fields of each degree')
    parser.add_argument('--degree', type=int, default=1,
                        help='highest degree of the fields')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'],
                        help='where to run')
    parser.add_argument('--threads', type=int,
                        help='CPU threads (default: all)')
    parser.add_argument('--rounds', type=int, default=5,
                        help='most measurements of each layer and grid')
    parser.add_argument('--seconds', type=float, default=15.,
                        help='time to spend on each layer and grid')
    parser.add_argument('--only', nargs='+', metavar='LAYER',
                        default=['conv3d', 'dense', 'graph', 'escnn'],
                        help='what to measure')
    parser.add_argument('--no-memory', action='store_true',
                        help='measure no memory')
    add_json_option(parser)
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measure_memory(args, *json.loads(args.measure))))
        return

    for name in list(args.only):
        try:
            build(name, args, 3)
        except ImportError as error:
            print(f'{name} is left out: {error}')
            args.only.remove(name)
    print_machine(args.device)
    out = []
    print(f'{args.channels} fields of each degree up to {args.degree}, '
          f'SO(3), float32')
    print(f'{"grid":12s} {"layer":7s}{"full":>6s}{"forward":>13s}'
          f'{"+ backward":>13s}{"speed-up":>9s}{"peak fwd":>12s}'
          f'{"peak both":>12s}')
    for size in args.sizes:
        for kernel_size in args.kernels:
            results = measure_time(args, size, kernel_size)
            for (name, occupancy), r in results.items():
                if not args.no_memory:
                    r['memory'] = memory_of(name, size, kernel_size,
                                            occupancy)
                out.append(dict(layer=name, size=size, occupancy=occupancy,
                                kernel_size=kernel_size, **r))
            print_rows(size, kernel_size, results)
    save_report(args, out)


if __name__ == '__main__':
    main()
