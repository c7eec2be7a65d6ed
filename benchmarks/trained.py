r"""How equivariant networks are once they are trained: those of a comparison
(python -m benchmarks.accuracy), on its test data, inside and outside of the
group that they are built for::

    python -m benchmarks.trained FOLDER --npz qm9.npz

Numbers are those of pyg_steerable.testing.equivariance_error, in float64 and
float32; outside is O(3). Networks for O(3) itself are tried on samples that
are sheared first: what they then do has no symmetry.
"""
from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from benchmarks import accuracy
from benchmarks.commandline import new_parser
from benchmarks.measure import commit
from benchmarks.peers import NETWORKS, Network
from benchmarks.report import load_json, print_head, print_row, save_json
from benchmarks.tasks import Task
from pyg_steerable.testing import equivariance_error

#: Random elements to try, and samples to try them on.
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


def error(task: Task, net: torch.nn.Module, batch: Data, group: str,
          shear: Tensor | None = None) -> float:
    """The largest one of a network, after a linear map of what turns."""
    in_types, out_types = task.types(group)

    def function(*values: Tensor):
        return net(batch.clone().update({
            key: x if shear is None else x @ shear.to(x)
            for key, x in zip(in_types, values)}))

    return equivariance_error(
        function, group, in_types=[*in_types.values()], out_types=out_types,
        inputs=[batch[key] for key in in_types], num_samples=ELEMENTS)


def measure(task: Task, network: Network, path: Path) -> dict[str, float]:
    """Of one network."""
    net = network.build(task)
    net.load_state_dict(torch.load(path, weights_only=True))
    torch.manual_seed(0)
    data = accuracy.samples(task, network, 'test', seed=0)
    batch = next(iter(DataLoader(
        [data[i] for i in range(min(SAMPLES, len(data)))], SAMPLES)))
    shear = None
    if network.group == 'O(3)':
        shear = torch.eye(3)
        shear[0, 1] = 0.3
    found = {}
    for dtype in (torch.float64, torch.float32):
        model = copy.deepcopy(net).to(dtype).eval()
        there = batch.clone().apply(partial(cast, dtype=dtype))
        name = str(dtype).split('.')[1]
        found[f'inside, {name}'] = error(task, model, there, network.group)
        found[f'outside, {name}'] = error(task, model, there, 'O(3)', shear)
    return found


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole numbers stay."""
    return x.to(dtype) if x.is_floating_point() else x


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
