"""Pure tensor functions: no parameters and no group theory."""
from .contract import contract, contract_reference, dense_kernel

__all__ = ['contract', 'contract_reference', 'dense_kernel']
