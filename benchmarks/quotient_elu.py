"""How far QuotientELU is from equivariance, by group and number of samples.

Prints the table of docs/equivariance.md: the largest relative error in
float64 over 20 random elements, for 16 spherical channels of degree 2.
"""
import torch

from pyg_steerable import FieldType, Group
from pyg_steerable.layers import QuotientELU
from pyg_steerable.testing import equivariance_error

GROUPS = ('C4', 'D3', 'O', 'I', 'OxInv', 'SO(2)', 'SO(2)xMxInv', 'SO(3)',
          'O(3)')
SAMPLES = (30, 108, 300, 1000, 3000)


def main():
    torch.set_num_threads(1)
    print('| group | ' + ' | '.join(f'{n}' for n in SAMPLES) + ' |')
    print('|---' * (len(SAMPLES) + 1) + '|')
    for name in GROUPS:
        cells = []
        for n in SAMPLES:
            layer = QuotientELU(FieldType.sphere(16, 2, Group(name)), n)
            error = equivariance_error(layer, dtype=torch.float64,
                                       num_samples=20)
            cells.append(f'{error:.1e} ({layer.num_samples})')
        print(f'| {name} | ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
