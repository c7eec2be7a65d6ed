"""The engines of neighbour search against each other: time and memory.

    python -m benchmarks.neighbors
    python -m benchmarks.neighbors --sizes 1000 1000000 --device cuda

Points are uniform in a cube; the radius is that of a sphere with k of them.
Far away, the cube is at 5e5, which takes as long: the ratio is the last row.
Every figure comes from a fresh process, times are the best of a few: on a
machine that others use too, those of the processor say more than the clock.
"""
from benchmarks.commandline import new_parser
from benchmarks.measure import fresh
from benchmarks.report import add_json_option, print_machine, save_report

ENGINES = ('scipy', 'torch', 'torch_cluster', 'pyg_lib')

RUN = """
import math, resource, sys, time
import torch
from pyg_steerable.graph import knn_graph, radius_graph

n, k, device = {size}, {k}, {device!r}
torch.manual_seed(0)
# Of side 100: at 5e5 float32 still tells 3 thousand places along a side.
side = 100
r = side * (k / n / (4 / 3 * math.pi))**(1 / 3)
search = dict(
    knn=lambda x: knn_graph(x, k, engine={engine!r}),
    radius=lambda x: radius_graph(x, r, engine={engine!r}),
)[{task!r}]

def peak():
    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == 'darwin' else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

def wait():
    if device == 'cuda':
        torch.cuda.synchronize()

try:
    search(torch.rand(2 * k, 3, device=device))
except ImportError:
    print('missing')
    raise SystemExit
x = side * torch.rand(n, 3, device=device) + {offset}
before, clock, cpu = peak(), math.inf, math.inf
for _ in range({repeat}):
    wait()
    start = time.perf_counter(), time.process_time()
    edges = search(x).shape[1]
    wait()
    clock = min(clock, time.perf_counter() - start[0])
    cpu = min(cpu, time.process_time() - start[1])
print(clock, cpu, peak() - before, edges)
"""


def measure(**settings):
    """Seconds by the clock and of the CPU, MiB over the start, and edges; or
    None without the engine.
    """
    said = fresh('-c', RUN.format(**settings))
    if said == 'missing':
        return None
    names = ('seconds', 'cpu_seconds', 'mib', 'edges')
    return dict(zip(names, map(float, said.split())))


def far_away(args):
    """Each task by the engine 'auto' for most points, at the origin and far
    away: CPU seconds (on a GPU by the clock) and their ratio.
    """
    unit = 'cpu_seconds' if args.device == 'cpu' else 'seconds'
    found = {}
    for task in ('knn', 'radius'):
        near, far = (measure(task=task, engine='auto', size=max(args.sizes),
                             k=args.k, device=args.device,
                             repeat=args.repeat, offset=offset)[unit]
                     for offset in (0, 5e5))
        found[task] = {'near': near, 'far': far, 'ratio': far / near}
        print(f'{task} at 5e5: {far:.3f} s, {far / near:.2f} of that at 0')
    return found


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--sizes', nargs='+', type=int,
                        default=(1000, 10_000, 100_000),
                        help='numbers of points')
    parser.add_argument('--engines', nargs='+', default=ENGINES,
                        help='to compare')
    parser.add_argument('--k', type=int, default=16,
                        help='neighbours of each point')
    parser.add_argument('--brute', type=int, default=30_000, metavar='N',
                        help='most points for the engine torch')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'],
                        help='where to run')
    parser.add_argument('--repeat', type=int, default=3,
                        help='measurements, of which the best counts')
    add_json_option(parser)
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)

    print_machine(args.device)
    print(f'k = {args.k}, float32, seconds/of CPU (peak MiB)')
    results = {}
    for task in ('knn', 'radius'):
        print(f'{task:14s}' + ''.join(f'{n:>22,d}' for n in args.sizes))
        for engine in args.engines:
            row = results.setdefault(task, {}).setdefault(engine, {})
            for n in args.sizes:
                row[n] = None
                if engine != 'torch' or n <= args.brute:
                    row[n] = measure(task=task, engine=engine, size=n,
                                     k=args.k, device=args.device,
                                     repeat=args.repeat, offset=0)
            print(f'{engine:14s}' + ''.join(
                '{seconds:8.3f}/{cpu_seconds:6.3f} ({mib:4.0f})'.format(**v)
                if v else f'{"-":>22s}' for v in row.values()), flush=True)
    results['far'] = far_away(args)
    save_report(args, results)


if __name__ == '__main__':
    main()
