r"""The motion of a few bodies: made here, or read from a file.

The task of `"E(n) Equivariant Graph Neural Networks"
<https://arxiv.org/abs/2102.09844>`_ (Satorras et al., 2021), section 5.1, and
of the papers after it: from the positions and velocities of charged particles
at one moment, where are they later?

The layout of an ``.npz`` file, for each of the splits ``train``, ``valid`` and
``test``: ``train_charge`` ``[n, N]``, ``train_pos``, ``train_vel`` and
``train_target`` (the later positions) ``[n, N, 3]``, numbers of any kind. A
file need not hold all splits.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from .. import checks, files
from .archive import Arrays, load_npz, save_npz
from .base import read_transform

__all__ = ['NBodySystem', 'NBodyTrajectories', 'generate_nbody',
           'load_nbody', 'save_nbody']

LAWS = ('charged', 'gravity', 'springs')
SPLITS = ('train', 'valid', 'test')
_KEYS = ('charge', 'pos', 'vel', 'target')
#: Far beyond these systems: particles, and any number in a file.
_MOST, _FAR = 2**10, 1e6
#: Trajectories that are made together: what a cache holds.
_TOGETHER = 512


@dataclass(frozen=True)
class NBodySystem:
    r"""A law of motion of particles with charges :math:`q`, at positions
    :math:`\mathbf{r}`,

    .. math::
        m_i \ddot{\mathbf{r}}_i = \sum_{j \neq i} \mathbf{F}_{ij}
        - \kappa \, z_i \mathbf{e}_z

    with one of the forces

    .. math::
        \mathbf{F}_{ij} = \pm s \, q_i q_j
        \frac{\mathbf{r}_i - \mathbf{r}_j}
        {\max(|\mathbf{r}_i - \mathbf{r}_j|, R)^3}
        \quad \text{or} \quad
        \mathbf{F}_{ij} = - s \, q_i q_j (\mathbf{r}_i - \mathbf{r}_j).

    :obj:`"charged"`: the first one with :math:`+` and masses of 1;
    :obj:`"gravity"`: the first one with :math:`-`, where charges are the
    masses; :obj:`"springs"`: the second one and masses of 1. Two particles
    that are closer than :math:`R` pull as if one were spread evenly over a
    ball: forces have no pole, and there is an energy. (The published
    generator cuts the components of the force at 100 instead, which is
    :math:`R = 0.1` in all but close encounters, but depends on the axes.)

    A spring of stiffness :math:`\kappa` ties each particle to the plane
    :math:`z = 0`, as in `"Implicit Neural Convolutional Kernels for Steerable
    CNNs" <https://arxiv.org/abs/2212.06096>`_ (published version): without
    it the motion commutes with O(3) and translations, with it only with what
    keeps the plane, such as SO(2)xM. Numbers are in units of one's choice.

    Args:
        law (str, optional): (default: :obj:`"charged"`)
        stiffness (float, optional): :math:`\kappa`. (default: :obj:`0.0`)
        strength (float, optional): :math:`s`. (default: :obj:`1.0`)
        core (float, optional): :math:`R`. (default: :obj:`0.1`)

    Raises:
        ValueError: If the law is unknown, or a number negative.
        TypeError: If an argument is of another kind.
    """
    law: str = 'charged'
    stiffness: float = 0.
    strength: float = 1.
    core: float = 0.1

    def __post_init__(self):
        checks.choice('law', self.law, LAWS)
        checks.real('stiffness', self.stiffness, 0, 1e6)
        checks.real('strength', self.strength, 0, 1e6)
        checks.real('core', self.core, 1e-3, 1e6)

    def acceleration(self, charge: Tensor, pos: Tensor) -> Tensor:
        """Of each particle.

        Shapes:
            - **charge:** :math:`[n, N]`, **pos:** :math:`[n, N, 3]`,
              **output:** :math:`[n, N, 3]`
        """
        _check_state(charge, pos)
        return self._acceleration(charge, pos)

    def _acceleration(self, charge: Tensor, pos: Tensor) -> Tensor:
        between = pos[:, :, None] - pos[:, None]
        weight = self._signed * charge[:, None]
        if self.law != 'springs':
            distance = between.square().sum(-1).sqrt().clamp(min=self.core)
            weight = weight / distance**3
        if self.law != 'gravity':  # there the mass takes the charge off
            weight = weight * charge[:, :, None]
        out = (weight[..., None] * between).sum(2)
        if self.stiffness:
            out[..., 2] -= self.stiffness * pos[..., 2] / self._mass(charge)
        return out

    @property
    def _signed(self) -> float:
        return self.strength if self.law == 'charged' else -self.strength

    def _mass(self, charge: Tensor) -> Tensor:
        return charge if self.law == 'gravity' else torch.ones_like(charge)

    def energy(self, charge: Tensor, pos: Tensor, vel: Tensor) -> Tensor:
        """Of each system, kinetic and potential: what the motion keeps.

        Shapes:
            - **charge:** :math:`[n, N]`, **pos** and **vel:**
              :math:`[n, N, 3]`, **output:** :math:`[n]`
        """
        _check_state(charge, pos, vel=vel)
        square = (pos[:, :, None] - pos[:, None]).square().sum(-1)
        if self.law == 'springs':
            pair = -square / 2
        else:
            inside = (3 - square / self.core**2) / (2 * self.core)
            outside = square.clamp(min=self.core**2).rsqrt()
            pair = torch.where(square < self.core**2, inside, outside)
        pair = self._signed * charge[:, :, None] * charge[:, None] * pair
        pairs = pair.triu(1).sum((1, 2))
        mass = self._mass(charge)
        return (pairs + (mass * vel.square().sum(-1)).sum(1) / 2
                + self.stiffness * pos[..., 2].square().sum(1) / 2)

    def simulate(self, charge: Tensor, pos: Tensor, vel: Tensor,
                 steps: int, dt: float = 1e-3) -> tuple[Tensor, Tensor]:
        r"""Positions and velocities after so many steps, by leap-frog
        (kick - drift - kick): second order, reversible, without a drift of
        the energy.

        Args:
            charge (Tensor): Charges or masses of the particles.
            pos (Tensor): Where they start.
            vel (Tensor): With which velocity.
            steps (int): The number of steps.
            dt (float, optional): The time of a step.
                (default: :obj:`0.001`)

        Shapes:
            - **charge:** :math:`[n, N]`, **pos** and **vel:**
              :math:`[n, N, 3]`, also of the outputs

        Raises:
            ValueError: If shapes do not fit.
            TypeError: If an argument is of another kind.
        """
        _check_state(charge, pos, vel=vel)
        steps = checks.integer('steps', steps, 0, 2**24)
        dt = checks.real('dt', dt, -1., 1.)
        parts = [self._leap(q, r, v, steps, dt) for q, r, v in zip(
            *(t.split(_TOGETHER) for t in (charge, pos, vel)))]
        first, second = (torch.cat(values) for values in zip(*parts))
        return first, second

    def _leap(self, charge, pos, vel, steps, dt):
        force = self._acceleration(charge, pos)
        for _ in range(steps):
            vel = vel + dt / 2 * force
            pos = pos + dt * vel
            force = self._acceleration(charge, pos)
            vel = vel + dt / 2 * force
        return pos, vel


def _check_state(charge: Tensor, pos: Tensor, **vectors: Tensor) -> None:
    checks.tensor('pos', pos)
    checks.shaped('pos', pos, (None, None, 3), '[n, N, 3]')
    checks.has_values('pos', pos, 'the motion')
    n, size = pos.shape[:2]
    checks.amount('pairs of particles', n, size, size)
    checks.tensor('charge', charge, checks.FLOATING)
    checks.shaped('charge', charge, (n, size), '[n, N]')
    for name, value in vectors.items():
        checks.tensor(name, value)
        checks.shaped(name, value, (n, size, 3), '[n, N, 3]')
    checks.same_device(pos=pos, charge=charge, **vectors)


class NBodyTrajectories(InMemoryDataset):
    r"""Positions and velocities of particles and their positions later; made
    by :meth:`generate_nbody` or :meth:`load_nbody`.

    Each item is a :class:`~torch_geometric.data.Data` of one system, with

    * :obj:`charge` float ``[N, 1]``: charges or masses
    * :obj:`pos` and :obj:`vel` float ``[N, 3]``: positions and velocities
    * :obj:`y` float ``[N, 3]``: the later positions
    * :obj:`edge_index` long ``[2, N (N - 1)]``: all pairs, both directions

    Args:
        charge (Tensor): Those of all systems.
        pos (Tensor): Their positions.
        vel (Tensor): Their velocities.
        target (Tensor): Their later positions.
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Shapes:
        - **charge:** :math:`[n, N]`, **pos**, **vel** and **target:**
          :math:`[n, N, 3]`

    Raises:
        ValueError: If shapes do not fit, or numbers are not finite.
        TypeError: If an argument is of another kind.
    """
    def __init__(self, charge: Tensor, pos: Tensor, vel: Tensor,
                 target: Tensor,
                 transform: Callable[[Data], Data] | None = None) -> None:
        super().__init__(None, read_transform(transform))
        charge = checks.tensor('charge', charge, checks.NUMBERS[:-1],
                               'a tensor of charges')
        _check_state(charge.float(), pos, vel=vel, target=target)
        n, size = charge.shape
        if not n or not 0 < size <= _MOST:
            raise ValueError(f"Expected 'charge' of one system or more, with "
                             f"1 to {_MOST} particles (got "
                             f"{list(charge.shape)})")
        for name, value in (('charge', charge), ('pos', pos), ('vel', vel),
                            ('target', target)):
            if not bool((value.abs() <= _FAR).all()):
                checks.finite(name, value, 'system')
                raise ValueError(f"Expected '{name}' in [-{_FAR:g}, {_FAR:g}]"
                                 f" (got {float(value.abs().max())})")
        # copies: items must not change with what was given
        fields = {name: value.float().flatten(0, 1).clone() for name, value
                  in (('charge', charge[..., None]), ('pos', pos),
                      ('vel', vel), ('y', target))}
        pair = (~torch.eye(size, dtype=torch.bool)).nonzero().T
        self._data = Data(**fields, edge_index=pair.repeat(1, n))
        starts = torch.arange(n + 1)
        self.slices = {**dict.fromkeys(fields, size * starts),
                       'edge_index': pair.shape[1] * starts}


def generate_nbody(num: int, system: NBodySystem | None = None,
                   num_particles: int = 5, *, start: int = 3100,
                   steps: int = 1000, dt: float = 1e-3, seed: int = 0
                   ) -> NBodyTrajectories:
    r"""Simulates systems from random beginnings: positions are standard
    normal, velocities have the norm 0.5, charges are :math:`\pm 1`, masses
    and the coefficients of springs uniform in [0.5, 1.5). The defaults are
    the charged systems of the papers.

    Args:
        num (int): The number of systems.
        system (NBodySystem, optional): The law of motion.
            (default: :obj:`NBodySystem()`, charged particles)
        num_particles (int, optional): Of each system. (default: :obj:`5`)
        start (int, optional): The steps before positions and velocities are
            taken. (default: :obj:`3100`)
        steps (int, optional): The steps from there to the positions that are
            to be predicted. (default: :obj:`1000`)
        dt (float, optional): The time of a step. (default: :obj:`0.001`)
        seed (int, optional): (default: :obj:`0`)

    Raises:
        ValueError: If a number is negative or too large.
        TypeError: If an argument is of another kind.

    Example:
        >>> plane = NBodySystem('springs', stiffness=2., strength=0.1)
        >>> train = generate_nbody(3000, plane, seed=1)
        >>> train[0].pos.shape
        torch.Size([5, 3])
    """
    num = checks.integer('num', num, 1, 2**20)
    size = checks.integer('num_particles', num_particles, 1, _MOST)
    checks.amount('pairs of particles', num, size, size)
    system = NBodySystem() if system is None else system
    if not isinstance(system, NBodySystem):
        raise TypeError(f"Expected 'system' to be an NBodySystem (got "
                        f"{checks.show(system)})")
    seed = checks.integer('seed', seed, 0, 2**63 - 1)
    generator = torch.Generator('cpu').manual_seed(seed)

    def draw(kind, *shape: int) -> Tensor:
        return kind(*shape, generator=generator, dtype=torch.float64,
                    device='cpu')

    pos, vel = draw(torch.randn, num, size, 3), draw(torch.randn, num, size, 3)
    vel = 0.5 * torch.nn.functional.normalize(vel, dim=-1)
    charge = draw(torch.rand, num, size)
    charge = (2. * (charge < 0.5) - 1 if system.law == 'charged' else
              0.5 + charge)
    pos, vel = system.simulate(charge, pos, vel,
                               checks.integer('start', start, 0, 2**24), dt)
    target, _ = system.simulate(charge, pos, vel, steps, dt)
    return NBodyTrajectories(charge, pos, vel, target)


def load_nbody(path: str, split: str = 'train',
               transform: Callable[[Data], Data] | None = None
               ) -> NBodyTrajectories:
    """Reads a split from a file in the layout of this module.

    Args:
        path (str): The ``.npz`` file.
        split (str, optional): :obj:`"train"`, :obj:`"valid"` or
            :obj:`"test"`. (default: :obj:`"train"`)
        transform (callable, optional): Applied at every access.
            (default: :obj:`None`)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, lacks an array, or the arrays do not
            fit.
    """
    checks.choice('split', split, SPLITS)
    read_transform(transform)
    names = [f'{split}_{key}' for key in _KEYS]
    arrays = load_npz(path, names)
    with files.reading(os.fspath(path), 'trajectories'):
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f'Expected the arrays {names} (got no '
                             f'{missing})')
        charge, pos, vel, target = (_numbers(n, arrays) for n in names)
        return NBodyTrajectories(charge, pos, vel, target, transform)


def _numbers(name: str, arrays: Arrays) -> Tensor:
    """An array of a file, of which float64 holds every number."""
    if arrays[name].dtype.kind not in 'iuf':
        raise ValueError(f"Expected '{name}' to hold numbers (got "
                         f"{arrays[name].dtype})")
    return torch.from_numpy(arrays[name].astype(np.float64))


def save_nbody(path: str, **splits: NBodyTrajectories) -> None:
    """Writes a file in the layout of this module.

    .. code-block:: python

        save_nbody('nbody.npz', train=generate_nbody(3000, seed=1),
                   valid=generate_nbody(2000, seed=2))

    Args:
        path (str): The file, which ends in ``.npz``.
        **splits (NBodyTrajectories): By name: :obj:`train`, :obj:`valid`,
            :obj:`test`.

    Raises:
        ValueError: If a split is unknown, or there is none, or the path is
            that of another kind of file.
        TypeError: If an argument is of another kind.
    """
    path = checks.path('path', path)
    if not path.endswith('.npz'):
        raise ValueError(f"Expected 'path' to end in '.npz' (got {path!r})")
    if not splits:
        raise ValueError(f"Expected 'splits' to be one of {list(SPLITS)} or "
                         f"more (got none)")
    arrays: Arrays = {}
    for split, data in splits.items():
        checks.choice('split', split, SPLITS)
        if not isinstance(data, NBodyTrajectories):
            raise TypeError(f"Expected '{split}' to be NBodyTrajectories "
                            f"(got {checks.show(data)})")
        for key, name in zip(_KEYS, ('charge', 'pos', 'vel', 'y')):
            value = getattr(data, name)
            arrays[f'{split}_{key}'] = value.view(
                len(data), -1, *value.shape[1:]).numpy()
        arrays[f'{split}_charge'] = arrays[f'{split}_charge'][..., 0]
    save_npz(path, arrays)
