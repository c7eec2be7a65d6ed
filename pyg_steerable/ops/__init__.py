"""Pure tensor functions: no parameters and no group theory."""
from .contract import ORDERS, contract
from .paths import Path
from .reference import contract_reference, dense_kernel

__all__ = ['contract', 'contract_reference', 'dense_kernel', 'Path',
           'ORDERS']
