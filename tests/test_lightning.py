"""Training in the precisions of a real trainer, and of a plain loop."""
import logging

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_add_pool

from pyg_steerable import FieldType
from pyg_steerable.models import QM9Net
from pyg_steerable.nn import (
    FieldBatchNorm,
    HarmonicSteerableConv,
    InvariantReadout,
    NormGate,
)

L = pytest.importorskip('lightning')
# (On a CPU '16-mixed' is 'bf16-mixed': Lightning says so and goes on.)
PRECISIONS = ['32-true', '64-true', 'bf16-mixed', 'bf16-true', '16-true']


class Convolutions(torch.nn.Module):
    """What users write: layers, one after the other."""
    def __init__(self):
        super().__init__()
        fields = FieldType('4x0e + 2x1o')
        self.conv1 = HarmonicSteerableConv(FieldType('3x0e'), fields,
                                           radius=2.)
        self.norm, self.act = FieldBatchNorm(fields), NormGate(fields)
        self.conv2 = HarmonicSteerableConv(fields, fields, radius=2.)
        self.readout = InvariantReadout(fields, 1)

    def forward(self, x, pos, edge_index, batch):
        x = self.act(self.norm(self.conv1(x, pos, edge_index)))
        x = self.conv2(x, pos, edge_index)
        return global_add_pool(self.readout(x), batch)


class Molecules(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = QM9Net(3, channels=4, blocks=1, invariants=8)

    def forward(self, x, pos, edge_index, batch):
        return self.net(x, pos, edge_index, batch=batch)


MODELS = [Convolutions, Molecules]


def molecules(number=24):
    """Chains, and the square of the distance of their ends."""
    generator = torch.Generator().manual_seed(0)
    out = []
    for _ in range(number):
        n = int(torch.randint(4, 8, (), generator=generator))
        pos = torch.randn(n, 3, generator=generator)
        edge_index = torch.cartesian_prod(torch.arange(n), torch.arange(n)).T
        edge_index = edge_index[:, edge_index[0] != edge_index[1]]
        x = torch.randn(n, 3, generator=generator)
        y = (pos[0] - pos[-1]).square().sum().view(1, 1) / 4 + x.mean()
        out.append(Data(x=x, pos=pos, edge_index=edge_index, y=y))
    return DataLoader(out, batch_size=8)


def loss_of(model, batch):
    out = model(batch.x, batch.pos, batch.edge_index, batch.batch)
    return torch.nn.functional.mse_loss(out.float(), batch.y.float())


class Task(L.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model, self.losses = model, []

    def training_step(self, batch, _):
        loss = loss_of(self.model, batch)
        self.losses.append(float(loss.detach()))
        return loss

    def on_after_backward(self):
        check_gradients(self)

    def configure_optimizers(self):
        # In float16 Adam's squares of small gradients are zero: what is
        # left of its denominator must not be.
        half = next(self.parameters()).dtype == torch.float16
        return torch.optim.Adam(self.parameters(), 5e-3,
                                eps=1e-3 if half else 1e-5)


def check_gradients(module):
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert grads
    assert all(g.isfinite().all() for g in grads)


def check_losses(losses, loader):
    n = len(loader)
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert sum(losses[-n:]) < 0.8 * sum(losses[:n]), losses

@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('model', MODELS)
def test_trainer(model, precision, tmp_path):
    torch.manual_seed(0)
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    task, loader = Task(model()), molecules()
    trainer = L.Trainer(
        accelerator='cpu', devices=1, precision=precision, max_epochs=12,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path)
    trainer.fit(task, loader)
    check_losses(task.losses, loader)
    for name, value in task.model.state_dict().items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('model', MODELS)
def test_plain_loop_with_autocast(model, dtype):
    torch.manual_seed(0)
    model, loader, losses = model(), molecules(), []
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    scaler = torch.amp.GradScaler('cpu', enabled=dtype == torch.float16)
    for _ in range(12):
        for batch in loader:
            with torch.autocast('cpu', dtype=dtype):
                loss = loss_of(model, batch)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(loss.detach()))
    check_losses(losses, loader)
    # The scaler halves its scale, 2^16 at first, where gradients overflow.
    assert not scaler.is_enabled() or scaler.get_scale() >= 2**10


@pytest.mark.parametrize('model', MODELS)
def test_default_dtype(model):
    """Models and graphs made under float64 are in float64 throughout."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model = model()
        assert {t.dtype for t in model.state_dict().values()
                if t.is_floating_point()} == {torch.float64}
        batch = next(iter(molecules()))
        out = model(batch.x.double(), batch.pos.double(), batch.edge_index,
                    batch.batch)
        assert out.dtype == torch.float64
        out.sum().backward()
        check_gradients(model)
    finally:
        torch.set_default_dtype(before)
