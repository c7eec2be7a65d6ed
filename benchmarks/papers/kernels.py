"""The kernels of a network, from the command line."""
from __future__ import annotations

from pyg_steerable.kernels import ImplicitBasis
from pyg_steerable.nn import NormGate, QuotientELU

ACTIVATIONS = {'gate': NormGate, 'quotient': QuotientELU}


def add_kernel_options(group, layers: int, activation: str) -> None:
    """The options of network_options(), with these defaults."""
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
    group.add_argument('--activation', default=activation,
                       choices=list(ACTIVATIONS),
                       help='in the network and in its kernels')


def network_options(args, kernel: str | None = None) -> dict:
    """The kernel (by default the one that is asked for) and the activation
    of a network.
    """
    activation, spec = ACTIVATIONS[args.activation], kernel or args.kernel
    if spec == 'implicit':
        options = dict(hidden=args.hidden, num_layers=args.kernel_layers,
                       activation=activation)
        if args.kernel_degree is not None:
            options['max_degree'] = args.kernel_degree
        spec = ImplicitBasis.spec(**options)
    return dict(kernel=spec, activation=activation)
