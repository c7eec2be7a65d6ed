from pyg_steerable import FieldType
from pyg_steerable.nn import (
    Gate,
    NormGate,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


class TestNormGate(EquivariantLayerTests):
    outside = 'O(3)'

    def make(self):
        return NormGate(FieldType('2x0e + 2x1o + 1x0o', 'SO(2)'))


class TestGate(EquivariantLayerTests):
    def make(self):
        return Gate(FieldType('2x0e + 2x1o + 1x0o', 'O(3)'))
