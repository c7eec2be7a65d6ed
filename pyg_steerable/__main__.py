"""``python -m pyg_steerable``: what is installed, and how to go on."""
from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Sequence

import torch

from . import __version__
from .graph.points.engines import ENGINES, choose_engine

GO_ON = """how to go on:
  python -m pyg_steerable.viz --out pictures   kernels and the equivariance movie
  python examples/qm9.py --demo                train on bundled molecules (make demo)
  python examples/modelnet40.py --demo         train on point clouds made there
  README.md, docs/                             quick tour, questions, design"""  # noqa: E501


def facts() -> dict[str, str]:
    """Versions, engines and devices, by name."""
    found = {'pyg_steerable': __version__,
             'python': platform.python_version()}
    for name in ('torch', 'torch_geometric', 'e3nn', 'numpy', 'scipy',
                 'escnn', 'lightning'):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'not installed'
    cuda = torch.cuda.is_available()
    found['device'] = (f'cuda ({torch.cuda.get_device_name()})' if cuda else
                       'cpu')
    found['threads'] = str(torch.get_num_threads())
    device = torch.device('cuda' if cuda else 'cpu')
    found['neighbour engines'] = ', '.join(
        name for name in ENGINES if _works(name, device))
    return found


def _works(name: str, device: torch.device) -> bool:
    try:
        choose_engine(name, device, 3)
    except ImportError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the facts; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m pyg_steerable', epilog=GO_ON,
        description='Shows versions, neighbour engines and devices, for '
        'reports of faults, and how to go on.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=__version__,
                        help='show the version and exit')
    parser.parse_args(argv)
    for name, value in facts().items():
        print(f'{name:18} {value}')
    print(f'\n{GO_ON}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
