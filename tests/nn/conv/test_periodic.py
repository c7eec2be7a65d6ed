"""Periodic edges through layers, transforms, levels and models."""
import pytest
import torch
from helpers.periodic import crystal, edges
from torch_geometric.nn import HeteroConv

from pyg_steerable import Group
from pyg_steerable.nn import (
    HarmonicSteerableConv,
    ImplicitSteerableConv,
)

CONVS = [ImplicitSteerableConv, HarmonicSteerableConv]


def convolution(cls, **kwargs):
    conv = cls('2x0e + 1x1o', '1x0e + 2x1o + 1x2e', group='O(3)', radius=1.5,
               **kwargs)
    return conv.double().eval()


@pytest.mark.parametrize('cls', CONVS)
@pytest.mark.parametrize('order', ['aggregate', 'source', 'reference'])
@pytest.mark.parametrize('aggr', ['sum', 'mean'])
def test_a_shift_is_another_place_of_the_neighbour(cls, order, aggr):
    """Images as nodes of their own give the same."""
    _, pos, cell = crystal()
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    assert (edge_index[0] == edge_index[1]).any()  # of an atom to its image
    way = 'backend' if order == 'reference' else 'order'
    conv = convolution(cls, aggr=aggr, **{way: order})
    out = conv(x, pos, edge_index, edge_shift=shift)
    source, target = edge_index
    alone = torch.stack([torch.arange(len(source)), target])
    expected = conv((x[source], x), (pos[source] + shift, pos), alone)
    assert torch.allclose(out, expected, atol=1e-12)
    assert (out - conv(x, pos, edge_index)).abs().max() > 1e-2


@pytest.mark.parametrize('cls', CONVS)
@pytest.mark.parametrize('backend', ['auto', 'reference'])
def test_shift_and_flow(cls, backend):
    _, pos, cell = crystal()
    x = torch.randn(len(pos), 5).double()
    forth = convolution(cls, backend=backend)
    back = convolution(cls, backend=backend, flow='target_to_source')
    back.load_state_dict(forth.state_dict())
    edge_index, shift = edges(pos, cell)
    turned, same = edges(pos, cell, flow='target_to_source')
    assert torch.equal(turned, edge_index.flip(0)) and torch.equal(same,
                                                                   shift)
    out = forth(x, pos, edge_index, edge_shift=shift)
    assert torch.allclose(back(x, pos, turned, edge_shift=same), out,
                          atol=1e-12)
    # The same between two sets of nodes.
    pair, x_pair = (pos, pos.clone()), (x, x)
    assert torch.allclose(forth(x_pair, pair, edge_index, edge_shift=shift),
                          out, atol=1e-12)
    assert torch.allclose(back(x_pair, pair, turned, edge_shift=same), out,
                          atol=1e-12)


@pytest.mark.parametrize('cls', CONVS)
def test_shifts_rotate(cls):
    _, pos, cell = crystal()
    conv = convolution(cls)
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    out = conv(x, pos, edge_index, edge_shift=shift)
    for R in Group('O(3)').sample(3):
        moved = conv(conv.in_type.transform(x, R), pos @ R.T + 1, edge_index,
                     edge_shift=shift @ R.T)
        assert torch.allclose(moved, conv.out_type.transform(out, R),
                              atol=1e-10)


def test_hooks_compile_and_hetero_take_shifts():
    _, pos, cell = crystal()
    conv = convolution(HarmonicSteerableConv)
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    out = conv(x, pos, edge_index, edge_shift=shift)
    handle = conv.register_message_forward_hook(lambda *args: args[-1])
    assert torch.allclose(conv(x, pos, edge_index, edge_shift=shift), out)
    handle.remove()
    whole = torch.compile(conv, fullgraph=True, backend='aot_eager')
    assert torch.allclose(whole(x, pos, edge_index, edge_shift=shift), out)
    key = ('a', 'to', 'a')
    hetero = HeteroConv({key: conv})
    got = hetero({'a': x}, {'a': pos}, {key: edge_index},
                 edge_shift_dict={key: shift})
    assert torch.allclose(got['a'], out)


def test_precision_of_shifts():
    """Half precision positions are not added up in it."""
    conv = convolution(HarmonicSteerableConv).float()
    x, pos = torch.randn(2, 5), torch.tensor([[0., 0, 0], [100.3, 0, 0]])
    edge_index = torch.tensor([[1], [0]])
    near = conv(x, torch.tensor([[0., 0, 0], [.3125, 0, 0]]), edge_index)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        p = pos.to(dtype)
        shift = torch.tensor([[0.3125 - float(p[1, 0]), 0, 0]])
        moved = conv(x, p, edge_index, edge_shift=shift)
        assert moved.dtype == torch.float32
        assert torch.allclose(moved, near, atol=1e-4)


def test_bad_shifts():
    _, pos, cell = crystal()
    conv = convolution(HarmonicSteerableConv)
    x = torch.randn(len(pos), 5).double()
    edge_index, shift = edges(pos, cell)
    for bad, error, words in [
            (shift[1:], ValueError, r"'edge_shift' of shape \[\d+, 3\], one"),
            (shift[:, :2], ValueError, "'edge_shift' of shape"),
            (shift.long(), TypeError, "'edge_shift' to be a tensor"),
            ('up', TypeError, "'edge_shift' to be a tensor"),
            (shift.to('meta'), ValueError, "'edge_shift' on meta")]:
        with pytest.raises(error, match=words):
            conv(x, pos, edge_index, edge_shift=bad)
    adj = torch.sparse_coo_tensor(edge_index.flip(0),
                                  torch.ones(len(shift)).double(),
                                  check_invariants=True)
    with pytest.raises(ValueError, match="no 'edge_shift' with a sparse"):
        conv(x, pos, adj, edge_shift=shift)
    conv.validate = True
    with pytest.raises(ValueError, match="'edge_shift' to be finite"):
        conv(x, pos, edge_index, edge_shift=shift / 0)
