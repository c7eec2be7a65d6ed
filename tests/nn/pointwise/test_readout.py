from pyg_steerable import FieldType
from pyg_steerable.nn import (
    InvariantReadout,
)
from pyg_steerable.testing import (
    EquivariantLayerTests,
)


class TestInvariantReadout(EquivariantLayerTests):
    options = {'in_types': [FieldType('2x0e + 2x1o + 1x0o', 'SO(2)')],
               'out_types': [FieldType('3x0e', 'SO(2)')]}
    outside = 'O(3)'

    def make(self):
        return InvariantReadout(*self.options['in_types'], 3)
