"""Layers among PyTorch's tools: memory formats, the meta device, SWA,
synchronised statistics, sharding, optimisers, copies.
"""
import copy
import io
import os
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim.swa_utils import update_bn

from pyg_steerable import FieldType
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis, SteerableKernel
from pyg_steerable.nn import (
    Bilinear,
    FieldBatchNorm,
    FieldDropout,
    Gate,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    InvariantReadout,
    LatticeSteerableConv,
    Linear,
    NormActivation,
    NormGate,
    QuotientELU,
    TensorProductActivation,
    param_groups,
)

T = FieldType('2x0e + 2x1o + 1x2e', 'SO(2)')
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


def kernel(kind='implicit'):
    basis = (ImplicitBasis('SO(2)', 2, 2, attr_type=FieldType('1x1o', 'SO(2)'))
             if kind == 'implicit' else HarmonicBasis('SO(2)', 2))
    return SteerableKernel(basis, T, T)


# Shapes ####################################################################


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


@pytest.mark.parametrize('order', ['auto', 'aggregate', 'source',
                                   'reference'])
def test_products_of_nothing(order):
    empty = torch.zeros(0, dtype=torch.long)
    for types in ([T, T, T], [NONE, T, T], [T, NONE, T], [T, T, NONE]):
        product = Bilinear(*types)
        for edges, nodes in ((0, 0), (0, 4), (3, 4)):
            h = torch.randn(edges, types[0].dim)
            x = torch.randn(nodes, types[1].dim)
            index = empty if not edges else torch.arange(edges)
            out = product(h, x, index, index, nodes, order)
            assert out.shape == (nodes, types[2].dim)
            assert product.dense(h).shape == (edges, types[2].dim,
                                              types[1].dim)


def test_kernels_of_no_edges():
    for kind in ('implicit', 'harmonic'):
        k = kernel(kind)
        attr = torch.zeros(0, 3) if kind == 'implicit' else None
        assert k(torch.zeros(0, 3), attr).shape == (0, T.dim, T.dim)


# Devices and formats #######################################################


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


@pytest.mark.parametrize('order', ['auto', 'aggregate', 'source',
                                   'reference'])
@pytest.mark.parametrize('kind', ['implicit', 'harmonic'])
def test_kernels_without_values(kind, order):
    with torch.device('meta'):
        k = kernel(kind)
        attr = torch.zeros(5, 3) if kind == 'implicit' else None
        h = k.basis(torch.zeros(5, 3), attr)
        index = torch.zeros(5, dtype=torch.long)
        out = k.convolve(h, torch.zeros(4, T.dim), index, index, 3, order)
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


def same_tensors(a, b):
    a, b = ({**dict(m.named_parameters()), **dict(m.named_buffers())}
            for m in (a, b))
    return a.keys() == b.keys() and all(
        torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


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


# Statistics ################################################################


def test_momentum():
    norm = FieldBatchNorm(FieldType('2x0e'), momentum=None)
    x = [torch.randn(5, 2) + i for i in range(4)]
    for batch in x:
        norm(batch)
    assert norm.stats.num_batches_tracked == 4
    assert torch.allclose(norm.running_mean, torch.stack(x).mean((0, 1)),
                          atol=1e-5)
    assert torch.allclose(
        norm.running_var,
        torch.stack([b.var(0, unbiased=False) for b in x]).mean(0))
    norm.reset_parameters()
    assert norm.stats.num_batches_tracked == 0
    norm.momentum = 1.
    norm(x[2])
    assert torch.allclose(norm.running_mean, x[2].mean(0))


@pytest.mark.parametrize('training', [True, False])
def test_update_bn(training):
    """A pass with ever smaller steps, for norms in kernels as well."""
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ImplicitSteerableConv(T, T, hidden=2)
            self.norm = FieldBatchNorm(T)
            self.lattice = LatticeSteerableConv(T, T, 3, kernel='implicit')

        def forward(self, batch):
            x, pos = batch[:, :T.dim], batch[:, T.dim:]
            edges = torch.combinations(torch.arange(len(x))).T
            x = self.norm(self.conv(x, pos, edges))
            grid = x[:1, :, None, None, None].expand(-1, -1, 3, 3, 3)
            return self.lattice(grid)

    net = Net().train(training)
    frozen = copy.deepcopy(net.lattice)
    loader = [torch.randn(n, T.dim + 3) + n for n in (5, 6, 7)]
    plain = copy.deepcopy(net).train()
    inner = plain.conv.kernel.basis.norm
    for norm in (plain.norm, inner):
        norm.momentum = 1.
    outer_vars, inner_means = [], []
    for batch in loader:
        plain(batch)
        outer_vars.append(plain.norm.running_var.clone())
        inner_means.append(inner.running_mean.clone())
    update_bn(loader, net)
    assert torch.allclose(net.norm.running_var,
                          torch.stack(outer_vars).mean(0))
    assert torch.allclose(net.conv.kernel.basis.norm.running_mean,
                          torch.stack(inner_means).mean(0))
    assert net.training == training
    assert net.norm.momentum == 0.1
    assert same_tensors(net.lattice, frozen)


def test_old_checkpoints():
    basis = ImplicitBasis('SO(2)', 2)
    basis.norm(torch.randn(5, 4))
    state = basis.state_dict()
    assert state['sharpness'].shape == (1, )
    old = {k.replace('stats.', ''): v for k, v in state.items()
           if 'num_batches' not in k}
    old['sharpness'] = old['sharpness'].squeeze()
    other = ImplicitBasis('SO(2)', 2)
    other.norm(torch.randn(5, 4))
    other.load_state_dict(old, strict=True)
    assert torch.equal(other.norm.running_mean, basis.norm.running_mean)
    assert torch.equal(other.norm.running_var, basis.norm.running_var)
    assert other.sharpness.shape == (1, )
    assert len(old) == len(state) - 1  # the caller's is left alone


def test_frozen_parts_by_the_usual_loop():
    norm = FieldBatchNorm(T)
    for module in norm.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    norm(torch.randn(5, T.dim))
    assert not norm.running_mean.any()


# Several processes #########################################################

BATCH = 7
SHARES = [slice(0, 2), slice(2, 7)]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            Linear(T, T), FieldBatchNorm(T), NormGate(T),
            FieldBatchNorm(T, momentum=None))
        self.conv = ImplicitSteerableConv(T, T, hidden=2)

    def forward(self, x, pos):
        edges = torch.arange(len(x)).expand(2, -1)
        return self.conv(self.layers(x), pos, edges)


