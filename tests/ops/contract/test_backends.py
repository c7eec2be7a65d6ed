import pytest
import torch
from contract_problem import BACKENDS, Problem, close
from torch.fx.experimental.proxy_tensor import make_fx

from pyg_steerable.nn import ImplicitSteerableConv
from pyg_steerable.ops import Backend, register_backend
from pyg_steerable.ops.contract.backends import BACKENDS as REGISTRY
from pyg_steerable.ops.contract.backends import choose
from pyg_steerable.ops.contract.reference import contract_reference

CPU, FULL = torch.device('cpu'), torch.float32


@pytest.fixture
def toy():
    """A backend for single precision, which notes what it is given."""
    calls = []

    def function(h, x, src, dst, num_dst, weight, couplings, order):
        calls.append((h.dtype, order))
        return 2 * contract_reference(h, x, src, dst, num_dst, weight,
                                      couplings)

    register_backend(Backend('toy', function, lambda device, dtype: (
        device.type == 'cpu' and dtype == torch.float32)))
    yield calls
    del REGISTRY['toy']


def layer(**kwargs):
    torch.manual_seed(0)
    return ImplicitSteerableConv('4x0e + 2x1o', '4x0e + 2x1o', group='O(3)',
                                 root_weight=False, bias=False, **kwargs)


def test_a_layer_uses_what_was_registered(toy):
    conv = layer(backend='toy', order='source')
    x, pos = torch.randn(9, 10), torch.randn(9, 3)
    edges = torch.randint(9, (2, 30))
    out = conv(x, pos, edges)
    assert toy == [(torch.float32, 'source')]
    assert close(out, 2 * layer()(x, pos, edges), 1e-5)
    assert len(toy) == 1  # 'auto' does not take it
    conv.bfloat16()(x, pos, edges)
    assert toy[1:] == [(torch.float32, 'source')]
    with pytest.raises(ValueError, match="'backend' to be available for "
                       "torch.float64 on cpu .got 'toy'"):
        conv.double()(x, pos, edges)


def test_names_are_new(toy):
    for name in ('toy', 'auto', 'reference'):
        with pytest.raises(ValueError, match=f"new name .got '{name}'"):
            register_backend(Backend(name, contract_reference))
    with pytest.raises(TypeError, match="'backend' to be a Backend"):
        register_backend(contract_reference)


def test_names_of_layers(toy):
    assert [*REGISTRY] == [*BACKENDS, 'toy']
    for name in ('auto', *REGISTRY):
        assert layer(backend=name).backend == name
    with pytest.raises(ValueError, match="'backend' to be one of 'auto', "
                       "'torch', 'portable', 'reference', 'toy'"):
        layer(backend='other')


def test_auto(monkeypatch):
    assert choose('auto', CPU, FULL).name == 'torch'
    monkeypatch.setitem(REGISTRY, 'torch', REGISTRY['torch']._replace(
        available=lambda device, dtype: False))
    assert choose('auto', CPU, FULL).name == 'portable'
    with pytest.raises(ValueError, match="backend='auto'"):
        choose('torch', CPU, FULL)


class Contraction(torch.nn.Module):
    def __init__(self, way):
        super().__init__()
        self.problem, self.way = Problem('O(3)'), way

    def forward(self, h, x, weight):
        return self.problem(h, x, weight, self.way)


@pytest.mark.parametrize('way, ours', [
    ('auto', False), ('source', False), ('reference', False),
    ('torch', True)])
def test_exported_programs(way, ours):
    """They hold no operator of this package, unless that is asked for."""
    module = Contraction(way)
    args = (module.problem.h, module.problem.x, module.problem.weight)
    program = torch.export.export(module, args)
    names = [str(node.target) for node in program.graph.nodes]
    assert any('pyg_steerable' in name for name in names) == ours
    assert close(program.module()(*args), module(*args))


def test_eager_programs_hold_one_operator():
    p = Problem('O(3)')
    graph = make_fx(lambda *t: p(*t, 'torch'))(p.h, p.x, p.weight).graph
    names = [str(node.target) for node in graph.nodes]
    assert sum('pyg_steerable' in name for name in names) == 1
