"""Every model in two processes: gradients are those of one process.

The processes run once, through all cases, and leave their findings in a
folder. Norms are in eval mode: those of a batch differ between processes by
nature (see :meth:`torch.nn.SyncBatchNorm.convert_sync_batchnorm`).
"""
import copy
import os
import traceback

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pyg_steerable import FieldType
from pyg_steerable.models import (
    AminoAcidCNN,
    AminoAcidNet,
    CathCNN,
    CathNet,
    ModelNetClassifier,
    ModelNetSegmenter,
    QM9Net,
    ShrecNet,
    TetrisCNN,
    TetrisNet,
)
from pyg_steerable.nn import LatticeBlock, LatticeSteerableConv

WORLD, STEPS, BATCH = 2, 5, 4
T = FieldType('2x0e + 1x1o', 'SO(3)')


def voxels(channels, size):
    """A batch of voxels; entry i of all, or some of them."""
    data = torch.rand(BATCH, channels, size, size, size, dtype=torch.float64)
    return lambda which: (data[which], )


def clouds(molecules):
    """The same of point clouds of 16 points."""
    pos = torch.randn(BATCH, 16, 3, dtype=torch.float64)
    x = torch.rand(BATCH, 16, 5, dtype=torch.float64)
    edges = torch.combinations(torch.arange(16)).T
    edges = torch.cat([edges, edges.flip(0)], dim=1)[:, ::5]

    def some(which):
        p = pos[which]
        n = len(p)
        batch = torch.arange(n).repeat_interleave(16)
        if not molecules:
            return p.flatten(0, 1) / 3, batch  # in the unit ball
        graph = torch.cat([edges + 16 * i for i in range(n)], dim=1)
        return x[which].flatten(0, 1), p.flatten(0, 1), graph, None, batch

    return some


def layer(*args, **kwargs):
    return torch.nn.Sequential(LatticeSteerableConv(*args, **kwargs))


NARROW = dict(fields=('2x0e + 1x1o', '2x0e + 1x1o'), invariants=4,
              strides=(1, 2, 1))
CUBE = dict(size=37, hidden=4)
POINTS = dict(channels=2, max_degree=1, ratios=(1., 1.), k=5,
              num_points=16, dropout=0., mlp=4)
MODELS = {
    'conv': (lambda: layer(T, T, 3), lambda: voxels(5, 4)),
    'implicit': (lambda: layer(T, T, 3, kernel='implicit', root_weight=True),
                 lambda: voxels(5, 4)),
    'block': (lambda: LatticeBlock(T, T, 3, norm=True),
              lambda: voxels(5, 4)),
    'TetrisNet': (lambda: TetrisNet(3, **NARROW), lambda: voxels(1, 7)),
    'TetrisCNN': (lambda: TetrisCNN(3, channels=(2, 3), strides=(1, 2)),
                  lambda: voxels(1, 7)),
    'ShrecNet': (lambda: ShrecNet(3, **NARROW), lambda: voxels(1, 7)),
    'CathNet': (lambda: CathNet(3, channels=(1, 2), blocks=(1, 1),
                                max_degree=2, invariants=4),
                lambda: voxels(1, 9)),
    'CathCNN': (lambda: CathCNN(3, channels=(2, 3), blocks=(1, 1)),
                lambda: voxels(1, 9)),
    'AminoAcidNet': (lambda: AminoAcidNet(3, channels=4 * (1, ), max_degree=1,
                                          **CUBE), lambda: voxels(2, 37)),
    'AminoAcidCNN': (lambda: AminoAcidCNN(3, channels=4 * (2, ), **CUBE),
                     lambda: voxels(2, 37)),
    'QM9Net': (lambda: QM9Net(5, channels=2, blocks=1, invariants=4),
               lambda: clouds(True)),
    'ModelNetClassifier': (lambda: ModelNetClassifier(
        3, invariants=4, **POINTS), lambda: clouds(False)),
    'ModelNetSegmenter': (lambda: ModelNetSegmenter(3, **POINTS),
                          lambda: clouds(False)),
}
SHARDED = ['QM9Net', 'CathNet']


def build(name):
    torch.manual_seed(0)
    make, data = MODELS[name]
    return make().double().eval(), data()


def loss(out):
    return (out - 1).square().mean()


def largest(pairs):
    """The largest difference, in units of the largest entry."""
    return max(float((a - b).abs().max() / (b.abs().max() + 1e-12))
               for a, b in pairs)


def mine(rank):
    return slice(rank * BATCH // WORLD, (rank + 1) * BATCH // WORLD)


def distributed(name, rank):
    model, data = build(name)
    alone = copy.deepcopy(model)
    model = DistributedDataParallel(model)
    errors = []
    for _ in range(STEPS):
        for net, which in ((model, mine(rank)), (alone, slice(None))):
            net.zero_grad()
            loss(net(*data(which))).backward()
        grads = [(p.grad, q.grad) for p, q in zip(model.parameters(),
                                                  alone.parameters())]
        errors.append(largest(grads))
        with torch.no_grad():
            for net in (model, alone):
                for p in net.parameters():
                    p -= 1e-2 * p.grad / (1 + p.grad.norm())
    return errors


def sharded(name, rank):
    from torch.distributed.fsdp import fully_shard
    model, data = build(name)
    alone = copy.deepcopy(model)
    fully_shard(model)
    nets = [(net, torch.optim.Adam(net.parameters(), 1e-2), which)
            for net, which in ((model, mine(rank)), (alone, slice(None)))]
    errors = []
    for _ in range(3):
        outs = []
        for net, optimizer, which in nets:
            optimizer.zero_grad()
            out = net(*data(which))
            loss(out).backward()
            optimizer.step()
            outs.append(out.detach())
        n = len(outs[0])
        errors.append(largest([(outs[0], outs[1][rank * n:][:n])]))
    return errors


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', rank=rank, world_size=WORLD,
                            init_method=f'file://{folder}/store')
    cases = [(distributed, name) for name in MODELS]
    cases += [(sharded, name) for name in SHARDED]
    for function, name in cases:
        try:
            found = function(name, rank)
        except Exception:
            found = traceback.format_exc()
        torch.save(found, f'{folder}/{function.__name__}_{name}_{rank}')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What two processes found."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip('no gloo')
    folder = str(tmp_path_factory.mktemp('ddp'))
    threads = os.environ.get('OMP_NUM_THREADS')
    os.environ['OMP_NUM_THREADS'] = '1'
    try:
        torch.multiprocessing.spawn(work, (folder, ), WORLD)
    finally:
        os.environ.pop('OMP_NUM_THREADS')
        if threads is not None:
            os.environ['OMP_NUM_THREADS'] = threads
    return folder


def check(folder, kind, name, steps):
    for rank in range(WORLD):
        errors = torch.load(f'{folder}/{kind}_{name}_{rank}')
        assert not isinstance(errors, str), errors
        assert len(errors) == steps and max(errors) < 1e-9


@pytest.mark.parametrize('name', MODELS)
def test_gradients_are_those_of_one_process(folder, name):
    check(folder, 'distributed', name, STEPS)


@pytest.mark.parametrize('name', SHARDED)
def test_sharded_parameters(folder, name):
    check(folder, 'sharded', name, 3)


@pytest.mark.parametrize('name', MODELS)
def test_every_parameter_is_used(name):
    model, data = build(name)
    model.train()
    loss(model(*data(slice(None)))).backward()
    for key, p in model.named_parameters():
        assert p.numel() and p.dim(), key
        assert p.grad is not None, key
