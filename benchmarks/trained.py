r"""How equivariant networks are once they are trained: those of a comparison
(python -m benchmarks.accuracy), on its test data, inside and outside of the
group that they are built for::

    python -m benchmarks.trained FOLDER --npz qm9.npz

Numbers are the largest of :math:`\lVert f(g x) - g f(x) \rVert / \lVert f(x)
\rVert` over ten elements, in float64 and float32. Outside of O(3), where
there is no other rotation or reflection, samples are sheared.
"""
from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.loader import DataLoader

from benchmarks import accuracy
from benchmarks.commandline import new_parser
from benchmarks.measure import commit
from benchmarks.peers import NETWORKS, Network
from benchmarks.report import load_json, print_head, print_row, save_json
from benchmarks.tasks import Task
from pyg_steerable import Group

#: Elements to try, and samples to try them on.
ELEMENTS, SAMPLES = 10, 32


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = new_parser(__doc__)
    parser.add_argument('folder', type=Path,
                        help='the comparison (no default)')
    parser.add_argument('--npz', type=Path, nargs='+', default=[],
                        metavar='FILE', help='its data (default: for qm9 the '
                        'molecules that are bundled)')
    return parser


def elements(group: Group, around: Group) -> tuple[Tensor, Tensor]:
    """Matrices of a group, and of those around it others."""
    generator = torch.Generator().manual_seed(0)
    tried = around.sample(20 * ELEMENTS, generator=generator)
    inside = torch.stack([R for R in tried if group.contains(R)][:ELEMENTS]
                         ) if around.is_finite else group.sample(
                             ELEMENTS, generator=generator)
    outside = [R for R in tried if not group.contains(R)][:ELEMENTS]
    if outside:
        return inside, torch.stack(outside)
    shear = torch.eye(3).double()
    shear[0, 1] = 0.3
    return inside, inside @ shear


@torch.no_grad()
def change(task: Task, net: torch.nn.Module, batch, matrices: Tensor
           ) -> float:
    """The largest relative error of equivariance."""
    before, worst = run(net, batch), 0.
    size = flat(before).norm()
    for R in matrices:
        R = R.to(size)
        after = flat(run(net, task.move(batch, R)))
        expected = flat(task.move_output(before, R))
        worst = max(worst, float((after - expected).norm() / size))
    return worst


def run(net: torch.nn.Module, batch):
    """The output; the points that are kept are drawn the same way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return net(batch)


def flat(out) -> Tensor:
    """One vector of all outputs."""
    return torch.cat([t.flatten() for t in (
        out if isinstance(out, tuple) else (out, ))])


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers stay."""
    return x.to(dtype) if x.is_floating_point() else x


def measure(task: Task, network: Network, path: Path) -> dict[str, float]:
    """Of one network."""
    net = network.build(task)
    net.load_state_dict(torch.load(path, weights_only=True))
    torch.manual_seed(0)
    data = accuracy.samples(task, network, 'test', seed=0)
    batch = next(iter(DataLoader(
        [data[i] for i in range(min(SAMPLES, len(data)))], SAMPLES)))
    group = Group(network.group)
    inside, outside = elements(group, Group(task.rotations))
    found = {}
    for dtype in (torch.float64, torch.float32):
        model = copy.deepcopy(net).to(dtype).eval()
        there = batch.clone().apply(partial(cast, dtype=dtype))
        name = str(dtype).split('.')[1]
        found[f'inside, {name}'] = change(task, model, there, inside)
        found[f'outside, {name}'] = change(task, model, there, outside)
    return found


def main(argv=None) -> dict[str, dict[str, float]]:
    """Measures all networks that claim a symmetry, and shows the figures."""
    args = build_parser().parse_args(argv)
    table = load_json(args.folder / 'table.json')
    command = [table['task'], f'--out={args.folder}',
               *accuracy.as_options(table)]
    if args.npz:
        command += ['--npz', *map(str, args.npz)]
    runs, found = accuracy.Runs(accuracy.parse(command)), {}
    for name, row in table['networks'].items():
        network = NETWORKS[name]()
        if network.group is not None:
            path = runs.path(name, row['rate'], row['seeds'][0])
            found[name] = {'group': network.group, **measure(
                runs.load(), network, path.with_suffix('.pt'))}
    print_head(['network', *next(iter(found.values()))])
    for name, row in found.items():
        print_row([name, *(x if isinstance(x, str) else f'{x:.1e}'
                           for x in row.values())])
    save_json(args.folder / 'trained.json', {'commit': commit(),
                                             'error': found})
    return found


if __name__ == '__main__':
    main()
