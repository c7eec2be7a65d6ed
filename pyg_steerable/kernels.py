"""Steerable bases, and the kernel on top of them: the names of
:mod:`pyg_steerable.nn.kernel`.
"""
from .nn.kernel import *  # noqa: F403
from .nn.kernel import __all__  # noqa: F401
