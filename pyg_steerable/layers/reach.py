"""Fields of an output that nothing leads to are named."""
from __future__ import annotations

import warnings

from ..fields import FieldType

#: A map of more numbers than this is a mistake: 8 GB.
MAX_MAP = 2**31


def warn_unreached(layer: str, unreached: list[tuple], out_type: FieldType,
                   sources: str) -> None:
    """Warns of blocks of an output that are zero whatever the weights."""
    if unreached:
        fields = ' + '.join(f'{mul}x{rep}' for mul, rep in unreached)
        warnings.warn(
            f"The fields {fields} of the output {out_type} of {layer} are "
            f"always zero: no equivariant map leads to them from {sources}. "
            f"Leave them out, or give the input fields of higher degree or "
            f"other parity", stacklevel=4)
