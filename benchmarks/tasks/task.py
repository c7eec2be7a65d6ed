"""What a task of the comparison is."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch_geometric.data import Data

#: By name.
TASKS: dict[str, type[Task]] = {}


class Task:
    """Three parts of a data set, and how to judge what a network makes of
    them. A subclass with a name is known from then on.

    Args:
        args (Namespace): The command line: :obj:`npz`, the files;
            :obj:`train`, samples to train on; :obj:`valid`, samples to
            validate on, the test has no more; :obj:`target`, what to learn,
            where there is a choice.
    """
    name: str
    #: Of each error; networks are chosen by the first one.
    units: dict[str, str]
    out_channels = 1
    #: Whether what is learned is a sum over atoms.
    extensive = False
    #: Applied at every access to a sample, if any.
    transform = None
    parts: dict[str, Sequence[Data]]

    def __init_subclass__(cls, name: str):
        TASKS[name] = cls
        cls.name = name

    def __init__(self, args):
        raise NotImplementedError

    def loss(self, out, batch: Data) -> Tensor:
        """What is minimised."""
        raise NotImplementedError

    def errors(self, out, batch: Data) -> dict[str, Tensor]:
        """The errors of single samples, which are averaged, by name, in
        :obj:`units`.
        """
        raise NotImplementedError

    def types(self, group: str) -> tuple[dict, list]:
        """What a group acts on in a batch, by key, and of what networks
        return: types of :func:`pyg_steerable.testing.equivariance_error`.
        """
        return {'pos': 'pos'}, [None]


def read_files(args, number: int, what: str) -> list[Path]:
    """The files of the command line, if they are so many."""
    if len(args.npz) != number:
        raise ValueError(f"Expected {number} file(s) of '--npz' for "
                         f"{args.task}, {what} (got {len(args.npz)})")
    return args.npz


def first(indices: Sequence, count: int, option: str) -> list[int]:
    """The first ones, if there are so many."""
    if not 0 < count <= len(indices):
        raise ValueError(f"Expected '--{option}' to be at most "
                         f"{len(indices)}, the samples that there are (got "
                         f"{count})")
    return [int(i) for i in indices[:count]]
