import copy
import os

import pytest
import torch
from helpers.layers_torch import T, same_tensors
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim.swa_utils import update_bn

from pyg_steerable import FieldType
from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.nn import (
    FieldBatchNorm,
    ImplicitSteerableConv,
    LatticeSteerableConv,
    Linear,
    NormGate,
)


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
