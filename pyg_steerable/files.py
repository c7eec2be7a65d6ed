"""Files that somebody else may have made: read within limits, with errors
that name them; written whole; found only where they should be.
"""
from __future__ import annotations

import gzip
import os
import os.path as osp
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyg_steerable import checks

#: What is packed may unpack to so many bytes in any case,
SMALL = 2**25
#: and to so many times the size of its file.
RATIO = 100
_NEWLINE = re.compile(r'\r\n|\r|\n')
_BOMS = {b'\xff\xfe\0\0': 'utf-32', b'\0\0\xfe\xff': 'utf-32',
         b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16',
         b'\xef\xbb\xbf': 'utf-8-sig'}


def existing(name: str, path: Any, what: str) -> str:
    """The path of a file that exists, from an argument of this name."""
    path = checks.path(name, path)
    if not osp.isfile(path):
        kind = ('is a folder' if osp.isdir(path) else 'is no regular file'
                if osp.exists(path) else 'does not exist')
        raise FileNotFoundError(f"Expected '{name}' to be {what} (got "
                                f"'{path}', which {kind}). Fix: check the "
                                f"path")
    return path


@contextmanager
def reading(path: str, expected: str, fix: str = '') -> Iterator[None]:
    """Whatever a parser raises inside is a ValueError that names the file.
    Missing packages and files, and Ctrl-C, pass.
    """
    try:
        yield
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(path):
            raise  # has been named already
        message = str(error)
        if not message.startswith('Expected'):
            kind = '' if type(error) is ValueError else (
                f'{type(error).__name__}: ')
            message = f'expected {expected} (got {kind}{message})'
        raise ValueError(f"{path}: {message}{'. Fix: ' if fix else ''}{fix}"
                         ) from error


def limit(path: str) -> int:
    """The number of bytes that this file may unpack to."""
    return max(SMALL, RATIO * osp.getsize(path))


def read_bytes(path: str) -> bytes:
    """The content of a file, unpacked if its name ends in ``.gz``."""
    if not path.lower().endswith('.gz'):
        with open(path, 'rb') as file:
            return file.read()
    most = limit(path)
    with gzip.open(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f'more than {most} bytes packed into '
                         f'{osp.getsize(path)}; if they are yours, unpack '
                         f'them')
    return data


def read_text(path: str) -> str:
    """The same as text with ``\\n`` between lines: UTF-16 or -32 with a byte
    order mark, UTF-8, or else Latin-1, in which every byte is a character.
    """
    data = read_bytes(path)
    codec = next((c for bom, c in _BOMS.items() if data.startswith(bom)), '')
    try:
        text = data.decode(codec or 'utf-8')
    except UnicodeDecodeError:
        if codec:
            raise
        text = data.decode('latin-1')
    return _NEWLINE.sub('\n', text.lstrip('\ufeff'))


def component(name: str, value: Any) -> str:
    """A file name that is one component of a path, from a list in a file."""
    checks.text(name, value)
    if (not value or value in ('.', '..') or set(value) & set('/\\:\0')
            or not value.isprintable() or len(os.fsencode(value)) > 240):
        raise ValueError(f"Expected '{name}' to be a file name without "
                         f"folders (got {value[:99]!r})")
    return value


def inside(root: str, name: str) -> str:
    """The path of a file in a folder; no link may lead out of it."""
    path = osp.join(root, name)
    home = osp.realpath(root)
    if osp.islink(path) and osp.commonpath([home, osp.realpath(path)]
                                           ) != home:
        raise ValueError(f"{path}: expected a file inside of '{root}' (got a "
                         f"link that leads out of it). Fix: copy the file")
    return path


@contextmanager
def writing(path: str) -> Iterator[str]:
    """The name of a new file beside :obj:`path`, which takes its place at
    the end: nobody sees half of it, and it does not follow links.
    """
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    part = f'{path}.{uuid.uuid4().hex[:12]}.part'
    try:
        yield part
        os.replace(part, path)
    finally:
        if osp.exists(part):
            os.remove(part)


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Waits until no other process fills this folder."""
    from filelock import FileLock  # torch brings it
    os.makedirs(root, exist_ok=True)
    with FileLock(osp.join(root, '.lock')):
        yield
