r"""QM9: small organic molecules, read from any of four sources.

The data are from `"Quantum chemistry structures and properties of 134 kilo
molecules" <https://doi.org/10.1038/sdata.2014.22>`_ (Ramakrishnan et al.,
2014).
"""
from __future__ import annotations

import os.path as osp
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from ... import checks, files
from ..archive import save_npz
from ..base import Split, read_transform
from . import npz, pack, pyg

__all__ = ['TARGETS', 'QM9Molecules', 'Target', 'load_qm9', 'split_qm9']

SAMPLE = osp.join(osp.dirname(osp.dirname(__file__)), 'data',
                  'qm9_sample.npz')
_DEFAULT_ROOT = osp.join('~', '.cache', 'pyg_steerable', 'qm9')


class Target(NamedTuple):
    """A property of QM9.

    Args:
        column (int): Column of :obj:`data.y`, as in PyG's :obj:`QM9`.
        unit (str): Unit of :obj:`data.y`.
        factor (float): Multiply by it to report an error.
        report_unit (str): Unit after the multiplication.
    """

    column: int
    unit: str
    factor: float
    report_unit: str


#: The twelve usual targets. The four energies are the atomisation versions
#: (columns 12 to 15), as in the literature; :obj:`data.y` also holds the
#: total ones in columns 7 to 10, rounded to about 1 meV by float32.
TARGETS: dict[str, Target] = {
    'mu': Target(0, 'D', 1.0, 'D'),
    'alpha': Target(1, 'a0^3', 1.0, 'a0^3'),
    'homo': Target(2, 'eV', 1000.0, 'meV'),
    'lumo': Target(3, 'eV', 1000.0, 'meV'),
    'gap': Target(4, 'eV', 1000.0, 'meV'),
    'r2': Target(5, 'a0^2', 1.0, 'a0^2'),
    'zpve': Target(6, 'eV', 1000.0, 'meV'),
    'U0': Target(12, 'eV', 1000.0, 'meV'),
    'U': Target(13, 'eV', 1000.0, 'meV'),
    'H': Target(14, 'eV', 1000.0, 'meV'),
    'G': Target(15, 'eV', 1000.0, 'meV'),
    'Cv': Target(11, 'cal/(mol K)', 1.0, 'cal/(mol K)'),
}


class QM9Molecules(InMemoryDataset):
    r"""QM9 from any source; made by :meth:`load_qm9`.

    Each item is a :class:`~torch_geometric.data.Data` with

    * :obj:`x` float ``[n, 5]``: one-hot element (H, C, N, O, F)
    * :obj:`z` long ``[n]``: atomic number
    * :obj:`pos` float ``[n, 3]``: position in Angstrom
    * :obj:`edge_index` long ``[2, 2b]``: covalent bonds, both directions,
      sorted by source, then target
    * :obj:`edge_attr` float ``[2b, 4]``: one-hot bond type (single, double,
      triple, aromatic)
    * :obj:`y` float ``[1, 19]``: all properties in the order and units of
      PyG's :class:`~torch_geometric.datasets.QM9` (energies in eV). The
      rotational constants, columns 16 to 18, are NaN if the source has none.
    * :obj:`idx` long ``[1]``: number of the molecule in QM9 from 0, as in PyG
    * :obj:`charge` long ``[n]``, only if the source has it: formal charges

    Args:
        data (Data): All molecules end to end.
        slices (dict): Where each molecule starts, by attribute.
        source (str): Where they are from.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
    """

    def __init__(self, data: Data, slices: dict[str, Tensor], source: str,
                 transform: Callable[[Data], Data] | None = None) -> None:
        super().__init__(None, read_transform(transform))
        checks.attributes('data', data, 'y')
        if not isinstance(slices, dict):
            raise TypeError(f"Expected 'slices' to be a dict (got "
                            f"{checks.show(slices)})")
        self._data, self.slices = data, slices
        self.source = checks.text('source', source)

    def target(self, name: str) -> Tensor:
        """Return one property of all molecules here, ``[len(self)]``.

        Args:
            name (str): A key of :obj:`TARGETS`.
        """
        checks.choice('name', name, list(TARGETS))
        index = torch.tensor(list(self.indices()), dtype=torch.long)
        return self._data.y[index, TARGETS[name].column]


