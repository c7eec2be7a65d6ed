"""The command line of the examples and benchmarks: help with defaults, and
the options of everything that trains.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Ends the help of every option with its default, unless the text says
    it in words.
    """
    def _get_help_string(self, action) -> str:
        default = action.default
        if 'default' in action.help or default is argparse.SUPPRESS:
            return action.help
        if isinstance(default, bool):
            default = 'on' if default else 'off'
        elif isinstance(default, (list, tuple)):
            default = ' '.join(map(str, default))
        return f'{action.help} (default: {default})'.replace('%', '%%')


def new_parser(doc: str) -> argparse.ArgumentParser:
    """A parser that shows the docstring of its script."""
    return argparse.ArgumentParser(description=doc,
                                   formatter_class=HelpFormatter)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """The options that every training run has."""
    group = parser.add_argument_group('training')
    group.add_argument('--epochs', type=int, default=100,
                       help='passes over the training set; the learning '
                       'rate follows them')
    group.add_argument('--batch-size', type=int, default=32,
                       help='items of a step, in each process')
    group.add_argument('--lr', type=float, default=1e-3,
                       help='learning rate of the first epoch')
    group.add_argument('--weight-decay', type=float, default=1e-8,
                       help="the optimiser's")
    group.add_argument('--seed', type=int, default=0,
                       help='of weights, order of the data and random '
                       'transforms')
    group.add_argument('--device', default='auto',
                       help="'auto', 'cpu', 'cuda', 'mps' (lightning's "
                       "accelerator)")
    group.add_argument('--devices', default='auto',
                       help='one for each process: as many as torchrun '
                       'starts, else 1')
    group.add_argument('--threads', type=int, default=None,
                       help='CPU threads (default: all)')
    group.add_argument('--compile', action='store_true',
                       help='torch.compile the network')
    group.add_argument('--bf16', action='store_true',
                       help='bfloat16 where autocast takes it')
    group.add_argument('--out', type=Path, default=None,
                       help='folder for logs, checkpoints and plots '
                       '(default: one in runs/, named after some options)')
    group.add_argument('--fresh', action='store_true',
                       help='start again instead of resuming from --out')
    group.add_argument('--quiet', action='store_true', help='no bars')


class Preset(argparse.Action):
    """A flag that gives other options other defaults."""
    def __init__(self, *args, presets: dict, **kwargs):
        super().__init__(*args, nargs=0, default=False, **kwargs)
        self.presets = presets

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, True)
        parser.set_defaults(**self.presets)


def add_smoke_option(parser: argparse.ArgumentParser, **presets) -> None:
    """The option of a run that is as short as possible."""
    parser.add_argument('--smoke', action=Preset, presets=presets,
                        help='seconds: does it run?')


def read_run(parser: argparse.ArgumentParser, argv,
             name: Callable[[argparse.Namespace], str]) -> argparse.Namespace:
    """Reads the command line of a training run, whose folder has this name
    in runs/ unless --out names one.
    """
    parser.parse_args(argv)  # sets the defaults of presets
    args = parser.parse_args(argv)
    if args.out is None:
        args.out = Path('runs') / name(args)
    return args
