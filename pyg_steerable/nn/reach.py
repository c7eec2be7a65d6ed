"""Fields of an output that nothing leads to are named."""
from __future__ import annotations

import sys
import warnings

from ..symmetry.fields import FieldType

#: A map of more numbers than this is a mistake: 8 GB.
MAX_MAP = 2**31


def warn_unreached(layer: str, unreached: list[tuple], out_type: FieldType,
                   sources: str, reason: str = 'no equivariant map leads to '
                   'them from') -> None:
    """Warns of blocks of an output that are zero whatever the weights, in
    the line of the user's that builds the layer.
    """
    if unreached:
        fields = ' + '.join(f'{mul}x{rep}' for mul, rep in unreached)
        warnings.warn(
            f'The fields {fields} of the output {out_type} of {layer} are '
            f'always zero: {reason} {sources}. Leave them out, or give the '
            f'input fields of higher degree or other parity',
            stacklevel=_outside())


def _outside() -> int:
    """The stack level of the first caller outside of this package."""
    frame, level = sys._getframe(1), 1
    package = __name__.split('.')[0]
    while frame.f_back and frame.f_globals['__name__'].split(
            '.')[0] == package:
        frame, level = frame.f_back, level + 1
    return level
