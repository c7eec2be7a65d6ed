"""Archives of arrays, written whole and read with clear errors."""
from __future__ import annotations

import os
import os.path as osp
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def save_npz(path: str, arrays: Arrays) -> None:
    """Write a compressed ``.npz``; a killed run leaves no half file."""
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    part = f'{path}.{os.getpid()}.part'
    try:
        with open(part, 'wb') as f:
            np.savez_compressed(f, **arrays)
        os.replace(part, path)
    finally:
        if osp.exists(part):
            os.remove(part)


def load_npz(path: str, keys: Sequence[str]) -> Arrays:
    """Those arrays of a file that :obj:`keys` names and that are there.

    Args:
        path (str): The ``.npz`` file.
        keys (list[str]): The arrays to read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or of another kind.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f"Expected an .npz file (got '{path}', which "
                                f"does not exist). Fix: check the path")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError('a single .npy array')
        with archive:
            return {key: archive[key] for key in keys if key in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError,
            KeyError, NotImplementedError) as e:
        raise ValueError(
            f'{path}: expected a complete .npz archive of plain arrays (got '
            f'{type(e).__name__}: {e}). Fix: the file is damaged or of '
            f'another kind; delete it and make or download it again') from e
