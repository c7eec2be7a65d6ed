"""Spherical harmonics times radial shells."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

from ... import checks
from ...ops.precision import at_least_float32
from ...symmetry.fields import FieldType
from ...symmetry.groups import Group
from ...symmetry.representations import MAX_DEGREE
from .basis import SteerableBasis, check_types, count, degree
from .harmonics import solid_harmonics

#: The highest degree on the shell of radius m > 0, see lattice_harmonics.
CUTOFFS = {
    'conservative': lambda m: 2 * m,
    'compromise': lambda m: 2 * m + 1,
    'sfcnn': lambda m: 2 * m + 2,
}
#: The widest stencil: more is a mistake.
MAX_STENCIL = 127


class HarmonicBasis(SteerableBasis, name='harmonic'):
    r"""The analytic basis: Gaussian shells times spherical harmonics,

    .. math::
        h_{m J}(\mathbf{x}) = \exp\Big(-\frac{(r - R_m)^2}{2 \sigma_m^2}\Big)
        \, Y^J(\mathbf{x} / r), \qquad
        r = \sqrt{|\mathbf{x}|^2 + \delta^2}, \quad J \leq J_{max}^m

    (`"3D Steerable CNNs" <https://arxiv.org/abs/1807.02547>`_, section 4.2;
    for other groups than SO(3) the basis restricted from O(3) of `"A Program
    to Build E(n)-Equivariant Steerable CNNs"
    <https://openreview.net/forum?id=WE4qe9xlnQw>`_). The softening
    :math:`\delta` makes it smooth at the origin, where only :math:`J = 0`
    stays.

    Args:
        group (Group or str): The group of :obj:`field_type`.
        max_degree (int): The highest degree :math:`J`.
        radius (float, optional): The radius :math:`R` of the last shell, in
            the unit of the positions. (default: :obj:`1.0`)
        shells (int, optional): The number of shells, at radii evenly spaced
            in :math:`[0, R]`. (default: :obj:`3`)
        sigma (float, optional): The width of the shells, in units of their
            spacing. (default: :obj:`0.6`)
        band_limit (list[int], optional): :math:`J_{max}^m` of each shell,
            in addition to :obj:`max_degree`. (default: 0 for the shell at
            the origin, no limit for the others)
        softening (float, optional): :math:`\delta`, in units of the spacing
            of shells. (default: :obj:`0.05`)

    Shapes:
        - **positions:** :math:`[E, 3]`, **output:** :math:`[E, d_h]`

    Raises:
        ValueError: If a size is not positive or :obj:`band_limit` does not
            name every shell.
    """
    sigma: Tensor
    softening: Tensor
    centres: Tensor
    shell: Tensor
    harmonic: Tensor
    spans_neighbors = True

    def __init__(self, group: Group | str, max_degree: int,
                 radius: float = 1.0, shells: int = 3, sigma: float = 0.6,
                 band_limit: Sequence[int] | None = None,
                 softening: float = 0.05):
        super().__init__()
        group = Group.wrap(group)
        self.max_degree = degree('max_degree', max_degree)
        self.shells = count('shells', shells)
        self.set_radius(radius)
        max_degree, shells = self.max_degree, self.shells
        if band_limit is None:
            band_limit = [0] + (shells - 1) * [max_degree] if shells > 1 \
                else [max_degree]
        if not isinstance(band_limit, Sequence) or isinstance(band_limit, str):
            raise TypeError(f"Expected 'band_limit' to be a list of degrees "
                            f"(got {checks.show(band_limit)})")
        if len(band_limit) != shells:
            raise ValueError(f"Expected 'band_limit' to name the highest "
                             f"degree of each of the {shells} shells (got "
                             f"{list(band_limit)})")
        self.band_limit = [
            min(checks.integer(f'band_limit[{m}]', b, 0), max_degree)
            for m, b in enumerate(band_limit)]
        # In units of the radius, where a single shell sits.
        self.spacing = 1 / max(1, shells - 1)
        self._set_length('sigma', sigma)
        self._set_length('softening', softening)
        centres = torch.linspace(0 if shells > 1 else 1, 1, shells,
                                 dtype=torch.float64, device='cpu')
        self.keep_in_full('centres')
        self.register_constant('centres', centres)
        pairs: list[tuple[int, int]] = []
        blocks = []
        for J in range(max(self.band_limit) + 1):
            here = [m for m in range(shells) if J <= self.band_limit[m]]
            blocks.append((len(here), o3.Irrep(J, (-1)**J)))
            pairs += [(m, J * J + i) for m in here for i in range(2 * J + 1)]
        shell, harmonic = torch.tensor(pairs, device='cpu').T
        self.register_constant('shell', shell.clone())
        self.register_constant('harmonic', harmonic.clone())
        self.field_type = FieldType(blocks, group)
        self.attr_type = FieldType([], group)
        self._degrees = list(range(max(self.band_limit) + 1))

    # A number in other bases.
    @property
    def reach(self) -> Tensor:  # type: ignore[override]
        """Where the last shell ends, in units of the radius."""
        return 1 + 2.5 * self.sigma * self.spacing

    @classmethod
    def for_types(cls, in_type: FieldType, out_type: FieldType,
                  attr_type: FieldType | None = None, *,
                  max_degree: int | None = None, **options) -> HarmonicBasis:
        """The basis up to the highest degree that leads from one type to the
        other.
        """
        in_type, out_type = check_types(in_type, out_type)
        if max_degree is None:
            max_degree = in_type.max_degree + out_type.max_degree
        return super().for_types(in_type, out_type, attr_type,
                                 max_degree=max_degree, **options)

    @classmethod
    def for_stencil(cls, in_type: FieldType, out_type: FieldType,
                    kernel_size, *, max_degree: int | None = None,
                    cutoff: str = 'compromise', **options) -> HarmonicBasis:
        """The paper's shells, see :func:`lattice_harmonics`, where no other
        ones are asked for.
        """
        in_type, out_type = check_types(in_type, out_type)
        if max_degree is None:
            max_degree = in_type.max_degree + out_type.max_degree
        shells = options.pop('shells', None)
        return super().for_types(in_type, out_type, **{
            **_on_lattice(kernel_size, max_degree, cutoff, shells),
            **options})

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        self.check_inputs(positions, attr)
        x = positions.to(at_least_float32(positions)) / self.radius
        delta = self.softening * self.spacing
        r = (x.square().sum(-1, keepdim=True) + delta**2).sqrt()
        Y = solid_harmonics(self._degrees, x / r)
        distance = (r - self.centres) / (self.sigma * self.spacing)
        window = torch.exp(-0.5 * distance.square())
        return window[..., self.shell] * Y[..., self.harmonic]

    def fit_radius(self, distance: Tensor) -> Tensor:
        """The last shell is at the largest distance, a few left out."""
        checks.tensor('distance', distance)
        checks.shaped('distance', distance, (None, ), '[E]')
        if not len(distance):
            return self.radius
        kth = max(1, round(0.95 * len(distance)))
        return distance.kthvalue(kth).values

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}({self.field_type}, '
                f'shells={self.shells}, radius={float(self.radius):g})')


def lattice_harmonics(group: Group | str, kernel_size: int, max_degree: int,
                      cutoff: str = 'compromise', sigma: float = 0.6
                      ) -> HarmonicBasis:
    r"""The basis of the `"3D Steerable CNNs"
    <https://arxiv.org/abs/1807.02547>`_ paper: Gaussian shells at the radii
    :math:`m = 0, 1, \ldots, (s - 1) / 2` times harmonics up to a degree
    that grows with :math:`m`, as higher ones cannot be sampled there.

    Args:
        group (Group or str): The group.
        kernel_size (int): The stencil size :math:`s`.
        max_degree (int): The highest degree that is of use.
        cutoff (str, optional): The highest degree on the shells
            :math:`m = 0, 1, 2, \ldots`: :obj:`"conservative"` 0, 2, 4, 6,
            ..., :obj:`"compromise"` 0, 3, 5, 7, ..., the paper's, or
            :obj:`"sfcnn"` 0, 4, 6, 8, ... (default: :obj:`"compromise"`)
        sigma (float, optional): The width of the shells.
            (default: :obj:`0.6`)

    Raises:
        ValueError: If :obj:`cutoff` is none of the three.
    """
    return HarmonicBasis(group, sigma=sigma, **_on_lattice(
        kernel_size, max_degree, cutoff))


def _on_lattice(kernel_size: int, max_degree: int, cutoff: str,
                shells: int | None = None) -> dict:
    """The arguments of :class:`HarmonicBasis` for a stencil."""
    checks.choice('cutoff', cutoff, tuple(CUTOFFS))
    kernel_size = checks.integer('kernel_size', kernel_size, 1, MAX_STENCIL)
    half = kernel_size // 2
    shells = half + 1 if shells is None else count('shells', shells)
    band_limit = [0] + [CUTOFFS[cutoff](m) for m in range(1, shells)]
    # On a lattice no offset is near the origin but the origin itself: the
    # softening only has to keep it from being divided by.
    return dict(max_degree=min(checks.integer('max_degree', max_degree, 0),
                               max(band_limit), MAX_DEGREE),
                radius=float(max(1, half)), shells=shells,
                band_limit=band_limit, softening=1e-8)
