from pyg_steerable import FieldType
from pyg_steerable.nn import (
    TensorProductActivation,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


class TestTensorProductActivation(EquivariantLayerTests):
    outside = 'SO(3)'

    def make(self):
        return TensorProductActivation(FieldType('2x0e + 2x1o', 'O'),
                                       FieldType('1x0e + 1x2e', 'O'))