def make_net():
    torch.manual_seed(0)
    net = Net().double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    generator = torch.Generator().manual_seed(1)
    return net, torch.randn(BATCH, T.dim + 3, generator=generator,
                            dtype=torch.float64)


def force_of(net, batch):
    x = batch[:, :-3].clone().requires_grad_()
    out = net(x, batch[:, -3:]).sin().sum()
    return torch.autograd.grad(out, x, create_graph=True)[0]


def tensors_of(net):
    grads = {n: p.grad for n, p in net.named_parameters()}
    return grads | {n: b for n, b in net.named_buffers() if 'stats' in n}


def _run(rank, function, path):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{path}/store', rank=rank, world_size=2)
    try:
        torch.save(function(rank), f'{path}/{rank}.pt')
    finally:
        torch.distributed.destroy_process_group()


def in_two_processes(function, path):
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.multiprocessing.spawn(_run, (function, str(path)), 2)
    return [torch.load(path / f'{rank}.pt') for rank in range(2)]


def synchronised(rank):
    net, batch = make_net()
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(net.layers[1], FieldBatchNorm)
    net = DDP(net)
    for _ in range(2):
        net.zero_grad()
        out = net(batch[SHARES[rank], :-3], batch[SHARES[rank], -3:])
        (2 * out.square().sum()).backward()  # DDP averages over processes
    return tensors_of(net.module)


def test_synchronised_statistics(tmp_path):
    results = in_two_processes(synchronised, tmp_path)
    net, batch = make_net()
    for _ in range(2):
        net.zero_grad()
        net(batch[:, :-3], batch[:, -3:]).square().sum().backward()
    expected = tensors_of(net)
    for result in results:
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(result[name], value), name


def forces(rank):
    net, batch = make_net()
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    force = force_of(net, batch[SHARES[rank]])
    force.square().sum().backward()
    grads = {n: p.grad for n, p in net.named_parameters()}
    for grad in grads.values():
        if grad is not None:
            torch.distributed.all_reduce(grad)
    return {'force': force.detach(), **grads}


def test_second_derivatives_of_synchronised_statistics(tmp_path):
    results = in_two_processes(forces, tmp_path)
    net, batch = make_net()
    force = force_of(net, batch)
    force.square().sum().backward()
    for result, share in zip(results, SHARES):
        assert torch.allclose(result.pop('force'), force[share])
        for name, p in net.named_parameters():
            if p.grad is not None:
                assert torch.allclose(result[name], p.grad), name


