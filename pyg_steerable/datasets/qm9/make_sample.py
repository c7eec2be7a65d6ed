"""Make the QM9 sample that pyg_steerable brings along.

Source: the PyPI package ``qm9pack`` 1.0.3 (code MIT) with the QM9 data of
Ramakrishnan et al., doi:10.1038/sdata.2014.22 (CC0). Needs
``pip install qm9pack==1.0.3 rdkit``. Run from the repository::

    python -m pyg_steerable.datasets.qm9.make_sample
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np

from pyg_steerable.datasets import archive
from pyg_steerable.datasets.qm9 import (
    molecules as qm9,
)
from pyg_steerable.datasets.qm9 import (
    npz as _qm9_npz,
)
from pyg_steerable.datasets.qm9 import (
    pack as _qm9pack,
)


def build_parser() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--num', type=int, default=2000,
                        help='number of molecules (default: 2000)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the choice (default: 0)')
    parser.add_argument('--out', default=qm9.SAMPLE,
                        help='the file to write (default: the one that is '
                        'bundled)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Choose molecules at random, find their bonds, write the file."""
    args = build_parser().parse_args(argv)
    rows = _qm9pack.read_tables(_qm9pack.find_tables())
    rng = np.random.default_rng(args.seed)
    keep = np.sort(rng.choice(len(rows), size=args.num, replace=False))
    arrays = _qm9pack.build_arrays([rows[i] for i in keep])
    _qm9_npz.check_arrays(arrays, args.out)
    archive.save_npz(args.out, arrays)
    print(f'{len(arrays["id"])} of {len(rows)} molecules, '
          f'{os.path.getsize(args.out) / 1e3:.0f} kB: {args.out}')


if __name__ == '__main__':
    main()
