"""How good predictions are, where no library says it."""
from .retrieval import (
    mean_average_precision,
    retrieve,
    write_retrieval_lists,
)

__all__ = ['mean_average_precision', 'retrieve', 'write_retrieval_lists']
