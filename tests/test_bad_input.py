"""Every mistake ends in a message that names the argument and the fix."""
import pytest
import torch

from pyg_steerable import FieldType, Group, Representation
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis
from pyg_steerable.nn import (
    FieldBatchNorm,
    Gate,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    Linear,
    QuotientELU,
    SteerableConv,
)

N, E = 6, 12
BACKENDS = ['auto', 'reference']

in_type, out_type = FieldType('2x0e + 1x1o'), FieldType('1x0e + 1x1o')
scalar = FieldType('1x0e')


def implicit(*args, **kwargs):
    args = args or (in_type, out_type)
    return ImplicitSteerableConv(*args, **{'hidden': 2, **kwargs})


def harmonic(*args, **kwargs):
    return HarmonicSteerableConv(*args or (in_type, out_type), **kwargs)


def skewed():
    matrix = torch.eye(3)
    matrix[0, 1] = 0.1
    return [matrix]


def turned(angle):
    return torch.tensor([[angle.cos(), -angle.sin()],
                         [angle.sin(), angle.cos()]])


# What is built wrongly: what to call, the error, and what its message says.
BUILD = {
    'unknown group': (lambda: Group('C-3'), ValueError, [
        "'name'", "got 'C-3'", 'SO(2)xMxInv', 'D<n>', 'from_generators']),
    'unknown group of a type': (lambda: FieldType('1x1o', 'SO3'), ValueError, [
        "'name'", "got 'SO3'", 'SO(3)']),
    'no name': (lambda: Group(3), TypeError, ["'name'", 'got int']),
    'skewed generator': (
        lambda: Group.from_generators(skewed()), ValueError, [
            'orthogonal', 'generator 0', '1.0e-01', 'polar decomposition']),
    'flat generator': (
        lambda: Group.from_generators(torch.eye(2)[None]), ValueError, [
            "'matrices'", '3x3', '[1, 2, 2]']),
    'not a representation': (
        lambda: Representation('C4', [turned(torch.tensor(1.))], 'mine'),
        ValueError, ["'matrices'", "'mine'", '0 of 2', 'generators']),
    'skewed representation': (
        lambda: Representation('C4', [2 * torch.eye(1)]), ValueError, [
            "'matrices'", 'deviation of 3', 'orthogonal']),
    'too many matrices': (
        lambda: Representation('C4', torch.eye(2).expand(3, 2, 2)),
        ValueError, ["'matrices'", '[1, d, d]', '[3, 2, 2]']),
    'unreadable irreps': (lambda: FieldType('3y2'), ValueError, [
        "'irreps'", "got '3y2'", '16x0e + 8x1o']),
    'high degree': (lambda: FieldType('1x12e'), ValueError, ['11', '12e']),
    'two groups': (
        lambda: implicit(in_type, FieldType('1x0e', 'SO(2)')), ValueError, [
            'one group', 'FieldType(2x0e+1x1o, O(3))', 'SO(2)',
            '.restrict(group)']),
    'two groups, attributes': (
        lambda: implicit(edge_type=FieldType('1x0e', 'SO(3)')), ValueError, [
            'one group', 'SO(3)']),
    'two groups, basis': (
        lambda: SteerableConv(in_type, out_type, HarmonicBasis('SO(3)', 1)),
        ValueError, ['one group', 'SO(3)']),
    'two groups, linear': (
        lambda: Linear(in_type, FieldType('1x0e', 'C4')), ValueError, [
            'one group', 'C4']),
    'other attributes': (
        lambda: SteerableConv(in_type, out_type, HarmonicBasis('O(3)', 1),
                              edge_type=scalar),
        ValueError, ["'edge_type'", 'FieldType(1x0e, O(3))',
                     'got FieldType(0, O(3))']),
    'a string for a type': (lambda: implicit('2x0e', out_type), TypeError, [
        'FieldType', "'2x0e'", "FieldType('16x0e + 8x1o'"]),
    'a number for a type': (lambda: harmonic(in_type, 5), TypeError, [
        'FieldType', 'got int 5']),
    'a string for edge_type': (
        lambda: implicit(edge_type='1x0e'), TypeError, [
            'FieldType', "'1x0e'"]),
    'max': (lambda: implicit(aggr='max'), ValueError, [
        "'aggr'", "'sum' or 'mean'", "got 'max'"]),
    'list of aggregations': (lambda: harmonic(aggr=['sum', 'mean']),
                             ValueError, ["'aggr'", "['sum', 'mean']"]),
    'decomposed': (lambda: implicit(decomposed_layers=2), ValueError, [
        "'decomposed_layers'", 'got 2', 'fields']),
    'order': (lambda: implicit(order='fast'), ValueError, [
        "'order'", "'aggregate'", "got 'fast'"]),
    'order reference': (lambda: implicit(order='reference'), ValueError, [
        "'order'", "backend='reference'"]),
    'backend': (lambda: implicit(backend='fast'), ValueError, [
        "'backend'", "'torch'", "got 'fast'"]),
    'no hidden': (lambda: implicit(hidden=0), ValueError, [
        "'hidden'", '>= 1', 'got 0']),
    'fractional hidden': (lambda: implicit(hidden=2.5), ValueError, [
        "'hidden'", 'integer', 'got 2.5']),
    'one layer': (lambda: implicit(num_layers=1), ValueError, [
        "'num_layers'", '>= 2', 'got 1']),
    'negative degree': (lambda: harmonic(max_degree=-1), ValueError, [
        "'max_degree'", '>= 0', 'got -1']),
    'degree too high': (lambda: harmonic(max_degree=12), ValueError, [
        "'max_degree'", '11', 'got 12']),
    'degree too high, implicit': (lambda: implicit(max_degree=12), ValueError,
                                  ["'max_degree'", '11', 'got 12']),
    'no radius': (lambda: implicit(radius=0.), ValueError, [
        "'radius'", 'positive', 'got 0']),
    'negative radius': (lambda: harmonic(radius=-1), ValueError, [
        "'radius'", 'positive', 'got -1']),
    'radius of nan': (lambda: harmonic(radius=float('nan')), ValueError, [
        "'radius'", 'positive', 'got nan']),
    'a string for a radius': (lambda: harmonic(radius='1'), TypeError, [
        "'radius'", 'number', "got '1'"]),
    'no shells': (lambda: harmonic(shells=0), ValueError, [
        "'shells'", '>= 1', 'got 0']),
    'band limits': (lambda: harmonic(band_limit=[1]), ValueError, [
        "'band_limit'", '3 shells', 'got [1]']),
    'num_neighbors': (lambda: harmonic(num_neighbors=0), ValueError, [
        "'num_neighbors'", 'positive', 'got 0']),
    'flow': (lambda: harmonic(flow='up'), ValueError, [
        "'flow'", 'source_to_target', "got 'up'"]),
    'no sphere': (lambda: QuotientELU(FieldType('1x1e')), ValueError, [
        "'field_type'", '1e', 'FieldType.sphere', 'Gate']),
    'activation': (
        lambda: ImplicitBasis('C4', activation=3), TypeError, [
            "'activation'", 'callable', 'got 3']),
}

