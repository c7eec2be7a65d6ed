"""The contraction of steerable features with neighbours' features."""
from .backends import Backend, check_backend
from .backends import register as register_backend
from .contract import contract
from .couplings import Coupling, Couplings
from .plan import ORDERS, check_order
from .reference import dense_kernel

__all__ = ['contract', 'dense_kernel', 'Coupling', 'Couplings', 'Backend',
           'register_backend', 'check_backend', 'check_order', 'ORDERS']
