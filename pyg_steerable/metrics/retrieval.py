"""Shape retrieval: lists, and how good they are."""
from __future__ import annotations

import os
import os.path as osp
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_steerable import checks, files

#: Lists are no longer than this, by the rules of the contest.
MAX_RETRIEVED = 1000


class MeanAveragePrecision(NamedTuple):
    """Over all queries, and over classes of queries."""
    micro: float
    macro: float


def retrieve(scores: Tensor) -> list[Tensor]:
    r"""For each item all items of the same predicted class, the one with
    the highest score of that class first: the lists of the `"3D Steerable
    CNNs" <https://arxiv.org/abs/1807.02547>`_ paper.

    Args:
        scores (Tensor): The scores of the classes.

    Shapes:
        - **scores:** :math:`[n, K]`
    """
    checks.tensor('scores', scores)
    if scores.dim() != 2 or not scores.shape[1]:
        raise ValueError(f"Expected 'scores' of shape [n, K], K not zero "
                         f"(got {list(scores.shape)})")
    checks.has_values('scores', scores, 'the order')
    checks.finite('scores', scores, 'item')
    best, kind = scores.max(1)
    order = best.argsort(descending=True, stable=True)
    lists = [order[kind[order] == k][:MAX_RETRIEVED]
             for k in range(scores.shape[1])]
    return [lists[k] for k in kind.tolist()]


def mean_average_precision(lists: Sequence[Tensor], label: Tensor
                           ) -> MeanAveragePrecision:
    r"""How well lists find what is of the class of the query,

    .. math::
        AP = \frac{1}{R} \sum_{k: \, k \text{th is relevant}}
        \frac{\text{relevant among the first } k}{k}

    with :math:`R` relevant items in all.

    Args:
        lists (list[Tensor]): The items found for each, best first.
        label (Tensor): The true classes.

    Shapes:
        - **label:** :math:`[n]`

    Raises:
        ValueError: If there are not as many lists as labels, or an item of
            a list is not there.
    """
    lists = _lists(lists, len(checks.indices(
        'label', label, checks.MAX_CLASSES)))
    label = checks.has_values('label', label, 'precision').long().cpu()
    counts = label.bincount()
    precision = torch.zeros(len(lists), dtype=torch.float64)
    for i, found in enumerate(lists):
        hit = label[found] == label[i]
        rank = hit.nonzero().flatten().double() + 1
        number = torch.arange(1, len(rank) + 1)
        precision[i] = (number / rank).sum() / counts[label[i]]
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add(
        0, label, precision)
    some = counts > 0
    return MeanAveragePrecision(float(precision.mean()),
                                float((sums[some] / counts[some]).mean()))


def write_retrieval_lists(folder: str, lists: Sequence[Tensor],
                          names: Sequence[str]) -> None:
    """Writes lists as the contest's own evaluation reads them: for each
    item a file of its name, with a name and a distance (here the rank) on
    each line. Each file is written whole or not at all.

    Args:
        folder (str): Where to write; made if there is none.
        lists (list[Tensor]): The items found for each, best first.
        names (list[str]): The names of all items, without folders.

    Raises:
        ValueError: If there are not as many lists as names, an item of a
            list is not there, or a name is no file name or there twice.
    """
    folder = checks.path('folder', folder)
    names = [files.component('names', name)
             for name in checks.sequence('names', names)]
    if len(set(names)) < len(names):
        raise ValueError("Expected each of 'names' once (got some again)")
    lists = _lists(lists, len(names))
    os.makedirs(folder, exist_ok=True)
    for name, found in zip(names, lists):
        with files.writing(osp.join(folder, name)) as part, open(
                part, 'x') as f:
            f.writelines(f'{names[j]} {rank}\n'
                         for rank, j in enumerate(found.tolist()))


def _lists(lists: Sequence[Tensor], num: int) -> list[Tensor]:
    """A list of some of all items for each of them."""
    lists = checks.sequence('lists', lists)
    if len(lists) != num:
        raise ValueError(f"Expected 'lists' of {num} items, one for each "
                         f"(got {len(lists)})")
    return [checks.has_values('lists', checks.indices('lists', found, num),
                              'what is found').cpu() for found in lists]
