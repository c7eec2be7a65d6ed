"""Archives of arrays, written whole and read with clear errors.

They are read here rather than by :func:`numpy.load`: sizes are compared with
what is there before anything is allocated, and of what NumPy can store only
plain arrays of numbers and strings are taken.
"""
from __future__ import annotations

import os.path as osp
import re
import zipfile
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import files

Arrays = dict[str, NDArray[Any]]

_MAGIC = b'\x93NUMPY'
# What NumPy writes: descr is a type of one of the kinds bool, int, uint,
# float, bytes and string, a shape is numbers (with an L by Python 2).
_HEADER = re.compile(
    rb"\{\s*'descr':\s*'([<>|=]?[biufSU]\d+)',\s*'fortran_order':\s*"
    rb"(True|False),\s*'shape':\s*\(([\d\sL,]*)\)\s*,?\s*\}\s*")


def save_npz(path: str, arrays: Arrays) -> None:
    """Write a compressed ``.npz``; a killed run leaves no half file."""
    with files.writing(path) as part, open(part, 'xb') as f:
        np.savez_compressed(f, **arrays)  # type: ignore[arg-type]


def load_npz(path: str, keys: Sequence[str]) -> Arrays:
    """Those arrays of a file that :obj:`keys` names and that are there.

    Args:
        path (str): The ``.npz`` file.
        keys (list[str]): The arrays to read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or of another kind, holds objects,
            is encrypted, or unpacks to more than a hundred times its size
            (and 32 MiB).
    """
    path = files.existing('path', path, 'an .npz file')
    with files.reading(
            path, 'a complete .npz archive of plain arrays', 'the file is '
            'damaged or of another kind; delete it and make or download it '
            'again'), open(path, 'rb') as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            raise ValueError('a single .npy array')
        with zipfile.ZipFile(file) as archive:
            there = {info.filename: info for info in archive.infolist()}
            found = {key: there[f'{key}.npy'] for key in keys
                     if f'{key}.npy' in there}
            size = sum(info.file_size for info in found.values())
            if size > (most := files.limit(path)):
                raise ValueError(
                    f'arrays of {size} bytes packed into '
                    f"{osp.getsize(path)}, where {most} are allowed; if they "
                    f"are yours, store them by 'numpy.savez'")
            return {key: _array(archive, info, key)
                    for key, info in found.items()}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str
           ) -> NDArray[Any]:
    if info.flag_bits & 1:
        raise ValueError(f"'{key}' encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{key}' packed in a way that NumPy does not use")
    with archive.open(info) as file:
        start = file.read(8)
        wide = 2 if start[6:7] == b'\1' else 4
        length = int.from_bytes(file.read(wide), 'little')
        rest = info.file_size - len(start) - wide
        if start[:6] != _MAGIC or start[6:7] not in b'\1\2' or (
                length > min(rest, 2**16)):
            raise ValueError(f"'{key}' not in NumPy's format")
        header = file.read(length)
        match = _HEADER.fullmatch(header)
        if match is None:
            raise ValueError(f"'{key}' with the header {header[:99]!r}, "
                             f"which is no plain array of numbers or strings")
        dtype = np.dtype(match[1].decode())
        shape = tuple(int(n) for n in re.findall(rb'\d+', match[3]))
        if dtype.itemsize * prod(shape) != rest - length or len(shape) > 32:
            raise ValueError(f"'{key}' of {dtype} and shape {list(shape)} in "
                             f"{rest - length} bytes")
        data = bytearray(rest - length)
        view = memoryview(data)
        while len(view):
            part = file.read(min(len(view), 2**20))
            if not part:
                raise EOFError(f"'{key}' ends too early")
            view[:len(part)] = part
            view = view[len(part):]
        file.read(1)  # the end, where zipfile compares the checksum
    array = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    array = array.reshape(shape, order='F' if match[2] == b'True' else 'C')
    return array.astype(dtype.newbyteorder('='), copy=False)

