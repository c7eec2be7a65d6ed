"""Kernels of networks."""
from __future__ import annotations

from ..nn.kernel import BasisSpec
from ..nn.kernel.spec import NAMED, read_spec

#: What makes kernels of molecules learn better with as many parameters: on
#: validation data, docs/results.md.
LEARNING = dict(groups='depthwise', normalize='features', constant=True,
                radial='gaussian')


def read_kernel(kernel, **options) -> BasisSpec:
    """The basis of a network's kernels: a specification as it is, or a name
    with those of the network's options that this basis has.
    """
    if isinstance(kernel, str) and kernel in NAMED:
        known = NAMED[kernel].options()
        options = {k: v for k, v in options.items() if k in known}
        return NAMED[kernel].spec(**options)
    return read_spec(kernel)
