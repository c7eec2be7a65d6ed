"""How far QuotientELU is from equivariance, by group and number of samples.

``python -m benchmarks.quotient_elu`` prints the tables of
docs/equivariance.md: the largest relative error in float64 over 20 random
elements, for 16 spherical channels of degree 2; and how far the logits of a
whole classifier are from invariance, in units of their deviation, beside its
activations alone.
"""
from functools import partial

import torch

from benchmarks.report import print_head, print_row
from pyg_steerable import FieldType, Group
from pyg_steerable.models import ModelNetClassifier
from pyg_steerable.nn import NormGate, QuotientELU
from pyg_steerable.testing import equivariance_error

GROUPS = ('C4', 'D3', 'O', 'I', 'OxInv', 'SO(2)', 'SO(2)xMxInv', 'SO(3)',
          'O(3)')
SAMPLES = (30, 108, 300, 1000, 3000)


#: Those of the paper on implicit kernels.
EIGHT = ('M', 'Inv', 'SO(2)xInv', 'SO(2)', 'SO(2)xF', 'SO(2)xM', 'SO(3)',
         'O(3)')
ACTIVATIONS = {
    'NormGate': NormGate,
    '108 samples': partial(QuotientELU, samples=108),
    '1000 samples': partial(QuotientELU, samples=1000),
}


def layers():
    """The activation alone."""
    print_head(['group', *SAMPLES])
    for name in GROUPS:
        cells = []
        for n in SAMPLES:
            layer = QuotientELU(FieldType.sphere(16, 2, Group(name)), n)
            error = equivariance_error(layer, dtype=torch.float64,
                                       num_samples=20)
            cells.append(f'{error:.1e} ({layer.num_samples})')
        print_row([name, *cells])


@torch.no_grad()
def change(model, pos, batch, group):
    """The largest change of a logit, in units of their deviation."""
    levels = model.levels(pos, batch)
    before, worst = model(pos, batch, levels=levels), 0.
    for g in Group(group).sample(20):
        moved = [v._replace(pos=v.pos @ g.T) for v in levels]
        after = model(pos @ g.T, batch, levels=moved)
        worst = max(worst, float((after - before).abs().max()))
    return worst / float(before.std())


def classifier(name, kernel, activation):
    """Errors of the activations, and of the logits under the group and
    under O(3).
    """
    torch.manual_seed(0)
    batch = torch.arange(8).repeat_interleave(256)
    pos = torch.randn(len(batch), 3, dtype=torch.float64)
    pos = pos / pos.norm(dim=1, keepdim=True) * torch.tensor([1., .8, .6])
    model = ModelNetClassifier(10, group=name, kernel=kernel, channels=4,
                               num_points=256, activation=activation)
    model.double()(pos, batch)  # statistics
    model.eval()
    alone = max(equivariance_error(act, dtype=torch.float64, num_samples=20)
                for act in model.encoder.acts)
    return [alone] + [change(model, pos, batch, group)
                      for group in (name, 'O(3)')]


def classifiers():
    """The whole network."""
    for kernel in ('implicit', 'harmonic'):
        print(f'\n{kernel} kernels: logits moved by the group (activation '
              f'alone)\n')
        print_head(['group', *ACTIVATIONS, 'O(3)'])
        for name in EIGHT:
            cells = []
            for activation in ACTIVATIONS.values():
                alone, own, outside = classifier(name, kernel, activation)
                cells.append(f'{own:.1e} ({alone:.1e})')
            cells.append('' if name == 'O(3)' else f'{outside:.1g}')
            print_row([name, *cells])


def main():
    torch.set_num_threads(1)
    layers()
    classifiers()


if __name__ == '__main__':
    main()
