"""Linear against a sum over all maps, in both evaluations."""
import random
import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad as fw
from torch.func import functional_call, jvp, vmap

from pyg_steerable import FieldType, Representation
from pyg_steerable.intertwiners import linear_basis
from pyg_steerable.nn import InvariantReadout, Linear
from pyg_steerable.testing import equivariance_error

# To some fields of random types nothing leads: their zeros are tested too.
pytestmark = pytest.mark.filterwarnings('ignore:The fields .* always zero')

IRREPS = ('0e', '0o', '1o', '1e', '2e', '2o', '3o')


def drawn(group, seed, blocks=4, copies=4):
    """A type with random blocks in a random order, pseudo-scalars too."""
    draw = random.Random(f'{group}{seed}')
    return FieldType([(draw.randint(1, copies), draw.choice(IRREPS))
                      for _ in range(blocks)], group)


def regular(group):
    rep = Representation.regular(group)
    return (FieldType([(2, rep), (3, '1o'), (1, '0o')], group),
            FieldType([(1, '2e'), (4, rep)], group))


#: From a name to the types of input and output.
TYPES = {
    **{f'{group}, {seed}': (drawn(group, seed), drawn(group, -seed))
       for group in ('O(3)', 'SO(3)', 'SO(2)', 'SO(2)xM', 'C4', 'I', '1')
       for seed in (1, 2)},
    'regular': regular('D3'),
    'equal': 2 * (FieldType.sphere(8, 2, 'O'), ),
    'runs': 2 * (FieldType.sphere(16, 2, 'C4'), ),
    'no table': (FieldType('30x1o + 31x2e'), FieldType('31x2e + 30x1o')),
    'nothing in': (FieldType([], 'C4'), FieldType('2x0e + 1x1o', 'C4')),
    'nothing out': (FieldType('2x0e + 1x1o', 'C4'), FieldType([], 'C4')),
    'parts': (FieldType('2x1o + 3x0o + 1x2e'), FieldType('1x2e + 2x1o')),
}
BY_BLOCKS = [True, False]


def make(name, by_blocks, bias=True):
    """A layer that goes by blocks or not, whatever is cheaper."""
    torch.manual_seed(0)
    layer = Linear(*TYPES[name], bias=bias).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_()
    return force(layer, by_blocks)


def force(layer, by_blocks):
    possible = bool(layer._layout.blocks)
    layer._layout.by_blocks = lambda rows: by_blocks and possible
    return layer


def rows(layer, *shape):
    return torch.randn(*(shape or (5, )), layer.in_type.dim,
                       dtype=torch.float64)


def reference(layer, x, weight, bias):
    """The sum over all maps, each with weights [s, mw, mv]."""
    group, first, free = layer.in_type.group, 0, 0
    out = x.new_zeros(*x.shape[:-1], layer.out_type.dim)
    for (mw, w), sw in zip(layer.out_type.blocks, layer.out_type.slices):
        y = x.new_zeros(*x.shape[:-1], mw, w.dim)
        for (mv, v), sv in zip(layer.in_type.blocks, layer.in_type.slices):
            for Q in linear_basis(v, w, group):
                W = weight[first:first + mw * mv].view(mw, mv)
                f = x[..., sv].unflatten(-1, (mv, v.dim))
                y = y + torch.einsum('ab,ij,...bj->...ai', W, Q, f)
                first += mw * mv
        if bias is not None:
            for q in linear_basis('0e', w, group):
                y = y + bias[free:free + mw, None] * q[:, 0]
                free += mw
        out = torch.cat([out[..., :sw.start], y.flatten(-2),
                         out[..., sw.stop:]], dim=-1)
    assert first == (0 if weight is None else len(weight))
    assert free == (0 if bias is None else len(bias))
    return out


def close(a, b):
    if isinstance(a, torch.Tensor):
        scale = max(1., float(b.detach().abs().max())) if b.numel() else 1.
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-11)
    else:
        assert len(a) == len(b)
        for x, y in zip(a, b):
            close(x, y)


cases = pytest.mark.parametrize('name', TYPES)
evaluations = pytest.mark.parametrize('by_blocks', BY_BLOCKS,
                                      ids=['blocks', 'matrix'])
some = pytest.mark.parametrize('name', ['SO(2), 1', 'C4, 2', 'O(3), 1',
                                        'equal', 'runs', 'parts',
                                        'no table'])


@evaluations
@cases
@pytest.mark.parametrize('bias', [True, False])
def test_forward(name, by_blocks, bias):
    layer = make(name, by_blocks, bias)
    for shape in ((5, ), (), (0, ), (2, 3), (1, )):
        x = rows(layer, *shape)
        close(layer(x), reference(layer, x, layer.weight, layer.bias))
    x = rows(layer, 4, 3).transpose(0, 1)  # not contiguous
    close(layer(x), reference(layer, x, layer.weight, layer.bias))


