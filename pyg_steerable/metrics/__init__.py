"""How good predictions are, where no library says it."""
from .retrieval import mean_average_precision, retrieve

__all__ = ['mean_average_precision', 'retrieve']