def without_rows(rank):
    norm = FieldBatchNorm(T).double()
    norm = torch.nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    _, batch = make_net()
    x = batch[:, :-3] if rank else batch[:0, :-3]
    x = x.clone().requires_grad_()
    norm(x).sin().sum().backward()
    assert x.grad.isfinite().all()
    return {'var': norm.running_var, 'mean': norm.running_mean}


def test_a_process_without_rows(tmp_path):
    norm = FieldBatchNorm(T).double()
    norm(make_net()[1][:, :-3])
    for result in in_two_processes(without_rows, tmp_path):
        assert torch.allclose(result['var'], norm.running_var)
        assert torch.allclose(result['mean'], norm.running_mean)


def test_conversion_without_processes():
    norm = FieldBatchNorm(T)
    other = torch.nn.SyncBatchNorm.convert_sync_batchnorm(
        copy.deepcopy(norm))
    x = torch.randn(5, T.dim)
    assert torch.equal(norm(x), other(x))
    assert torch.equal(norm.running_var, other.running_var)
    other.load_state_dict(norm.state_dict())
    assert other.half().running_var.dtype == torch.float32


def sharded(rank):
    from torch.distributed.fsdp import fully_shard
    net, batch = make_net()
    fully_shard(net)
    net(batch[SHARES[rank], :-3], batch[SHARES[rank], -3:]
        ).square().mean().backward()
    return {n: p.grad.full_tensor() for n, p in net.named_parameters()}


@pytest.mark.skipif(torch.__version__ < '2.7', reason='no fully_shard in '
                    'PyTorch 2.5, none on CPUs in 2.6')
def test_sharded_parameters(tmp_path):
    results = in_two_processes(sharded, tmp_path)
    expected = {}
    for share in SHARES:
        net, batch = make_net()
        net(batch[share, :-3], batch[share, -3:]).square().mean().backward()
        for name, p in net.named_parameters():
            expected[name] = expected.get(name, 0) + p.grad / 2
    for result in results:
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(result[name], value), name


# Optimisers ################################################################


def test_param_groups():
    model = torch.nn.ModuleDict({
        'conv': ImplicitSteerableConv(T, T, hidden=2),
        'harmonic': HarmonicSteerableConv(T, T),
        'lattice': LatticeSteerableConv(T, T, 3),
        'norm': FieldBatchNorm(T), 'act': NormActivation(T),
        'readout': InvariantReadout(T, 4), 'mlp': torch.nn.Linear(4, 4),
        'layernorm': torch.nn.LayerNorm([4, 4]), 'lstm': torch.nn.LSTM(4, 4),
        'bn': torch.nn.BatchNorm1d(4)})
    model['tied'] = model['mlp']
    decayed, others = param_groups(model, 0.3)
    assert decayed['weight_decay'] == 0.3 and others['weight_decay'] == 0.
    names = {p: name for name, p in model.named_parameters()}
    groups = [sorted(names[p] for p in g['params']) for g in (decayed, others)]
    assert sorted(groups[0] + groups[1]) == sorted(names.values())
    assert groups[0] == sorted(
        name for name in names.values() if name.endswith(
            ('product.weight', 'lin.weight', 'linear.weight',
             'kernel.product.weight', 'mlp.weight', 'layers.0.weight',
             'weight_ih_l0', 'weight_hh_l0')))
    assert {'conv.kernel.basis.sharpness', 'conv.lin.bias', 'norm.weight',
            'conv.kernel.basis.norm.weight', 'act.weight',
            'lstm.bias_ih_l0'} <= set(groups[1])
    torch.optim.AdamW(param_groups(model))


def test_param_groups_of_bad_models():
    with pytest.raises(TypeError, match="'model'"):
        param_groups(3)
    with pytest.raises(ValueError, match="'weight_decay'"):
        param_groups(Linear(T, T), -1)
    with pytest.raises(ValueError, match="'0.weight'"):
        param_groups(torch.nn.Sequential(torch.nn.LazyLinear(3)))


def test_statistics_load_from_where_they_once_were():
    """The first release kept them in the norm itself."""
    field_type = FieldType('2x0e + 1x1o', 'SO(3)')
    for make in (lambda: FieldBatchNorm(field_type),
                 lambda: LatticeSteerableConv(field_type, field_type, 3,
                                              kernel='implicit')):
        module = make()
        old, where = {}, 'stats.'
        for name, value in module.state_dict().items():
            if not name.endswith('num_batches_tracked'):
                old[name.replace(where, '')] = (
                    torch.rand_like(value) if where in name else value)
        other = make()
        other.load_state_dict(old)
        for name, value in other.state_dict().items():
            if where in name and not name.endswith('tracked'):
                assert torch.equal(value, old[name.replace(where, '')])
