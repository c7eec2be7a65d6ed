"""What it costs to import the package and to build a layer, cold.

    python -m benchmarks.construct
    python -m benchmarks.construct --groups 'SO(2)' I --json construct.json

Every figure comes from a fresh process: nothing is cached between them.
"""
import os
import statistics

from benchmarks.commandline import new_parser
from benchmarks.measure import fresh
from benchmarks.report import add_json_option, save_report

GROUPS = ('1', 'Inv', 'M', 'F', 'SO(2)', 'SO(2)xM', 'SO(2)xF', 'SO(2)xInv',
          'SO(2)xMxInv', 'SO(3)', 'O(3)', 'C4', 'C6', 'D4', 'D6', 'C4xM', 'T',
          'O', 'I', 'TxInv', 'OxInv', 'IxInv')

IMPORT = """
import time
import torch, torch_geometric.nn
start = time.perf_counter()
import pyg_steerable.nn
print(time.perf_counter() - start)
"""

BUILD = """
import time
import torch
from pyg_steerable import FieldType
from pyg_steerable import nn
start = time.perf_counter()
field_type = FieldType.sphere({channels}, {degree}, {group!r})
nn.{layer}(field_type, field_type)
print(time.perf_counter() - start)
"""


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--groups', nargs='+', default=GROUPS,
                        help='symmetries of the layers')
    parser.add_argument('--channels', type=int, default=16,
                        help='fields of each degree')
    parser.add_argument('--degree', type=int, default=3,
                        help='highest degree of the fields')
    parser.add_argument('--repeat', type=int, default=1,
                        help='measurements, of which the median counts')
    add_json_option(parser)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)

    def median(code):
        return statistics.median(float(fresh('-c', code))
                                 for _ in range(args.repeat))

    print(f'{os.cpu_count()} cores, {args.channels} channels, degree '
          f'{args.degree}, seconds')
    results = {'import': median(IMPORT)}
    print(f'import, over torch and torch_geometric: {results["import"]:.2f}')
    print(f'{"":14s}{"implicit":>10s}{"harmonic":>10s}')
    for group in args.groups:
        results[group] = {
            layer: median(BUILD.format(layer=layer, group=group,
                                       channels=args.channels,
                                       degree=args.degree))
            for layer in ('ImplicitSteerableConv', 'HarmonicSteerableConv')
        }
        print(f'{group:14s}' + ''.join(f'{seconds:10.2f}' for seconds in
                                       results[group].values()), flush=True)
    save_report(args, results)


if __name__ == '__main__':
    main()
