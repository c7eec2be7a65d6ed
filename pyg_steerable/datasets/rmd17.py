r"""rMD17: frames of molecular dynamics with energies and forces.

The data are from `"On the role of gradients for machine learning of molecular
energies and forces" <https://arxiv.org/abs/2007.09593>`_ (Christensen and von
Lilienfeld, 2020): the molecules of MD17, computed again with PBE/def2-SVP and
tight convergence.

The layout of an ``.npz`` file, of one molecule with :math:`N` atoms:
``nuclear_charges`` ``[N]``, ``coords`` [Angstrom] and ``forces``
[kcal/(mol Angstrom)] ``[n, N, 3]``, ``energies`` [kcal/mol] ``[n]``. All else
in it is left alone.
"""
from __future__ import annotations

import os.path as osp
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import MD17

from .. import checks, files
from .archive import Arrays, load_npz
from .base import Split, read_transform

__all__ = ['MOLECULES', 'RMD17Frames', 'load_rmd17', 'split_rmd17']

#: The molecules that can be downloaded.
MOLECULES = ('aspirin', 'azobenzene', 'benzene', 'ethanol', 'malonaldehyde',
             'naphthalene', 'paracetamol', 'salicylic acid', 'toluene',
             'uracil')
_DEFAULT_ROOT = osp.join('~', '.cache', 'pyg_steerable', 'rmd17')
_KEYS = ('nuclear_charges', 'coords', 'energies', 'forces')
#: Limits far beyond molecules: elements, coordinates, energies and forces.
_LAST_ELEMENT, _FAR, _LARGE = 118, 1e6, 1e12


class RMD17Frames(InMemoryDataset):
    r"""Frames of one molecule; made by :meth:`load_rmd17`.

    Each item is a :class:`~torch_geometric.data.Data` with the attributes of
    PyG's :class:`~torch_geometric.datasets.MD17`,

    * :obj:`z` long ``[N]``: atomic numbers
    * :obj:`pos` float ``[N, 3]``: positions in Angstrom
    * :obj:`energy` double ``[1]``: in kcal/mol. (Of the 97,000 kcal/mol of
      ethanol float32, PyG's choice, keeps steps of 0.008: 0.3 meV.)
    * :obj:`force` float ``[N, 3]``: in kcal/(mol Angstrom)

    Args:
        data (Data): All frames end to end.
        slices (dict): Where each frame starts, by attribute.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
    """
    def __init__(self, data: Data, slices: dict[str, Tensor],
                 transform: Callable[[Data], Data] | None = None) -> None:
        super().__init__(None, read_transform(transform))
        checks.attributes('data', data, 'z', 'pos', 'energy', 'force')
        if not isinstance(slices, dict):
            raise TypeError(f"Expected 'slices' to be a dict (got "
                            f"{checks.show(slices)})")
        self._data, self.slices = data, slices


def load_rmd17(source: str, root: str | None = None, *,
               transform: Callable[[Data], Data] | None = None
               ) -> RMD17Frames:
    r"""Load the frames of one molecule.

    * One of :obj:`MOLECULES`, such as :obj:`'ethanol'`: all 100,000 frames
      (azobenzene: 99,988), downloaded into :obj:`root` by PyG's
      :class:`~torch_geometric.datasets.MD17`: one archive for all molecules.
    * A path that ends in :obj:`.npz`: your own file; the layout is described
      at the top of this file.

    Several processes may share :obj:`root`: one fills it, others wait.

    Args:
        source (str): See above.
        root (str, optional): The folder of the download.
            (default: ``~/.cache/pyg_steerable/rmd17``)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        ValueError: On an unknown source, or a damaged file.
        FileNotFoundError: If the ``.npz`` file does not exist.

    Example:
        >>> dataset = load_rmd17('ethanol')
        >>> split = split_rmd17(len(dataset))
        >>> train, test = dataset[split.train], dataset[split.test]
    """
    source = checks.path('source', source)
    root = osp.expanduser(checks.path(
        'root', _DEFAULT_ROOT if root is None else root))
    read_transform(transform)
    if source in MOLECULES:
        with files.locked(root):
            path = _Download(root, f'revised {source}').raw_paths[0]
    elif source.endswith('.npz'):
        path = source
    else:
        raise ValueError(f"Expected 'source' to be one of "
                         f"{', '.join(MOLECULES)}, or a path ending in "
                         f"'.npz' (got {source!r})")
    arrays = load_npz(path, _KEYS)
    with files.reading(path, 'frames of rMD17'):
        _check(arrays)
        return RMD17Frames(*_collate(arrays), transform)


