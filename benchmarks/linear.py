"""Linear layers: forward and backward, beside e3nn's o3.Linear.

    python -m benchmarks.linear
    python -m benchmarks.linear --groups 'O(3)' --sizes 256x2 --rows 16 4096
    python -m benchmarks.linear --before linear.py --json linear.json

Sizes are channels x highest degree. All layers map the same fields to the
same fields, in one process and one after the other in a random order in each
round; a figure is the median over rounds of a ratio of two layers' times in
the same round, so that what else a machine does falls out. e3nn's layer knows
O(3) only. `--before` is another version of the layer's file (from `git show`),
which is loaded beside the present one.
"""
import importlib.util
import json
import os
import random
import statistics
import sys
import time
import warnings

import torch
from e3nn import o3

from benchmarks.commandline import new_parser
from pyg_steerable import FieldType
from pyg_steerable.nn import Linear

SIZES = ('8x1', '16x1', '16x2', '16x3', '64x2')
GROUPS = ('O(3)', 'SO(2)xM', 'C4', 'I')
# A layer of the version before had a table of every entry of its matrix.
MOST_BEFORE = 2**19


def load_before(path):
    """The class of another version, as a module of the package."""
    name = 'pyg_steerable.nn.pointwise._before'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.Linear


def layers_of(field_type, before):
    """Names and layers, ours first."""
    out = {'ours': Linear(field_type, field_type)}
    if before is not None and field_type.dim**2 <= MOST_BEFORE:
        out['before'] = before(field_type, field_type)
    if field_type.group.name == 'O(3)':
        out['e3nn'] = o3.Linear(field_type.irreps, field_type.irreps,
                                biases=True)
    return out


def step(layer, x, g):
    """Forward and backward: seconds of the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    layer(x).backward(g)
    layer.zero_grad()
    x.grad = None
    return time.perf_counter() - clock, time.process_time() - processor


def measure(layers, rows, dim, seconds):
    """The times of each round, wall and CPU, by layer."""
    x = torch.randn(rows, dim, requires_grad=True)
    g = torch.randn(rows, dim)
    for layer in layers.values():
        for _ in range(5):  # e3nn's is optimised on the way
            step(layer, x, g)
    times = {name: [] for name in layers}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times['ours']) < 5:
        for name in random.sample(sorted(layers), len(layers)):
            times[name].append(step(layers[name], x, g))
    return times


def ratios(times, name):
    """Ours over another layer, wall and CPU."""
    return [statistics.median(a[k] / max(b[k], 1e-9) for a, b in
                              zip(times['ours'], times[name]))
            for k in range(2)]


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--groups', nargs='+', default=GROUPS,
                        help='symmetries of the layers')
    parser.add_argument('--sizes', nargs='+', default=SIZES,
                        metavar='CHANNELSxDEGREE', help='fields')
    parser.add_argument('--rows', nargs='+', type=int,
                        default=(16, 256, 4096), help='nodes or edges')
    parser.add_argument('--seconds', type=float, default=1.,
                        help='time for each line')
    parser.add_argument('--threads', type=int, default=1,
                        help='of each operator')
    parser.add_argument('--before', metavar='FILE',
                        help='another version of the layer (default: none)')
    parser.add_argument('--json', metavar='FILE',
                        help='file to write the figures to (default: none)')
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    before = load_before(args.before) if args.before else None
    print(f'{os.cpu_count()} cores, {args.threads} threads, torch '
          f'{torch.__version__}; forward + backward, float32; ratios are '
          f'ours / theirs, wall (CPU)')
    print(f'{"":30s}{"ours":>11s}{"/ before":>16s}{"/ e3nn":>16s}')
    results = []
    for group in args.groups:
        for size in args.sizes:
            channels, degree = map(int, size.split('x'))
            field_type = FieldType.sphere(channels, degree, group)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                layers = layers_of(field_type, before)
            for rows in args.rows:
                times = measure(layers, rows, field_type.dim, args.seconds)
                result = {'group': group, 'channels': channels,
                          'degree': degree, 'rows': rows,
                          'rounds': len(times['ours'])}
                result['seconds'] = statistics.median(
                    t for t, _ in times['ours'])
                line = (f'{group:8s} {size:>6s} {rows:6d} rows  '
                        f'{result["seconds"] * 1e3:10.3f} ms')
                for name in ('before', 'e3nn'):
                    if name in layers:
                        wall, processor = ratios(times, name)
                        result[name] = {'wall': wall, 'cpu': processor}
                        line += f'{wall:8.2f} ({processor:4.2f})'
                    else:
                        line += 16 * ' '
                print(line, flush=True)
                results.append(result)
    if args.json:
        with open(args.json, 'w') as file:
            settings = {k: v for k, v in vars(args).items()
                        if k not in ('before', 'json')}
            json.dump({'settings': settings, 'torch': torch.__version__,
                       'results': results}, file, indent=1)


if __name__ == '__main__':
    main()
