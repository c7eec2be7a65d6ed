"""The kernels of a network, from the command line."""
from __future__ import annotations

from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.nn import NormGate, QuotientELU

ACTIVATIONS = {'gate': NormGate, 'quotient': QuotientELU}


def add_kernel_options(group, layers: int) -> None:
    """The options of read_kernel()."""
    group.add_argument('--kernel', default='implicit',
                       choices=['implicit', 'harmonic'],
                       help='implicit: a network; harmonic: harmonics and '
                       'shells')
    group.add_argument('--hidden', type=int, default=8,
                       help='fields of each degree inside of implicit kernels')
    group.add_argument('--kernel-layers', type=int, default=layers,
                       help='layers of implicit kernels')
    group.add_argument('--kernel-degree', type=int, default=None,
                       help='band-limit of the implicit kernels (default: '
                       '--degree)')


def read_kernel(args, activation=NormGate):
    """The kernel that the options ask for, as networks take it."""
    if args.kernel == 'harmonic':
        return 'harmonic'
    options = dict(hidden=args.hidden, num_layers=args.kernel_layers,
                   activation=activation)
    if args.kernel_degree is not None:
        options['max_degree'] = args.kernel_degree
    return ImplicitBasis.spec(**options)
