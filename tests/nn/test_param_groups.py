import pytest
import torch
from helpers.layers_torch import T

from pyg_steerable import FieldType
from pyg_steerable.nn import (
    FieldBatchNorm,
    HarmonicSteerableConv,
    ImplicitSteerableConv,
    InvariantReadout,
    LatticeSteerableConv,
    Linear,
    NormActivation,
    param_groups,
)


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