class _Download(MD17):
    """PyG's data set as far as its raw files."""
    def _process(self) -> None:
        pass

    def load(self, path: str, data_cls: Any = Data) -> None:
        pass


def _check(arrays: Arrays) -> None:
    """Raises a ValueError on the first thing that is wrong."""
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f'Expected the keys {list(_KEYS)} (got no '
                         f'{missing})')
    z, pos = arrays['nuclear_charges'], arrays['coords']
    if z.dtype.kind not in 'iu' or z.ndim != 1 or not len(z):
        raise ValueError(f"Expected 'nuclear_charges' to be integers, one "
                         f"for each atom (got {z.dtype} of shape {z.shape})")
    if (z < 1).any() or (z > _LAST_ELEMENT).any():
        raise ValueError(f"Expected 'nuclear_charges' from 1 to "
                         f"{_LAST_ELEMENT} (got {z.min()} to {z.max()})")
    num = len(pos) if pos.ndim else 0
    if not num:
        raise ValueError(f"Expected 'coords' of one frame or more (got shape "
                         f"{pos.shape})")
    for key, shape, most in (('coords', (num, len(z), 3), _FAR),
                             ('energies', (num, ), _LARGE),
                             ('forces', (num, len(z), 3), _LARGE)):
        value = arrays[key]
        if value.dtype.kind not in 'iuf' or value.shape != shape:
            raise ValueError(f"Expected '{key}' to be numbers of shape "
                             f"{shape}, for {num} frames of {len(z)} atoms "
                             f"(got {value.dtype} of shape {value.shape})")
        good = np.abs(value.astype(np.float64)) <= most
        if not good.all():
            raise ValueError(f"Expected '{key}' to be finite, and at most "
                             f"{most:g} (got {value[~good].flat[0]})")


def _collate(arrays: Arrays) -> tuple[Data, dict[str, Tensor]]:
    """All frames end to end, and where each one starts."""
    z = torch.from_numpy(arrays['nuclear_charges'].astype(np.int64))
    num = len(arrays['coords'])

    def flat(key: str) -> Tensor:
        return torch.from_numpy(arrays[key].astype(np.float32)).flatten(0, 1)

    data = Data(z=z.repeat(num), pos=flat('coords'), force=flat('forces'),
                energy=torch.from_numpy(
                    arrays['energies'].astype(np.float64)))
    frames = torch.arange(num + 1)
    return data, {key: frames if key == 'energy' else len(z) * frames
                  for key in data.keys()}


def split_rmd17(n: int, num_train: int = 950, num_valid: int = 50,
                num_test: int = 1000, seed: int = 0) -> Split:
    r"""Split :obj:`n` frames at random. The data's authors ask for at most
    1,000 frames to train and validate with, as frames of one trajectory are
    alike.

    Args:
        n (int): Number of frames: ``len(dataset)``.
        num_train, num_valid, num_test (int, optional): How many.
            (default: :obj:`950`, :obj:`50`, :obj:`1000`)
        seed (int, optional): Seed of the permutation, of NumPy's
            ``RandomState``. (default: :obj:`0`)

    Raises:
        ValueError: If there are not so many frames.
    """
    n = checks.integer('n', n, 1, 2**26)
    seed = checks.integer('seed', seed, 0, 2**32 - 1)
    sizes = [checks.integer(name, size, 0) for name, size in (
        ('num_train', num_train), ('num_valid', num_valid),
        ('num_test', num_test))]
    if sum(sizes) > n:
        raise ValueError(f"Expected 'num_train', 'num_valid' and 'num_test' "
                         f"of at most {n} frames in all (got {sizes})")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))
    return Split(*order[:sum(sizes)].split(sizes))
