"""Layers among PyTorch's tools: memory formats, the meta device, SWA,
synchronised statistics, sharding, optimisers, copies.
"""
import copy
import io
import pickle

import pytest
import torch
from helpers.layers_torch import T, kernel, same_tensors
from torch._subclasses.fake_tensor import FakeTensorMode

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    Bilinear,
    FieldBatchNorm,
    FieldDropout,
    Gate,
    ImplicitSteerableConv,
    InvariantReadout,
    LatticeSteerableConv,
    Linear,
    NormActivation,
    NormGate,
    QuotientELU,
    TensorProductActivation,
)

NONE = FieldType([], 'SO(2)')
SPHERE = FieldType.sphere(2, 2, 'O')
#: From a type to a layer of it.
LAYERS = {
    'Linear': lambda T: Linear(T, T),
    'Gate': Gate,
    'NormGate': NormGate,
    'NormActivation': NormActivation,
    'QuotientELU': lambda T: QuotientELU(SPHERE if T.dim else T),
    'TensorProductActivation': TensorProductActivation,
    'FieldBatchNorm': FieldBatchNorm,
    'FieldDropout': FieldDropout,
    'InvariantReadout': lambda T: InvariantReadout(T, 3),
}


def in_dim(layer):
    return layer.in_type.dim


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('field_type', [T, NONE])
@pytest.mark.parametrize('shape', [(0, ), (3, 0), (), (2, 3)])
def test_no_rows_and_no_fields(name, field_type, shape):
    layer = LAYERS[name](field_type)
    x = torch.randn(*shape, in_dim(layer), requires_grad=True)
    for training in (True, False):
        out = layer.train(training)(x)
        assert out.shape[:-1] == shape
        assert out.isfinite().all()
        if out.requires_grad:
            out.sum().backward()
    layer.load_state_dict(layer.state_dict())
    if hasattr(layer, 'reset_parameters'):
        layer.reset_parameters()
    repr(layer)


@pytest.mark.parametrize('order, backend', [
    ('auto', 'auto'), ('aggregate', 'torch'), ('source', 'torch'),
    ('auto', 'portable'), ('auto', 'reference')])
def test_products_of_nothing(order, backend):
    empty = torch.zeros(0, dtype=torch.long)
    for types in ([T, T, T], [NONE, T, T], [T, NONE, T], [T, T, NONE]):
        product = Bilinear(*types)
        for edges, nodes in ((0, 0), (0, 4), (3, 4)):
            h = torch.randn(edges, types[0].dim)
            x = torch.randn(nodes, types[1].dim)
            index = empty if not edges else torch.arange(edges)
            out = product(h, x, index, index, nodes, order, backend)
            assert out.shape == (nodes, types[2].dim)
            assert product.dense(h).shape == (edges, types[2].dim,
                                              types[1].dim)


def test_kernels_of_no_edges():
    for kind in ('implicit', 'harmonic'):
        k = kernel(kind)
        attr = torch.zeros(0, 3) if kind == 'implicit' else None
        assert k(torch.zeros(0, 3), attr).shape == (0, T.dim, T.dim)


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('how', ['moved', 'built', 'fake'])
def test_shapes_without_values(name, how):
    layer = LAYERS[name](T)
    x = torch.randn(4, in_dim(layer))
    expected = layer(x)
    if how == 'fake':
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            out = layer(mode.from_tensor(x))
    else:
        if how == 'built':
            with torch.device('meta'):
                layer = LAYERS[name](T)
        out = layer.to('meta')(x.to('meta'))
        assert out.is_meta
    assert out.shape == expected.shape and out.dtype == expected.dtype


@pytest.mark.parametrize('order, backend', [
    ('auto', 'auto'), ('aggregate', 'torch'), ('source', 'torch'),
    ('auto', 'portable'), ('auto', 'reference')])
@pytest.mark.parametrize('kind', ['implicit', 'harmonic'])
def test_kernels_without_values(kind, order, backend):
    with torch.device('meta'):
        k = kernel(kind)
        attr = torch.zeros(5, 3) if kind == 'implicit' else None
        h = k.basis(torch.zeros(5, 3), attr)
        index = torch.zeros(5, dtype=torch.long)
        out = k.convolve(h, torch.zeros(4, T.dim), index, index, 3, order,
                         backend)
        assert out.is_meta and out.shape == (3, T.dim)
        assert k(torch.zeros(5, 3), attr).shape == (5, T.dim, T.dim)


MODULES = {
    **{name: lambda name=name: LAYERS[name](T) for name in LAYERS},
    'Bilinear': lambda: Bilinear(T, T, T),
    'implicit': kernel,
    'harmonic': lambda: kernel('harmonic'),
    'conv': lambda: ImplicitSteerableConv(T, T, hidden=2),
    'lattice': lambda: LatticeSteerableConv(T, T, 3),
}


@pytest.mark.parametrize('name', MODULES)
def test_memory_formats(name):
    module = MODULES[name]()
    before = copy.deepcopy(module)
    formats = [torch.channels_last, torch.channels_last_3d]
    for memory_format in formats:
        module.to(memory_format=memory_format)
    assert same_tensors(module, before)
    torch.nn.Sequential(torch.nn.Conv3d(1, 1, 1), module).to(
        memory_format=torch.channels_last_3d)
    assert same_tensors(module, before)


@pytest.mark.parametrize('name', MODULES)
def test_copies_and_empty_ones(name):
    module = MODULES[name]()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)),
              torch.load(file, weights_only=False)]
    with torch.device('meta'):
        empty = MODULES[name]().to_empty(device='cpu')
    empty.load_state_dict(module.state_dict())
    swapped = copy.deepcopy(module)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        swapped.double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    for other in (*copies, empty, swapped):
        assert same_tensors(other, module)
    module.double()
    for other in copies:
        assert same_tensors(other.double(), module)


def test_constants_follow_the_default_device():
    with torch.device('meta'):
        assert all(b.is_meta for b in Linear(T, T).buffers())
