"""The papers' networks, one file each."""
from .modelnet import ModelNetClassifier, ModelNetSegmenter
from .qm9 import QM9Net

__all__ = ['QM9Net', 'ModelNetClassifier', 'ModelNetSegmenter']