x, pos = torch.rand(N, 5) + 1, torch.rand(N, 3) + 1
edge_index = torch.randint(N, (2, E))
edge_attr, node_attr = torch.rand(E, 4), torch.rand(N, 1)
with_attr = {'edge_type': scalar + FieldType('1x1o'), 'node_type': scalar}


def far(value):
    index = edge_index.clone()
    index[0, 3] = value
    return index


# What is passed wrongly: arguments of the layer, of the call, the error.
CALL = {
    'width': ({}, (x[:, :4], pos, edge_index), {}, ValueError, [
        "'x'", 'FieldType(2x0e+1x1o, O(3))', '5 numbers', '[6, 4]']),
    'length': ({}, (x[:5], pos, edge_index), {}, ValueError, [
        "'x'", "'pos'", '[5, 5]', '[6, 3]']),
    'three dimensions': ({}, (x[None], pos, edge_index), {}, ValueError, [
        "'x'", '[1, 6, 5]']),
    'no tensor': ({}, (x.numpy(), pos, edge_index), {}, TypeError, [
        "'x'", 'tensor', 'got ndarray']),
    'no source': ({}, ((None, x), pos, edge_index), {}, ValueError, [
        "'x[0]'", 'source', 'None']),
    'flat positions': ({}, (x, pos[:, :2], edge_index), {}, ValueError, [
        "'pos'", '[N, 3]', '[6, 2]']),
    'no positions': ({}, (x, None, edge_index), {}, TypeError, [
        "'pos'", 'got None']),
    'half of the positions': (
        {}, ((x, x), (pos, None), edge_index), {}, ValueError, [
            "'pos'", '[N, 3]', 'None']),
    'index too large': ({}, (x, pos, far(6)), {}, ValueError, [
        "'edge_index[0]'", '[0, 6)', 'to 6']),
    'negative index': ({}, (x, pos, far(-1)), {}, ValueError, [
        "'edge_index[0]'", '[0, 6)', 'from -1']),
    'index out of a pair': (
        {}, ((x, x[:2]), (pos, pos[:2]), 0 * edge_index + 3), {}, ValueError,
        ["'edge_index[1]'", '[0, 2)', '3']),
    'float index': ({}, (x, pos, edge_index.float()), {}, TypeError, [
        "'edge_index'", 'integers', 'torch.float32', '.to(torch.long)']),
    'index of one row': ({}, (x, pos, edge_index[:1]), {}, ValueError, [
        "'edge_index'", '[2, E]', '[1, 12]']),
    'transposed index': ({}, (x, pos, edge_index.T), {}, ValueError, [
        "'edge_index'", '[2, E]', '[12, 2]']),
    'no index': ({}, (x, pos, None), {}, ValueError, [
        "'edge_index'", '[2, E]', 'NoneType']),
    'size': ({}, (x, pos, edge_index), {'size': (6, 7)}, ValueError, [
        "'size'", '(6, 6)', '(6, 7)']),
    'superfluous attribute': (
        {}, (x, pos, edge_index, edge_attr), {}, ValueError, [
            "'edge_attr'", '[12, 4]', "'edge_type'"]),
    'superfluous node attribute': (
        {}, (x, pos, edge_index), {'node_attr': node_attr}, ValueError, [
            "'node_attr'", '[6, 1]', "'node_type'"]),
    'missing attribute': (
        with_attr, (x, pos, edge_index), {'node_attr': node_attr}, ValueError,
        ["'edge_attr'", 'FieldType(1x0e+1x1o, O(3))', '4', 'None']),
    'missing node attribute': (
        with_attr, (x, pos, edge_index, edge_attr), {}, ValueError, [
            "'node_attr'", 'FieldType(1x0e, O(3))', 'None']),
    'width of attribute': (
        with_attr, (x, pos, edge_index, edge_attr[:, :3]),
        {'node_attr': node_attr}, ValueError,
        ["'edge_attr'", '4 numbers', '[12, 3]']),
    'width of node attribute': (
        with_attr, (x, pos, edge_index, edge_attr),
        {'node_attr': torch.cat([node_attr, node_attr], 1)}, ValueError,
        ["'node_attr'", '1 numbers', '[6, 2]']),
    'length of node attribute': (
        with_attr, (x, pos, edge_index, edge_attr),
        {'node_attr': node_attr[1:]}, ValueError,
        ["'node_attr'", '6 nodes', '[5, 1]']),
    'length of attribute': (
        with_attr, (x, pos, edge_index, edge_attr[1:]),
        {'node_attr': node_attr}, ValueError,
        ["'edge_attr'", '12 edges', '[11, 4]']),
    'length of weight': (
        {}, (x, pos, edge_index), {'edge_weight': torch.rand(5)}, ValueError,
        ["'edge_weight'", '12 edges', '[5]']),
    'width of weight': (
        {}, (x, pos, edge_index), {'edge_weight': torch.rand(E, 2)},
        ValueError, ["'edge_weight'", '12 edges', '[12, 2]']),
    'infinite position': (
        {'validate': True}, (x, pos / 0, edge_index), {}, ValueError, [
            'finite', "'pos'", 'inf', 'node 0']),
    'sparse and backwards': (
        {'flow': 'target_to_source'},
        (x, pos, torch.eye(N).to_sparse_csr()), {}, ValueError, [
            'source_to_target', "'edge_index'"]),
}


