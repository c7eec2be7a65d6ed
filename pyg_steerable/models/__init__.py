"""The papers' networks, one file each."""
from .amino import AminoAcidCNN, AminoAcidNet
from .cath import CathCNN, CathNet
from .modelnet import ModelNetClassifier, ModelNetSegmenter
from .nbody import NBodyNet
from .potential import Potential, PotentialOutput
from .qm9 import QM9Net
from .shrec import ShrecNet
from .tetris import TetrisCNN, TetrisNet

__all__ = [
    'QM9Net',
    'Potential',
    'PotentialOutput',
    'NBodyNet',
    'ModelNetClassifier',
    'ModelNetSegmenter',
    'TetrisNet',
    'TetrisCNN',
    'ShrecNet',
    'CathNet',
    'CathCNN',
    'AminoAcidCNN',
    'AminoAcidNet',
]
