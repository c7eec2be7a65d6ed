"""What tests of datasets voxels share."""
import numpy as np
import torch

from pyg_steerable import Group

CUBE = torch.cat([Group('O').elements, -Group('O').elements])


def write(path, **values):
    np.savez(path, **{k: v for k, v in values.items() if v is not None})
    return str(path)


def atoms(n=40, spread=3., channels=2):
    pos = spread * torch.randn(n, 3, dtype=torch.float64)
    return pos, torch.rand(n, channels, dtype=torch.float64)


def line(name, residue, number, pos, element=None, alt=' '):
    x, y, z = pos
    name = name if len(name) == 4 else f' {name:<3}'
    element = name.strip()[0] if element is None else element
    return (f'ATOM  {1:5d} {name}{alt}{residue:>3} A{number:4d}    '
            f'{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2}\n')


def save(path, text):
    path.write_text(text)
    return str(path)