@cases
def test_matrix_and_bias(name):
    layer = make(name, False)
    eye = torch.eye(layer.in_type.dim, dtype=torch.float64)
    close(layer.matrix().T, reference(layer, eye, layer.weight, None))
    zero = rows(layer, 1).zero_()
    if layer.bias is None:
        assert layer.bias_vector() is None
    else:
        close(layer.bias_vector(),
              reference(layer, zero, layer.weight, layer.bias)[0])
    assert Linear(*TYPES[name], bias=False).bias_vector() is None


def derivatives(function, inputs):
    """First derivatives, and those of a function of them."""
    y = function(*inputs)
    first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True)
    total = sum((d * torch.linspace(-1, 2, d.numel(), dtype=d.dtype).view(
        d.shape)).sin().sum() for d in first)
    second = torch.autograd.grad(total, inputs, create_graph=True)
    third = torch.autograd.grad(sum(d.cos().sum() for d in second), inputs)
    return [*first, *second, *third]


def parameters(layer):
    return {n: p for n, p in layer.named_parameters()}


def functions(layer):
    """The layer and the reference, of the input and all parameters."""
    names = list(parameters(layer))

    def ours(x, *values):
        return functional_call(layer, dict(zip(names, values)), (x, ))

    def plain(x, *values):
        p = dict(zip(names, values))
        return reference(layer, x, p.get('weight'), p.get('bias'))

    return ours, plain


@evaluations
@cases
def test_three_derivatives(name, by_blocks):
    layer = make(name, by_blocks)
    inputs = [rows(layer).requires_grad_(), *parameters(layer).values()]
    if len(inputs) == 1 or not layer.out_type.dim:
        return  # nothing to derive
    if layer.weight is None:
        inputs[0] = inputs[0].detach()
        close(torch.autograd.grad(layer(inputs[0]).sum(), layer.bias),
              torch.autograd.grad(reference(
                  layer, inputs[0], None, layer.bias).sum(), layer.bias))
        return
    ours, plain = functions(layer)
    close(derivatives(ours, inputs), derivatives(plain, inputs))


@evaluations
@some
def test_one_derivative_at_a_time(name, by_blocks):
    layer = make(name, by_blocks)
    ours, plain = functions(layer)
    for k in range(2):
        inputs = [rows(layer), *(p.detach() for p in layer.parameters())]
        inputs[k].requires_grad_()
        close(*(torch.autograd.grad(f(*inputs).sin().sum(), inputs[k])
                for f in (ours, plain)))