def raises(function, error, words):
    with pytest.raises(error) as caught:
        function()
    message = str(caught.value)
    assert message.startswith('Expected'), message
    for word in words + ['got']:
        assert word in message, message


@pytest.mark.parametrize('case', BUILD.values(), ids=BUILD)
def test_build(case):
    raises(*case)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', CALL.values(), ids=CALL)
def test_call(case, backend):
    layer, args, kwargs, error, words = case
    conv = implicit(backend=backend, **layer)
    raises(lambda: conv(*args, **kwargs), error, words)


@pytest.mark.parametrize('layer', [
    Linear(in_type, out_type),
    FieldBatchNorm(in_type),
    Gate(FieldType('1x0e + 1x1o')),
])
def test_width_of_layers(layer):
    raises(lambda: layer(x[:, :2]), ValueError, ["'x'", '5 numbers', '[6, 2]'])


def test_attributes_of_a_kernel():
    conv = implicit(edge_type=scalar)
    raises(lambda: conv.kernel(pos), ValueError, ['[6, 1]', 'edge_type'])
    raises(lambda: conv.kernel(pos, x), ValueError, ['[6, 1]', '[6, 5]'])
    raises(lambda: harmonic().kernel(pos, x), ValueError, ['[6, 0]'])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('build', [implicit, harmonic])
def test_nothing_is_no_mistake(build, backend):
    conv = build(backend=backend, validate=True)
    none = edge_index[:, :0]
    assert conv(x[:0], pos[:0], none).shape == (0, 4)
    assert torch.allclose(conv(x, pos, none), conv.lin(x))


def test_types_without_a_common_map():
    """Unless there is nothing to map: then a layer has nothing to learn."""
    none = FieldType([])
    raises(lambda: harmonic(scalar, FieldType('1x0o')), ValueError, [
        "'out_type'", '1x0o', "'max_degree'"])
    for types in ((none, scalar), (scalar, none), (none, none)):
        conv = harmonic(*types)
        out = conv(x[:, :conv.in_channels], pos, edge_index)
        assert out.shape == (N, conv.out_channels) and not out.any()
