"""Figures: JSON files, which are whole or not there, and tables."""
from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.measure import machine


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of another when it is whole."""
    part = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.part')
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_json(path: Path, values: dict) -> None:
    """Writes a file whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(values, indent=2) + '\n')


def load_json(path: Path) -> dict:
    """The values of a file; a ValueError that names it if it is damaged."""
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError('no object')
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected '{path}' to hold a JSON object (got a "
                         f"file that cannot be read: {error}). Delete it, or "
                         f"start again with '--fresh'") from error
    return values


def add_json_option(parser) -> None:
    """The option of save_report()."""
    parser.add_argument('--json', type=Path, default=None, metavar='FILE',
                        help='file to write the figures to (default: none)')


def save_report(args, results) -> None:
    """Writes figures, how they were asked for and the machine to --json."""
    if args.json is not None:
        settings = {k: v for k, v in vars(args).items()
                    if k not in ('json', 'measure')}
        save_json(args.json, {'machine': machine(settings.get('device',
                                                              'cpu')),
                              'settings': settings, 'results': results})


def print_machine(device: str) -> None:
    """One line."""
    print(', '.join(f'{k} {v}' for k, v in machine(device).items()))


def print_row(cells: Iterable) -> None:
    """A row of a table in Markdown."""
    print('| ' + ' | '.join(map(str, cells)) + ' |', flush=True)


def print_head(cells: Iterable) -> None:
    """The first row of a table in Markdown."""
    cells = list(cells)
    print_row(cells)
    print('|---' * len(cells) + '|')