@evaluations
def test_derivatives_by_differences(by_blocks):
    layer = make('SO(2), 1', by_blocks)
    x = rows(layer, 2).requires_grad_()
    ours, _ = functions(layer)
    inputs = (x, *(p.detach().requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(ours, inputs, check_forward_ad=True,
                                    check_batched_grad=True)
    assert torch.autograd.gradgradcheck(ours, inputs,
                                        check_fwd_over_rev=True)


@evaluations
@some
def test_batches(name, by_blocks):
    """Of inputs, of weights, of both; and derivatives inside of them."""
    layer = make(name, by_blocks)
    ours, plain = functions(layer)
    inputs = [rows(layer), *(p.detach() for p in layer.parameters())]
    many = [torch.stack([t, 2 * t, t.sin()]) for t in inputs]
    for batched in ((0, ), (1, ), (0, 1), (len(inputs) - 1, ),
                    range(len(inputs))):
        given = [m if k in batched else t
                 for k, (m, t) in enumerate(zip(many, inputs))]
        in_dims = tuple(0 if k in batched else None
                        for k in range(len(inputs)))
        close(vmap(ours, in_dims)(*given), vmap(plain, in_dims)(*given))
        grads = [vmap(torch.func.grad(lambda *t, f=f: f(*t).sin().sum(),
                                      argnums=(0, 1)), in_dims)(*given)
                 for f in (ours, plain)]
        close(*grads)


@evaluations
@some
def test_forward_mode(name, by_blocks):
    layer = make(name, by_blocks)
    ours, plain = functions(layer)
    inputs = tuple([rows(layer), *(p.detach() for p in layer.parameters())])
    tangents = tuple(torch.randn_like(t) for t in inputs)
    _, expected = jvp(plain, inputs, tangents)
    close(jvp(ours, inputs, tangents)[1], expected)
    with fw.dual_level():
        duals = [fw.make_dual(t, d) for t, d in zip(inputs, tangents)]
        close(fw.unpack_dual(ours(*duals)).tangent, expected)

    def pushed(f):  # and the derivative of it
        return lambda *t: jvp(f, t, tangents)[1]

    close(jvp(pushed(ours), inputs, tangents)[1],
          jvp(pushed(plain), inputs, tangents)[1])
    for a, b in zip(*(jvp(torch.func.grad(lambda *t, f=f: f(*t).sin().sum(),
                                          argnums=(0, 1)), inputs, tangents)
                      for f in (ours, plain))):
        close(a, b)  # values and tangents


@evaluations
@pytest.mark.parametrize('name', ['C4, 1', 'parts', 'runs', 'no table'])
@pytest.mark.parametrize('dynamic', [True, False])
def test_compiled(name, by_blocks, dynamic):
    layer = make(name, by_blocks)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager',
                             dynamic=dynamic)
    for n in (5, 7):
        x = rows(layer, n).requires_grad_()
        inputs = (x, *layer.parameters())
        expected = torch.autograd.grad(
            reference(layer, x, layer.weight, layer.bias).sin().sum(), inputs)
        close(torch.autograd.grad(compiled(x).sin().sum(), inputs), expected)


@evaluations
def test_exported_programs_need_no_package(tmp_path, by_blocks):
    layer = make('C4, 1', by_blocks)
    n = torch.export.Dim('n')
    program = torch.export.export(layer, (rows(layer), ),
                                  dynamic_shapes=({0: n}, ), strict=False)
    torch.export.save(program, tmp_path / 'layer.pt2')
    inputs = [rows(layer, 9), rows(layer, 0), rows(layer, 1)]
    with torch.no_grad():
        torch.save((inputs, [layer(x) for x in inputs]), tmp_path / 'data.pt')
    done = subprocess.run([sys.executable, '-c', f"""
import sys
sys.path = [p for p in sys.path if 'pyg_steerable' not in p]
import torch
run = torch.export.load({str(tmp_path / 'layer.pt2')!r}).module()
for x, y in zip(*torch.load({str(tmp_path / 'data.pt')!r})):
    torch.testing.assert_close(run(x), y)
assert not [m for m in sys.modules if m.split('.')[0] == 'pyg_steerable']
"""], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


# Numbers ###################################################################


@evaluations
@some
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(name, by_blocks, dtype):
    layer = make(name, by_blocks).float()
    x = rows(layer).float().requires_grad_()
    expected = reference(layer, x.double(), layer.weight.double(),
                         None if layer.bias is None else layer.bias.double())
    with torch.autocast('cpu', dtype):
        out = layer(x)
    assert out.dtype == dtype
    scale = expected.abs().max()
    assert (out - expected).abs().max() < 0.03 * scale
    out.float().sum().backward()
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
    right, = torch.autograd.grad(expected.sum(), layer.weight)
    error = (layer.weight.grad - right).abs().max()
    assert error < 0.03 * right.abs().max()
    double = layer.double()
    with torch.autocast('cpu', dtype):  # lowers no float64
        close(double(x.double()), expected)


@evaluations
@some
def test_constants_are_exact_after_double(name, by_blocks):
    torch.manual_seed(0)
    layer = force(Linear(*TYPES[name]), by_blocks).double()
    assert equivariance_error(layer, dtype=torch.float64) < 1e-12
    half = force(Linear(*TYPES[name]), by_blocks).half()
    assert half.dtype == torch.float16
    assert half(rows(half).half()).dtype == torch.float16


def test_constants_are_few():
    """No number for each entry of a large matrix."""
    for group in ('O(3)', 'C4'):
        T = FieldType.sphere(256, 2, group)
        layer = Linear(T, T)
        assert layer.weight.numel() in (196608, 1376256)
        constants = sum(b.numel() for b in layer.buffers())
        assert constants < layer.weight.numel() / 8
    tiny = FieldType.sphere(4, 1)
    assert sum(b.numel() for b in Linear(tiny, tiny).buffers()) < 1000
    awkward = Linear(*TYPES['no table'])
    assert sum(b.numel() for b in awkward.buffers()) < 1000


def test_the_rule():
    """Large layers go by blocks if Schur's lemma leaves little, small ones
    and those of many maps have a matrix.
    """
    def by_blocks(channels, group, rows):
        T = FieldType.sphere(channels, 2, group)
        return Linear(T, T)._layout.by_blocks(rows)

    assert by_blocks(256, 'O(3)', 16) and by_blocks(256, 'O(3)', 4096)
    assert by_blocks(16, 'O(3)', 4096)
    assert not by_blocks(16, 'O(3)', 16)
    assert not by_blocks(16, 'C4', 4096) and not by_blocks(64, 'C4', 16)


def test_state_and_weights_are_those_of_before():
    """Weights are [s, mw, mv] of each pair of blocks, outputs first."""
    a, b = FieldType('2x0e + 3x1o', 'SO(2)'), FieldType('1x1o', 'SO(2)')
    layer = Linear(a, b).double()
    assert list(layer.state_dict()) == ['weight', 'bias']
    assert layer.weight.shape == (2 + 3 * 3, ) and layer.bias.shape == (1, )
    with torch.no_grad():
        layer.weight.zero_()[4] = 1.  # the first map 1o -> 1o, copy 2
    expected = torch.zeros(3, 11, dtype=torch.float64)
    expected[:, 8:11] = linear_basis('1o', '1o', 'SO(2)')[0]
    close(layer.matrix(), expected)


def test_columns_that_are_used():
    T = FieldType('2x1o + 3x0e + 1x1e + 1x0o')
    layer = Linear(T, FieldType('2x0e + 1x1e', 'O(3)'))
    assert layer.columns.tolist() == [6, 7, 8, 9, 10, 11]
    T = FieldType('2x1o', 'SO(2)')
    used = Linear(T, FieldType('1x0e', 'SO(2)')).columns
    assert len(used) == 2 and used[1] - used[0] == 3
    readout = InvariantReadout(T, 4)
    assert readout(torch.randn(3, 6)).shape == (3, 4)
