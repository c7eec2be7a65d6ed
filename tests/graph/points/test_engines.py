import importlib.util

import pytest
import torch

from pyg_steerable.graph import (
    knn_graph,
    radius_graph,
)
from pyg_steerable.graph.points import engines

pytestmark = [
    pytest.mark.filterwarnings('ignore:.*fewer than k:UserWarning'),
    pytest.mark.filterwarnings('ignore:.*torch_cluster.*:DeprecationWarning'),
    pytest.mark.filterwarnings('ignore:.*are about as far apart:UserWarning'),
]


def test_auto():
    cpu = torch.device('cpu')
    assert engines.choose_engine('auto', cpu, 3) is engines.Trees
    assert engines.choose_engine('auto', cpu, 64) is engines.BruteForce
    gpu = engines.choose_engine('auto', torch.device('cuda'), 3)
    assert issubclass(gpu, (engines.Compiled, engines.BruteForce))
    x = torch.randn(3000, 3)
    assert knn_graph(x, 16).equal(knn_graph(x, 16, engine='torch'))
    assert radius_graph(x, .4).equal(radius_graph(x, .4, engine='torch'))


@pytest.mark.parametrize('name', ['torch_cluster', 'pyg_lib'])
def test_missing_engine(name):
    if importlib.util.find_spec(name) is not None:
        pytest.skip('it is installed')
    with pytest.raises(ImportError, match='Install it'):
        knn_graph(torch.randn(5, 3), 2, engine=name)


def test_memory_of_brute_force_is_linear():
    """There is no table of all distances."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(t, torch.Tensor):
                    size = t.untyped_storage().nbytes() // t.element_size()
                    self.numel = max(self.numel, size)
            return out

    x = torch.rand(4000, 3)
    with Largest() as largest:
        knn_graph(x, 4, engine='torch')
    assert largest.numel <= engines.TABLE_SIZE['cpu'] < 4000**2 / 10
