"""What a network of the comparison is."""
from __future__ import annotations

import torch
from torch_geometric.data import Data

from benchmarks.tasks import Task

#: By name.
NETWORKS: dict[str, type[Network]] = {}


class Network:
    """A network for some tasks. A subclass with a name is known from then on.

    .. code-block:: python

        class Mean(Network, name='mean', tasks=['qm9']):
            def build(self, task):
                return MyModule(task.out_channels)
    """
    name: str
    tasks: list[str]
    #: The symmetry that it is built for, if any.
    group: str | None = None

    def __init_subclass__(cls, name: str, tasks: list[str]):
        if name in NETWORKS:
            raise ValueError(f"Expected 'name' to be a new one (got {name!r})")
        cls.name, cls.tasks = name, tasks
        NETWORKS[name] = cls

    def prepare(self, task: Task, data: Data) -> Data:
        """The graph that the network works on, made once for each sample
        before training.
        """
        return data

    def build(self, task: Task) -> torch.nn.Module:
        """A module that takes a batch and returns what :obj:`task` asks
        for.
        """
        raise NotImplementedError

    def start(self, task: Task, net: torch.nn.Module, batch: Data) -> None:
        """What is measured on some training samples before training."""
