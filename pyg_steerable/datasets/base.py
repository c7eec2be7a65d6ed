"""What data sets share: items with classes, parts of them, splits."""
from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Dataset

from .. import checks

__all__ = ['Split']

Rows = Tensor | list


class Split(NamedTuple):
    """Positions in a dataset, three long tensors without overlap."""

    train: Tensor
    valid: Tensor
    test: Tensor


class LabelledDataset(Dataset):
    r"""Items with classes; a data set is a subclass that makes one item in
    :meth:`get`.

    It is a :class:`torch_geometric.data.Dataset`: an integer gives an item,
    to which :obj:`transform` is applied; a slice, a list, a mask or a tensor
    of positions gives the part that holds these items, and so do
    :meth:`index_select` and :meth:`shuffle`. Parts share memory until they
    are copied.

    Args:
        label (Tensor): The class of each item.
        classes (list[str]): The names of the classes.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)
        **columns (Tensor or list): What else there is of each item, by name:
            for :meth:`get`.

    Shapes:
        - **label:** :math:`[n]`

    Raises:
        ValueError: If there are not as many labels as items, or a label has
            no class.
    """
    def __init__(self, label: Tensor, classes: Sequence[str],
                 transform: Callable | None = None, **columns: Rows):
        super().__init__(transform=read_transform(transform))
        self.classes = checks.texts('classes', classes)
        num = len(next(iter(columns.values()), label))
        label = checks.labels('label', label, num, self.classes)
        self._columns: dict[str, Rows] = {'label': label, **columns}

    def len(self) -> int:
        """The number of items, of which a part has fewer."""
        return len(self._columns['label'])

    def _column(self, name: str) -> Any:
        """One entry for each item that is here, in order."""
        rows = self._columns[name]
        if self._indices is None:
            return rows
        here = list(self._indices)
        return rows[here] if isinstance(rows, Tensor) else [
            rows[i] for i in here]

    def _entry(self, name: str, idx: int) -> Any:
        """That of one item of the whole set, a copy: for :meth:`get`."""
        idx = checks.integer('idx', idx, 0, self.len() - 1)
        return _copied(self._columns[name][idx])

    @property
    def label(self) -> Tensor:
        """The classes of the items."""
        return self._column('label')

    @property
    def y(self) -> Tensor:
        """The same, under the name that PyG's datasets have for them."""
        return self.label

    @property
    def num_classes(self) -> int:
        """The number of classes, with those that no item here has."""
        return len(self.classes)

    def counts(self) -> Tensor:
        """The number of items of each class."""
        return self.label.bincount(minlength=len(self.classes))

    def __getitem__(self, idx: Any) -> Any:
        position = _number(idx)
        try:
            if position is None:
                return self.index_select(idx)
            position = checks.integer('index', position, -len(self),
                                      len(self) - 1)
        except ValueError as error:  # Python's word for what is not there
            raise IndexError(str(error)) from error
        return super().__getitem__(position)

    def index_select(self, idx: Any) -> LabelledDataset:
        """The part with these items, by a slice (:obj:`data[:0.8]`, too), a
        mask, a list or a tensor of positions.

        Raises:
            ValueError: If a position is not there.
            TypeError: If it is none of these.
        """
        if not isinstance(idx, slice):
            idx = read_positions('index', idx, len(self)).tolist()
        return super().index_select(idx)

    def subset(self, index: Any, transform: Callable | None = None
               ) -> LabelledDataset:
        """The part with these items, by positions or a mask, with a
        transform of its own.

        Raises:
            ValueError: If a position is not there.
        """
        part = self.index_select(index)
        part.transform = read_transform(transform)
        return part

    def copy(self, idx: Any = None) -> LabelledDataset:
        """These items, or some of them, in memory of their own."""
        part = self if idx is None else self.index_select(idx)
        out = copy.copy(part)
        out._columns = {name: _copied(part._column(name))
                        for name in part._columns}
        out._indices = None
        return out


def read_transform(value: Any) -> Callable | None:
    """Something to call with every item, or nothing."""
    if value is not None and not callable(value):
        raise TypeError(f"Expected 'transform' to be callable or None (got "
                        f"{checks.show(value)})")
    return value


def read_positions(name: str, value: Any, num: int) -> Tensor:
    """The positions of some of so many items, from integers, which may count
    from the end, or a mask.
    """
    if isinstance(value, range):
        value = list(value)
    try:
        value = torch.as_tensor(value)
    except Exception as error:
        raise TypeError(f"Expected '{name}' to be a list or a tensor of "
                        f"integers, or a mask (got {checks.show(value)})"
                        ) from error
    if not value.numel():
        return torch.empty(0, dtype=torch.long)
    if value.dtype == torch.bool:
        return checks.shaped(name, value, (num, ), f'[{num}] as mask'
                             ).nonzero().flatten()
    checks.tensor(name, value, checks.INTEGERS, 'integers or a mask')
    if value.dim():  # as in mask.nonzero()
        value = value.flatten()
    checks.shaped(name, value, (None, ), '[M]')
    value = checks.has_values(name, value, 'which items').long()
    if not bool(((value >= -num) & (value < num)).all()):
        raise ValueError(f"Expected '{name}' in [{-num}, {num}) (got values "
                         f"from {int(value.min())} to {int(value.max())})")
    return value % num


def _number(value: Any) -> int | None:
    """An integer from anything that is one, also a tensor of one number."""
    if getattr(value, 'ndim', 0):
        return None
    try:
        return operator.index(value)
    except Exception:  # of whatever was given
        return None


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
