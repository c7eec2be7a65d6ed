from pyg_steerable import FieldType
from pyg_steerable.nn import (
    NormActivation,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


class TestNormActivation(EquivariantLayerTests):
    def make(self):
        return NormActivation(FieldType('2x0e + 2x1o + 1x0o', 'O(3)'))
