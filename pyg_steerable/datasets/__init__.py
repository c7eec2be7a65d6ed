"""Datasets in the form that the layers and examples here expect."""
from pyg_steerable.datasets.ogb import OGBFeatures
from pyg_steerable.datasets.qm9 import (
    TARGETS,
    QM9Molecules,
    Split,
    Target,
    load_qm9,
    split_qm9,
)

__all__ = classes = [
    'OGBFeatures',
    'QM9Molecules',
    'Split',
    'TARGETS',
    'Target',
    'load_qm9',
    'split_qm9',
]
