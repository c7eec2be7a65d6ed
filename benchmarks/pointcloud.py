"""One training step of a point-cloud network: time and peak memory.

    python -m benchmarks.pointcloud
    python -m benchmarks.pointcloud --points 1024 65536 --json points.json
    python -m benchmarks.pointcloud --points 65536 --ratios 1 0.5 0.5 0.5

One cloud on the unit sphere. `implicit` and `harmonic` are
ModelNetClassifier with 16 channels of degree 0 to 2 and 15 neighbours;
`PointNet++` is PyG's convolution with the same points and edges and 64
channels; `escnn` is R3PointConv in the same network where it is installed
(for O(3)). Every figure comes from a process of its own, with the graphs
made before; peak memory is its growth over the state after a step on a small
cloud. On a machine that others use too, seconds of the processor say more
than those of the clock.
"""
import argparse
import json
import sys
import time

import torch
from torch_geometric.nn import MLP, PointNetConv

from benchmarks.commandline import new_parser
from benchmarks.conv import EscnnConv
from benchmarks.measure import fresh, peak_memory
from benchmarks.report import add_json_option, print_machine, save_report
from pyg_steerable.models import ModelNetClassifier
from pyg_steerable.nn import hierarchy

NETWORKS = ('implicit', 'harmonic', 'PointNet++', 'escnn')
WARM_UP = 256


class PointNetClassifier(torch.nn.Module):
    """PointNetConv on the same levels."""
    def __init__(self, levels, width=64):
        super().__init__()
        self.convs = torch.nn.ModuleList(
            PointNetConv(MLP([3 + (width if i else 0), width, width]),
                         add_self_loops=False) for i in range(levels))
        self.head = MLP([width, 128, 40], norm=None)  # one cloud

    def forward(self, pos, levels):
        x = None
        for level, conv in zip(levels, self.convs):
            target = None if x is None else x[level.index]
            x = conv((x, target), (pos, level.pos), level.edge_index)
            pos = level.pos
        return self.head(x.mean(0, keepdim=True))


class EscnnClassifier(torch.nn.Module):
    """R3PointConv, which has one set of nodes: the last ones are kept."""
    def __init__(self, levels, channels, degree):
        super().__init__()
        self.convs = torch.nn.ModuleList(
            EscnnConv('O(3)', channels, degree, 0.3 * 2**(i / 2))
            for i in range(levels))
        self.width = self.convs[0].type.size

    def forward(self, pos, levels):
        x = pos.new_ones(len(pos), self.width)
        for level, conv in zip(levels, self.convs):
            source, target = level.edge_index
            edges = torch.stack([source, level.index[target]])
            x, pos = conv(x, pos, edges)[level.index], level.pos
        return x.mean(0, keepdim=True)


def build(name, args):
    """A network as a function of positions and levels."""
    torch.manual_seed(0)
    if name == 'PointNet++':
        return PointNetClassifier(len(args.ratios))
    if name == 'escnn':
        return EscnnClassifier(len(args.ratios), args.channels, args.degree)
    net = ModelNetClassifier(kernel=name, group=args.group,
                             channels=args.channels, max_degree=args.degree,
                             ratios=args.ratios, k=args.neighbors,
                             dropout=0.)
    # One cloud: statistics over clouds in the head would have no variance.
    net.head.eval()
    return _OneCloud(net)


class _OneCloud(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pos, levels):
        return self.net(pos, levels=levels)


def measure(name, points, args):
    """Seconds and bytes of a step, in this process."""
    torch.manual_seed(0)
    net = build(name, args).to(args.device)

    def graph(n):
        pos = torch.randn(n, 3, device=args.device)
        pos = pos / pos.norm(dim=1, keepdim=True)
        return pos, hierarchy(pos, None, args.ratios, args.neighbors)

    def step(pos, levels):
        net(pos, levels).square().sum().backward()
        net.zero_grad()
        if args.device == 'cuda':
            torch.cuda.synchronize()

    step(*graph(WARM_UP))
    before = peak_memory(args.device)
    data, clock, cpu = graph(points), [], []
    edges = sum(level.edge_index.shape[1] for level in data[1])
    for _ in range(1 + args.repeat):
        start = time.perf_counter(), time.process_time()
        step(*data)
        clock.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {'seconds': min(clock[1:]), 'cpu_seconds': min(cpu[1:]),
            'edges': edges, 'memory': peak_memory(args.device) - before}


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--points', type=int, nargs='+',
                        default=[1024, 4096, 16384, 65536],
                        help='of each cloud')
    parser.add_argument('--networks', nargs='+', default=list(NETWORKS),
                        choices=NETWORKS,
                        help='what to measure')
    parser.add_argument('--group', default='O(3)',
                        help='symmetry of the layers')
    parser.add_argument('--channels', type=int, default=16,
                        help='fields of each degree')
    parser.add_argument('--degree', type=int, default=2,
                        help='highest degree of the fields')
    parser.add_argument('--neighbors', type=int, default=15,
                        help='of each point')
    parser.add_argument('--ratios', type=float, nargs='+',
                        default=[0.5, 0.5, 0.5, 0.5],
                        help='share of points that each convolution keeps')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'],
                        help='where to run')
    parser.add_argument('--threads', type=int,
                        help='CPU threads (default: all)')
    parser.add_argument('--repeat', type=int, default=2,
                        help='measurements, of which the best counts')
    parser.add_argument('--most-gigabytes', type=float, default=12.,
                        help='a network that took a quarter of it is not '
                        'tried on the next size')
    add_json_option(parser)
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.measure:
        name, points = args.measure
        print(json.dumps(measure(name, int(points), args)))
        return
    print_machine(args.device)
    print(f'{"":12s}{"points":>8s}{"edges":>9s}{"step":>11s}{"of CPU":>11s}'
          f'{"peak":>10s}{"kB/edge":>9s}')
    results = {}
    for name in args.networks:
        for points in args.points:
            try:
                r = json.loads(fresh('-m', 'benchmarks.pointcloud',
                                     *sys.argv[1:], '--measure', name,
                                     str(points)))
            except RuntimeError as error:  # not installed, or no memory
                print(f'{name} at {points} points: '
                      f'{str(error).splitlines()[-1]}')
                break
            results.setdefault(name, {})[points] = r
            print(f'{name:12s}{points:8d}{r["edges"]:9d}'
                  f'{r["seconds"] * 1e3:8.0f} ms'
                  f'{r["cpu_seconds"] * 1e3:8.0f} ms'
                  f'{r["memory"] / 2**20:7.0f} MB'
                  f'{r["memory"] / r["edges"] / 1e3:9.2f}', flush=True)
            if r['memory'] > args.most_gigabytes * 2**30 / 4:
                break
    save_report(args, results)


if __name__ == '__main__':
    main()
