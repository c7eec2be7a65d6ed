"""Pure tensor functions: no parameters and no group theory."""
from .contract import (
    ORDERS,
    Backend,
    Coupling,
    Couplings,
    contract,
    dense_kernel,
    register_backend,
)

__all__ = ['contract', 'dense_kernel', 'Coupling', 'Couplings', 'Backend',
           'register_backend', 'ORDERS']
