import torch

from pyg_steerable import FieldType, Representation
from pyg_steerable.nn import (
    Linear,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


def test_a_linear_layer_has_all_maps():
    # Any matrix that commutes with the group is reached.
    T = FieldType('1x0e + 1x1o', 'SO(2)')
    layer = Linear(T, T, bias=False).double()
    axial = torch.tensor([[1., 0, 0, 2], [0, 4, -6, 0], [0, 6, 4, 0],
                          [3, 0, 0, 5]]).double()
    columns = []
    for i in range(layer.weight.numel()):
        with torch.no_grad():
            layer.weight.zero_()[i] = 1
        columns.append(layer.matrix().detach().flatten())
    A = torch.stack(columns, 1)
    fit = torch.linalg.lstsq(A, axial.flatten()[:, None]).solution
    assert (A @ fit - axial.flatten()[:, None]).abs().max() < 1e-10
    assert torch.linalg.matrix_rank(A) == layer.weight.numel() == 6


class TestLinear(EquivariantLayerTests):
    outside = 'O(3)'

    def make(self):
        T = FieldType('2x0e + 2x1o + 1x1e', 'SO(2)')
        return Linear(T, T)


class TestLinearOfRegularFields(EquivariantLayerTests):
    def make(self):
        T = FieldType([(2, Representation.regular('D3')), (1, '1o')], 'D3')
        return Linear(T, T)
