"""With torch_cluster and torch_scatter, as users of PyG have them."""
import pytest
import torch
from scipy.spatial import cKDTree

from pyg_steerable import FieldType
from pyg_steerable.nn import HarmonicSteerableConv, ImplicitSteerableConv

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings('ignore::DeprecationWarning'),
    pytest.mark.filterwarnings('ignore::FutureWarning'),
]


@pytest.mark.parametrize('cls', [ImplicitSteerableConv,
                                 HarmonicSteerableConv])
@pytest.mark.parametrize('aggr', ['sum', 'mean'])
def test_conv_against_torch_scatter(cls, aggr):
    cluster = pytest.importorskip('torch_cluster')
    scatter = pytest.importorskip('torch_scatter')
    pos = torch.randn(200, 3, dtype=torch.double)
    edge_index = cluster.knn_graph(pos, k=8)
    _, near = cKDTree(pos).query(pos, 9)
    for i in range(200):
        found = set(edge_index[0, edge_index[1] == i].tolist())
        assert found == set(near[i, 1:].tolist())
    field_type = FieldType('4x0e + 2x1o', 'SO(2)xM')
    conv = cls(field_type, field_type, aggr=aggr).double().eval()
    x = torch.randn(200, field_type.dim, dtype=torch.double)
    src, dst = edge_index
    message = (conv.kernel(pos[src] - pos[dst]) @ x[src, :, None])[..., 0]
    expected = scatter.scatter(message, dst, 0, dim_size=200, reduce=aggr)
    out = conv(x, pos, edge_index)
    assert torch.allclose(out, expected + conv.lin(x), atol=1e-10)


def test_messages_equal_the_fast_path():
    """Their presence changes no result."""
    pytest.importorskip('torch_scatter')
    field_type = FieldType('4x0e + 2x1o')
    conv = ImplicitSteerableConv(field_type, field_type).eval()
    x, pos = torch.randn(30, field_type.dim), torch.randn(30, 3)
    edge_index = torch.randint(30, (2, 200))
    fast = conv(x, pos, edge_index)
    conv.backend = 'reference'
    assert torch.allclose(conv(x, pos, edge_index), fast, atol=1e-5)