def load_qm9(source: str = 'sample', root: str | None = None, *,
             limit: int | None = None, seed: int = 0,
             transform: Callable[[Data], Data] | None = None,
             force_reload: bool = False) -> QM9Molecules:
    r"""Load QM9 in one and the same form, wherever it comes from.

    * :obj:`'sample'`: 2,000 molecules that come with this package.
    * :obj:`'pyg'`: PyG's :class:`~torch_geometric.datasets.QM9`, downloaded
      into :obj:`root`: 130,831 molecules, bonds of the original SDF file.
      Which of them are aromatic is found with RDKit where PyG, reading the
      file with RDKit, has single and double ones; kept in :obj:`root`.
    * :obj:`'qm9pack'`: the same molecules from the PyPI package ``qm9pack``;
      bonds by RDKit from the coordinates. Half a minute once, then cached in
      :obj:`root`.
    * a path that ends in :obj:`.npz`: your own file; the layout is described
      in ``npz.py`` beside this file.

    Bonds of the SDF file and of RDKit need not agree on every molecule (what
    counts as aromatic, or as a bond at 1.7 Angstrom): train and test on one.

    Args:
        source (str, optional): See above. (default: :obj:`'sample'`)
        root (str, optional): Folder for downloads and caches; only
            :obj:`'pyg'` and :obj:`'qm9pack'` use it.
            (default: ``~/.cache/pyg_steerable/qm9``)
        limit (int, optional): Keep a random subset of this size, in the
            order of the source (QM9 is sorted by size, so its beginning
            would not be typical). (default: :obj:`None`)
        seed (int, optional): Seed of that choice. (default: :obj:`0`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
        force_reload (bool, optional): Make what is kept in :obj:`root` anew.
            (default: :obj:`False`)

    Several processes may share :obj:`root`: one fills it, others wait.

    Raises:
        ValueError: On an unknown source, a damaged file, or a bad limit.
        FileNotFoundError: If the ``.npz`` file does not exist.
        ImportError: If ``qm9pack`` or RDKit is needed and missing.

    Example:
        >>> dataset = load_qm9('sample')
        >>> len(dataset), dataset[0].y.shape
        (2000, torch.Size([1, 19]))
    """
    limit = None if limit is None else checks.integer('limit', limit)
    seed = checks.integer('seed', seed, 0)
    force_reload = checks.flag('force_reload', force_reload)
    source = checks.path('source', source)
    root = osp.expanduser(checks.path(
        'root', _DEFAULT_ROOT if root is None else root))
    if source == 'pyg':
        data, slices = pyg.read_pyg(root, force_reload)
    elif source == 'qm9pack':
        data, slices = _from_qm9pack(root, force_reload)
    elif source == 'sample':
        data, slices = npz.read_collated(SAMPLE)
    elif source.endswith('.npz'):
        data, slices = npz.read_collated(source)
    else:
        raise ValueError(f"Expected 'source' to be 'sample', 'pyg', 'qm9pack' "
                         f"or a path ending in '.npz' (got {source!r})")
    dataset = QM9Molecules(data, slices, source, transform)
    return dataset if limit is None else _subset(dataset, limit, seed)


def _subset(dataset: QM9Molecules, limit: int, seed: int) -> Any:
    if limit > len(dataset):
        raise ValueError(
            f"Expected 'limit' <= {len(dataset)}, the number of molecules in "
            f'source {dataset.source!r} (got {limit}). Fix: lower it, or use '
            f'a larger source')
    keep = np.random.default_rng(seed).permutation(len(dataset))[:limit]
    return dataset[torch.from_numpy(np.sort(keep))]


def _from_qm9pack(root: str, force_reload: bool
                  ) -> tuple[Data, dict[str, Tensor]]:
    path = osp.join(root, 'qm9pack.npz')
    if force_reload or not osp.isfile(path):
        tables = pack.find_tables()
        with files.locked(root):
            if force_reload or not osp.isfile(path):  # still
                arrays = pack.build_arrays(pack.read_tables(tables),
                                               progress=True)
                npz.check_arrays(arrays, tables)
                save_npz(path, arrays)
    return npz.read_collated(path)


def split_qm9(n: int, seed: int = 0) -> Split:
    r"""Split :obj:`n` molecules as in the papers on QM9.

    One permutation by NumPy's ``RandomState(seed)``, cut into train,
    validation, test. For :obj:`n = 130831` the sizes are 100,000, 17,748 and
    13,083, the split of `"Implicit Convolutional Kernels for Steerable CNNs"
    <https://arxiv.org/abs/2212.06096>`_ and others before it; for other
    :obj:`n` they keep the proportions.

    Args:
        n (int): Number of molecules, at least 10: ``len(dataset)``.
        seed (int, optional): Seed of the permutation. (default: :obj:`0`)

    Example:
        >>> split = split_qm9(len(dataset))
        >>> train, test = dataset[split.train], dataset[split.test]
    """
    n = checks.integer('n', n, 10, 2**26)
    seed = checks.integer('seed', seed, 0, 2**32 - 1)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    num_train, num_test = round(n * 100_000 / 130_831), n // 10
    return Split(order[:num_train], order[num_train:n - num_test],
                 order[n - num_test:])
