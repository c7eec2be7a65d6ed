r"""How the settings of examples/digits.py were chosen: by the accuracy of its
network for SO(2) on validation images turned by all angles. Test images are
not looked at::

    python -m benchmarks.digits
    python -m benchmarks.digits --sides 21 --low-pass 2 --epochs 5

Each setting is trained once, on upright images. The plain CNN is trained
beside it with the first filter only: its accuracy chooses nothing.
"""
from __future__ import annotations

import itertools

import torch

from benchmarks.commandline import new_parser
from benchmarks.report import (
    add_json_option,
    print_head,
    print_row,
    save_report,
)
from examples import digits

#: The largest digits (of an odd number of pixels, as SIDE) whose corners stay
#: inside when they are turned.
DIGIT = {17: 11, 21: 15, 25: 17}
WIDTHS = ('4x0e + 4x1o + 2x2e', '4x0e + 2x1o + 1x2e', '6x0e + 6x1o + 3x2e')


def build_parser():
    parser = new_parser(__doc__)
    parser.add_argument('--sides', nargs='+', type=int, default=list(DIGIT),
                        choices=list(DIGIT), help='sizes of the images')
    parser.add_argument('--widths', nargs='+', default=list(WIDTHS),
                        help='hidden fields')
    parser.add_argument('--low-pass', nargs='+', type=float, default=[2, 3],
                        help='scales of the filter before each stride of 2')
    parser.add_argument('--epochs', type=int, default=30,
                        help='passes over the training images')
    parser.add_argument('--rate', type=float, default=3e-2,
                        help='learning rate')
    parser.add_argument('--seed', type=int, default=0,
                        help='of weights and split')
    add_json_option(parser)
    return parser


def main(argv=None) -> list[dict]:
    """Prints a row for each setting; returns their accuracies."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    results = []
    print_head(['network', 'SIDE', 'DIGIT', 'low-pass', 'hidden',
                'parameters', 'valid upright', 'valid turned'])
    for name, side, scale, hidden in itertools.product(
            ('SO(2)', 'CNN'), args.sides, args.low_pass, args.widths):
        if name == 'CNN' and (scale != args.low_pass[0] or
                              hidden != args.widths[0]):
            continue
        digits.SIDE, digits.DIGIT = side, DIGIT[side]
        digits.LOW_PASS, digits.HIDDEN = scale, hidden
        data, valid, _ = digits.load(args.seed)
        upright, _, net = digits.train(name, args.rate, args.seed,
                                       args.epochs, data, valid)
        turned = [digits.accuracy(net, valid, a) for a in digits.ANGLES]
        results.append({'network': name, 'SIDE': side, 'DIGIT': DIGIT[side],
                        'LOW_PASS': scale, 'HIDDEN': hidden,
                        'parameters': digits.count(net), 'upright': upright,
                        'turned': sum(turned) / len(turned)})
        *cells, upright, turned = results[-1].values()
        print_row([*cells, f'{upright:.1%}', f'{turned:.1%}'])
    save_report(args, results)
    return results


if __name__ == '__main__':
    main()
