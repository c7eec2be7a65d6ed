"""Functions of the distance, as scalar inputs of kernel networks."""
from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.nn import Parameter

from ... import checks
from ...symmetry.fields import FieldType
from ..field import ROWS, Example, FieldModule
from .basis import count

#: Those that have a name.
NAMED: dict[str, type[RadialFunctions]] = {}


class RadialFunctions(FieldModule):
    r"""Functions :math:`f_1, \ldots, f_n` of a distance :math:`t`, in units
    of that where kernels end. Subclasses define
    :meth:`forward`; with a name,

    .. code-block:: python

        class PowerRadial(RadialFunctions, name='power'):
            def forward(self, t):
                self.check_input(t, 't')
                return t ** torch.arange(1, self.num + 1, device=t.device)

    they are known to :obj:`radial='power'` of
    :class:`~pyg_steerable.kernels.ImplicitBasis`.

    Args:
        num (int, optional): The number of functions. (default: :obj:`8`)

    Shapes:
        - **input:** :math:`[*, 1]`, **output:** :math:`[*, n]`

    Raises:
        ValueError: If the number is not positive, or the input has another
            width.
    """
    #: Whether the numbers that functions are made of are parameters.
    learned: bool = False

    def __init_subclass__(cls, name: str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if name is not None:
            NAMED[name] = cls

    def __init__(self, num: int = 8):
        super().__init__()
        self.num = count('num', num)
        self.set_types(FieldType('1x0e'), FieldType([(self.num, '0e')]))
        self._start: dict[str, Tensor] = {}

    def _register(self, name: str, value: Tensor) -> None:
        """Holds some numbers, float64, under a name: constants, or the
        values that parameters start from.
        """
        if not self.learned:
            self.register_constant(name, value)
            return
        self._start[name] = value
        self.register_parameter(name, Parameter(torch.empty(value.shape)))
        self.reset_parameters()

    def reset_parameters(self):
        """Takes learned numbers back to where they started."""
        with torch.no_grad():
            for name, value in self._start.items():
                self.get_parameter(name).copy_(value)

    def forward(self, t: Tensor) -> Tensor:
        """The functions at some distances."""
        raise TypeError(f"Expected a subclass of RadialFunctions to define "
                        f"'forward' (got {type(self).__name__})")

    def example(self, generator: torch.Generator) -> Example:
        """Distances up to one."""
        t = torch.rand(ROWS, 1, generator=generator, device='cpu')
        return Example((t, ), (self.in_type, ), (self.out_type, ))

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.num})'


class GaussianRadial(RadialFunctions, name='gaussian'):
    r"""Gaussians evenly spaced on :math:`[0, 1]`, as wide as their spacing
    :math:`\delta` (`"SchNet" <https://arxiv.org/abs/1706.08566>`_),

    .. math::
        f_m(t) = \exp\Big(-\frac{(t - m \delta)^2}{2 \delta^2}\Big), \quad
        m = 0, \ldots, n - 1, \quad \delta = 1 / (n - 1).

    Args:
        num (int, optional): The number of functions. (default: :obj:`8`)
    """
    centres: Tensor
    widths: Tensor

    def __init__(self, num: int = 8):
        super().__init__(num)
        spacing = 1 / max(1, self.num - 1)
        self._register('centres', spacing * _numbers(self.num))
        self._register('widths', spacing * torch.ones_like(_numbers(self.num)))

    def forward(self, t: Tensor) -> Tensor:
        self.check_input(t, 't')
        distance = (t - self.centres.to(t.dtype)) / self.widths.to(t.dtype)
        return torch.exp(-0.5 * distance.square())


class LearnedGaussianRadial(GaussianRadial, name='learned_gaussian'):
    """:class:`GaussianRadial` whose centres and widths are learned."""
    learned = True


class BesselRadial(RadialFunctions, name='bessel'):
    r"""Spherical Bessel functions of degree zero that vanish at one
    (`"Directional Message Passing for Molecular Graphs"
    <https://arxiv.org/abs/2003.03123>`_, section 5), up to factors,

    .. math::
        f_m(t) = \frac{\sin(m \pi t)}{m \pi t}, \quad m = 1, \ldots, n.

    Args:
        num (int, optional): The number of functions. (default: :obj:`8`)
    """
    frequencies: Tensor

    def __init__(self, num: int = 8):
        super().__init__(num)
        self._register('frequencies', 1 + _numbers(self.num))

    def forward(self, t: Tensor) -> Tensor:
        self.check_input(t, 't')
        return torch.sinc(self.frequencies.to(t.dtype) * t)


class LearnedBesselRadial(BesselRadial, name='learned_bessel'):
    """:class:`BesselRadial` whose frequencies are learned."""
    learned = True


def _numbers(n: int) -> Tensor:
    """From zero on, float64."""
    return torch.arange(n, dtype=torch.float64, device='cpu')


def build_radial(radial, num: int) -> RadialFunctions | None:
    """What a name or a subclass stands for; nothing for :obj:`None`."""
    count('num_radial', num)
    if radial is None:
        return None
    if isinstance(radial, str):
        checks.choice('radial', radial, tuple(sorted(NAMED)))
        radial = NAMED[radial]
    if not (inspect.isclass(radial) and issubclass(radial, RadialFunctions)):
        raise TypeError(f"Expected 'radial' to be one of {sorted(NAMED)}, a "
                        f"subclass of RadialFunctions, or None (got "
                        f"{checks.show(radial)})")
    return radial(num)
