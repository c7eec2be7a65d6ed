"""Shape retrieval: lists, and how good they are."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import checks

__all__ = ['mean_average_precision', 'retrieve']

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

    with :math:`R` relevant items in all, found or not: torchmetrics'
    :obj:`RetrievalMAP`, which agrees for complete lists, divides by those
    found, so that a list of one hit would be perfect.

    Args:
        lists (list[Tensor]): The items found for each, best first.
        label (Tensor): The true classes.

    Shapes:
        - **label:** :math:`[n]`

    Raises:
        ValueError: If there are not as many lists as labels, or an item of
            a list is not there.
    """
    lists = read_lists(lists, len(checks.indices(
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


def read_lists(lists: Sequence[Tensor], num: int) -> list[Tensor]:
    """What is found for each of so many items: lists of some of them."""
    lists = checks.sequence('lists', lists)
    if len(lists) != num:
        raise ValueError(f"Expected 'lists' of {num} items, one for each "
                         f"(got {len(lists)})")
    return [checks.has_values('lists', checks.indices('lists', found, num),
                              'what is found').cpu() for found in lists]
