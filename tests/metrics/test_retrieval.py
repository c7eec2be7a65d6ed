"""Mean average precision, against torchmetrics and by hand."""
import pytest
import torch

from pyg_steerable.metrics import mean_average_precision, retrieve

torchmetrics = pytest.importorskip('torchmetrics.retrieval')


def random_lists(n, num_classes, length):
    label = torch.cat([torch.arange(num_classes),
                       torch.randint(num_classes, (n - num_classes, ))])
    return [torch.randperm(n)[:length] for _ in range(n)], label


def theirs(lists, label, queries):
    """What torchmetrics says of some of the lists."""
    number, score, hit = [], [], []
    for i in queries:
        number.append(torch.full((len(lists[i]), ), i))
        score.append(1 / torch.arange(1., 1 + len(lists[i])))
        hit.append(label[lists[i]] == label[i])
    return float(torchmetrics.RetrievalMAP()(
        torch.cat(score), torch.cat(hit), indexes=torch.cat(number)))


@pytest.mark.parametrize('n, num_classes', [(30, 4), (50, 2), (12, 12)])
def test_complete_lists(n, num_classes):
    lists, label = random_lists(n, num_classes, n)
    ours = mean_average_precision(lists, label)
    assert ours.micro == pytest.approx(theirs(lists, label, range(n)),
                                       abs=1e-6)
    # Macro: of each class of queries, then over classes.
    parts = [theirs(lists, label, (label == k).nonzero().flatten().tolist())
             for k in range(num_classes)]
    assert ours.macro == pytest.approx(sum(parts) / len(parts), abs=1e-6)


def test_lists_that_lack_items():
    """Those of the contest end: what is not found counts as missing. For
    torchmetrics only what is in a list is relevant.
    """
    n = 40
    lists, label = random_lists(n, 3, 15)
    ours = mean_average_precision(lists, label)
    precision, of_found = [], []
    for i, found in enumerate(lists):
        hits = [k for k, j in enumerate(found.tolist(), 1)
                if label[j] == label[i]]
        sums = sum(m / k for m, k in enumerate(hits, 1))
        precision.append(sums / int((label == label[i]).sum()))
        of_found.append(sums / max(1, len(hits)))
    assert ours.micro == pytest.approx(sum(precision) / n)
    other = theirs(lists, label, range(n))
    assert other == pytest.approx(sum(of_found) / n, abs=1e-6)
    assert other > ours.micro + 0.1


def test_perfect_scores():
    label = torch.randint(5, (60, ))
    scores = torch.nn.functional.one_hot(label, 5) + 0.1 * torch.rand(60, 5)
    found = mean_average_precision(retrieve(scores), label)
    assert found == (1., 1.)
