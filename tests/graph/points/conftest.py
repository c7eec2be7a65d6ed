import pytest

from pyg_steerable.graph.points.engines import ENGINES


@pytest.fixture(params=ENGINES)
def engine(request):
    if request.param in ('torch_cluster', 'pyg_lib'):
        pytest.importorskip(request.param)
    return request.param
