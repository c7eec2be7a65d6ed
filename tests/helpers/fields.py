"""What tests of fields share."""
import torch

from pyg_steerable import Group, Representation


def elements(name='O(3)', n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Group(name).sample(n, generator=generator)


def regular(name):
    return Representation.regular(name)


C4, SO2 = Group('C4'), Group('SO(2)')
