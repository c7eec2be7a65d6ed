"""One convolution: time and peak memory, beside e3nn's and escnn's.

    python -m benchmarks.conv
    python -m benchmarks.conv --group 'SO(2)' --json conv.json

All layers map the same fields to the same fields on the same graph, in one
process, their repetitions alternating. `e3nn` is FullyConnectedTensorProduct
with a radial network for the weights of each edge; `escnn` is R3PointConv. A
layer that is not installed or does not know the group is left out.

Peak memory on the CPU is the growth of the resident set (its high-water mark,
in a process of its own for each layer) over the state after a run on a tiny
graph; on a GPU it is torch.cuda.max_memory_allocated over the same state.
"""
import argparse
import json
import statistics
import sys
import time
import warnings

import torch
from e3nn import o3
from e3nn.math import soft_one_hot_linspace
from e3nn.nn import FullyConnectedNet
from scipy.spatial import cKDTree

from benchmarks.commandline import new_parser
from benchmarks.measure import fresh, peak_memory
from benchmarks.report import add_json_option, print_machine, save_report
from pyg_steerable import FieldType
from pyg_steerable.nn import HarmonicSteerableConv, ImplicitSteerableConv

WAYS = {  # of evaluation
    'aggregate': dict(order='aggregate'),
    'source': dict(order='source'),
    'reference': dict(backend='reference'),
}
TINY = 32  # nodes of the graph to warm up with


def make_graph(num_nodes, neighbors, dim, device):
    """Random points at unit density, and their nearest neighbours."""
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(num_nodes, 3, generator=generator) * num_nodes**(1 / 3)
    neighbors = min(neighbors, num_nodes - 1)
    _, index = cKDTree(pos.numpy()).query(pos.numpy(), neighbors + 1)
    src = torch.from_numpy(index[:, 1:]).flatten()
    dst = torch.arange(num_nodes).repeat_interleave(neighbors)
    x = torch.randn(num_nodes, dim, generator=generator)
    return (x.to(device), pos.to(device), torch.stack([src, dst]).to(device))


class E3nnConv(torch.nn.Module):
    """A tensor product whose weights are functions of the distance."""
    def __init__(self, irreps, degree, radius, hidden):
        super().__init__()
        self.radius = radius
        self.sh = o3.Irreps.spherical_harmonics(degree)
        self.product = o3.FullyConnectedTensorProduct(
            irreps, self.sh, irreps, shared_weights=False)
        self.radial = FullyConnectedNet(
            [10, hidden, self.product.weight_numel], torch.nn.functional.silu)

    def forward(self, x, pos, edge_index):
        src, dst = edge_index
        vector = pos[src] - pos[dst]
        radial = soft_one_hot_linspace(vector.norm(dim=1), 0., self.radius,
                                       10, 'smooth_finite', cutoff=True)
        harmonics = o3.spherical_harmonics(self.sh, vector, normalize=True,
                                           normalization='component')
        message = self.product(x[src], harmonics,
                               self.radial(radial * 10**0.5))
        return x.new_zeros(len(x), message.shape[1]).index_add(
            0, dst, message)


class EscnnConv(torch.nn.Module):
    """R3PointConv on plain tensors."""
    def __init__(self, group, channels, degree, radius):
        super().__init__()
        import escnn
        self.escnn = escnn
        space, irreps = _escnn_irreps(escnn, group, degree)
        self.type = escnn.nn.FieldType(
            space, [ir for ir in irreps for _ in range(channels)])
        self.conv = escnn.nn.R3PointConv(
            self.type, self.type, width=radius, n_rings=3,
            frequencies_cutoff=2. * degree)

    def forward(self, x, pos, edge_index):
        x = self.escnn.nn.GeometricTensor(x, self.type, pos)
        return self.conv(x, edge_index).tensor


def _escnn_irreps(escnn, group, degree):
    degrees = range(degree + 1)
    if group == 'O(3)':
        space = escnn.gspaces.flipRot3dOnR3(maximum_frequency=2 * degree)
        return space, [space.irrep(l % 2, l) for l in degrees]
    if group == 'SO(3)':
        space = escnn.gspaces.rot3dOnR3(maximum_frequency=2 * degree)
        return space, [space.irrep(l) for l in degrees]
    raise ImportError(f'is compared for SO(3) and O(3), not {group}')


def variants(args):
    """Names, and what builds each layer."""
    radius = 1.6 * (args.neighbors / 15)**(1 / 3)  # reaches all neighbours
    field_type = FieldType.sphere(args.channels, args.degree, args.group)
    shared = dict(num_neighbors=args.neighbors)

    def implicit(way):
        return lambda: ImplicitSteerableConv(
            field_type, field_type, hidden=args.hidden, radius=radius / 2,
            **way, **shared)

    def harmonic(way):
        return lambda: HarmonicSteerableConv(
            field_type, field_type, radius=radius, **way, **shared)

    def e3nn():
        if args.group not in ('O(3)', 'SO(3)'):
            raise ImportError(f'is compared for SO(3) and O(3), not '
                              f'{args.group}')
        # Without a parity every irrep is even for e3nn.
        irreps = field_type.irreps if args.group == 'O(3)' else o3.Irreps(
            [(mul, (ir.l, 1)) for mul, ir in field_type.irreps])
        conv = E3nnConv(irreps, args.degree, radius, args.hidden)
        if args.group == 'SO(3)':
            conv.sh = o3.Irreps([(1, (l, 1)) for l in range(args.degree + 1)])
            conv.product = o3.FullyConnectedTensorProduct(
                irreps, conv.sh, irreps, shared_weights=False)
            conv.radial = FullyConnectedNet(
                [10, args.hidden, conv.product.weight_numel],
                torch.nn.functional.silu)
        return conv

    out = {}
    for name, way in WAYS.items():
        out[f'implicit, {name}'] = implicit(way)
        out[f'harmonic, {name}'] = harmonic(way)
    out['e3nn'] = e3nn
    out['escnn'] = lambda: EscnnConv(args.group, args.channels, args.degree,
                                     radius)
    return out


