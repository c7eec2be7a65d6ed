"""A smooth end of kernels."""
from __future__ import annotations

from torch import Tensor


def envelope(square: Tensor) -> Tensor:
    r"""A polynomial of the squared distance :math:`s = (r / c)^2`, in units
    of the cutoff :math:`c`,

    .. math::
        u(s) = (1 - s)^4 \, (1 + 4 s + 10 s^2) \quad (s < 1), \qquad
        u(s) = 0 \quad (s \geq 1).

    At the cutoff it is zero with its first, second and third derivative: with
    it an energy, and a force with its first and second derivative, stay
    continuous when a neighbour comes in. At the origin it is
    :math:`1 + O(r^6)`. (The envelope of `"Directional Message Passing for
    Molecular Graphs" <https://arxiv.org/abs/2003.03123>`_, section 5, with
    one derivative more, and even in :math:`r`, so that it is smooth at
    :math:`\mathbf{x} = 0`, too.)
    """
    s = square.clamp(max=1.)
    return (1 - s).square().square() * (1 + s * (4 + 10 * s))