def build(name, args):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return variants(args)[name]().to(args.device)


def step(conv, graph, backward):
    """One pass, in seconds."""
    x, pos, edge_index = graph
    _wait(x.device)
    start = time.perf_counter()
    if backward:
        out = conv(x.requires_grad_(), pos, edge_index)
        out.square().sum().backward()
        conv.zero_grad()
        x.grad = None
    else:
        with torch.no_grad():
            conv(x, pos, edge_index)
    _wait(x.device)
    return time.perf_counter() - start


def _wait(device):
    if device.type == 'cuda':
        torch.cuda.synchronize()


# Memory ######################################################################


def measure_memory(name, args, dim):
    """Growth of the peak by one step, forward alone and with backward."""
    conv = build(name, args)
    tiny = make_graph(TINY, args.neighbors, dim, args.device)
    for _ in range(3):
        step(conv, tiny, True)
    graph = make_graph(args.nodes, args.neighbors, dim, args.device)
    before = peak_memory(args.device)
    step(conv, graph, False)
    forward = peak_memory(args.device) - before
    step(conv, graph, True)
    return {'forward': forward, 'both': peak_memory(args.device) - before}


def memory_of(name):
    """The same in a fresh process."""
    return json.loads(fresh('-m', 'benchmarks.conv', *sys.argv[1:],
                            '--measure', name))


# Time ########################################################################


def measure_time(layers, args, dim):
    """Medians over rounds in which every layer has its turn; a layer that
    has had its time is left out of further rounds.
    """
    graph = make_graph(args.nodes, args.neighbors, dim, args.device)
    tiny = make_graph(TINY, args.neighbors, dim, args.device)
    spent = {name: 0. for name in layers}
    times = {name: {'forward': [], 'both': []} for name in layers}
    for conv in layers.values():
        for _ in range(3):
            step(conv, tiny, True)
    for round_ in range(args.rounds + 1):
        for name, conv in layers.items():
            if spent[name] > args.seconds:
                continue
            for key, backward in (('forward', False), ('both', True)):
                seconds = step(conv, graph, backward)
                spent[name] += seconds
                if round_ == 1 and times[name][key]:
                    times[name][key].clear()  # the first round warms up
                times[name][key].append(seconds)
    return {name: {key: statistics.median(value)
                   for key, value in by_key.items()}
            for name, by_key in times.items()}


def print_table(results):
    one = results.get('implicit, aggregate')
    print(f'{"":20s}{"forward":>11s}{"+ backward":>11s}{"x":>8s}'
          f'{"peak fwd":>11s}{"peak both":>11s}{"x":>8s}')
    for name, r in results.items():
        row = (f'{name:20s}{r["forward"] * 1e3:8.1f} ms'
               f'{r["both"] * 1e3:8.1f} ms{r["both"] / one["both"]:8.2f}')
        if 'memory' in r:
            m, least = r['memory'], max(one['memory']['both'], 1)
            row += (f'{m["forward"] / 2**20:8.0f} MB'
                    f'{m["both"] / 2**20:8.0f} MB{m["both"] / least:8.2f}')
        print(row)


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--group', default='O(3)',
                        help='symmetry of the layers')
    parser.add_argument('--channels', type=int, default=16,
                        help='fields of each degree')
    parser.add_argument('--degree', type=int, default=2,
                        help='highest degree of the fields')
    parser.add_argument('--hidden', type=int, default=16,
                        help='fields of each degree inside of implicit '
                        'kernels')
    parser.add_argument('--nodes', type=int, default=1024,
                        help='of the graph')
    parser.add_argument('--neighbors', type=int, default=15,
                        help='of each node')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'],
                        help='where to run')
    parser.add_argument('--threads', type=int, help='one, where other work '
                        'shares the machine: waiting threads cost much '
                        '(default: all)')
    parser.add_argument('--rounds', type=int, default=10,
                        help='most measurements of each layer')
    parser.add_argument('--seconds', type=float, default=15.,
                        help='time to spend on each layer')
    parser.add_argument('--only', nargs='+', metavar='LAYER',
                        help="e.g. 'implicit, aggregate' e3nn (default: "
                        'all)')
    parser.add_argument('--no-memory', action='store_true',
                        help='measure no memory')
    add_json_option(parser)
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    dim = FieldType.sphere(args.channels, args.degree, args.group).dim
    if args.measure:
        print(json.dumps(measure_memory(args.measure, args, dim)))
        return

    layers = {}
    for name in variants(args):
        if args.only and name not in args.only:
            continue
        try:
            layers[name] = build(name, args)
        except ImportError as error:
            print(f'{name} is left out: {error}')
    print_machine(args.device)
    print(f'{args.nodes} nodes x {args.neighbors} neighbours, '
          f'{args.channels} channels, degree {args.degree}, hidden '
          f'{args.hidden}, {args.group}, float32; x: over the first line')
    results = measure_time(layers, args, dim)
    del layers
    if not args.no_memory:
        for name in results:
            results[name]['memory'] = memory_of(name)
    print_table(results)
    save_report(args, results)


if __name__ == '__main__':
    main()
