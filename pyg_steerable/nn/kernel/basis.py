"""What a steerable basis is."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ... import checks
from ...symmetry.fields import FieldType, check_same_group
from ...symmetry.representations import MAX_DEGREE
from ..field import Example, FieldModule, random_fields
from .envelope import envelope
from .spec import NAMED, OF_KERNELS, BasisSpec, keywords

#: Some steerable basis.
Basis = TypeVar('Basis', bound='SteerableBasis')
#: More channels, layers or shells than this are a mistake.
MAX_COUNT = 1000


class SteerableBasis(FieldModule):
    r"""A map from relative positions and attributes to fields,

    .. math::
        h(g \mathbf{x}, \rho_z(g) \mathbf{z}) = \rho_h(g) \,
        h(\mathbf{x}, \mathbf{z}), \quad g \in G.

    Subclasses set :obj:`field_type` (:math:`\rho_h`), :obj:`attr_type`
    (:math:`\rho_z`, of width 0 without attributes), call :meth:`set_radius`
    (the unit of length, a typical distance of neighbours: a buffer that is
    saved, :obj:`radius`) and define :meth:`forward`. With a name,

    .. code-block:: python

        class BesselBasis(SteerableBasis, name='bessel'):
            def __init__(self, group, max_degree=1, num_radial=8,
                         radius=1.0): ...

    they are known to :obj:`kernel='bessel'` of layers and networks. What
    their constructor takes besides :obj:`group` and :obj:`attr_type` are
    their options. Two more are options of all of them,

    .. code-block:: python

        kernel = BesselBasis.spec(cutoff_radius=5.0, groups='depthwise')

    The second is that of the kernels made of the basis, see
    :class:`~pyg_steerable.kernels.SteerableKernel`. The first is the
    distance, in the unit of the positions, from which on the basis is zero:
    it is multiplied by a polynomial that ends there with three derivatives
    (:meth:`set_cutoff_radius`). Functions of the basis alone, as energies of
    :obj:`eval()` are, and forces stay smooth when a neighbour comes in.
    """
    field_type: FieldType
    attr_type: FieldType
    radius: Tensor
    #: Where the basis ends, if it does, in the unit of the positions.
    cutoff_radius: Tensor | None
    #: Distances, in units of the radius, beyond which little is left.
    reach: float | Tensor = 3.
    #: Whether the radius is the largest distance of neighbours, not a
    #: typical one.
    spans_neighbors: bool = False

    def __init_subclass__(cls, name: str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if name is not None:
            NAMED[name] = cls

    def __init__(self):
        super().__init__()
        self.register_buffer('cutoff_radius', None)

    @classmethod
    def settings(cls) -> dict[str, inspect.Parameter]:
        """What the constructor takes besides types, and the options of all
        bases.
        """
        own = {name: p for name, p in
               inspect.signature(cls).parameters.items()
               if name not in ('group', 'attr_type')}
        return {**own, **keywords(SteerableBasis.for_types)}

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """What a specification may hold, by name."""
        return {**keywords(cls.for_types), **keywords(cls.for_stencil),
                **cls.settings(), **OF_KERNELS}

    @classmethod
    def spec(cls, **options) -> BasisSpec:
        r"""A :class:`BasisSpec`: the basis with these options, to be built
        by each layer for its own types.
        """
        return BasisSpec(cls, tuple(options.items()))

    @classmethod
    def for_types(cls: type[Basis], in_type: FieldType, out_type: FieldType,
                  attr_type: FieldType | None = None, *,
                  cutoff_radius: float | None = None, **options) -> Basis:
        r"""The basis for kernels between two types of fields, with
        attributes of a third.

        Args:
            in_type, out_type (FieldType): The types of features.
            attr_type (FieldType, optional): The type of attributes.
                (default: :obj:`None`)
            cutoff_radius (float, optional): Where the basis ends, see
                :meth:`set_cutoff_radius`. (default: :obj:`None`: nowhere)
            **options (optional): Those of the constructor.

        Raises:
            ValueError: If the basis takes no attributes.
        """
        in_type, _ = check_types(in_type, out_type)
        if attr_type is not None:
            attr_type = FieldType.wrap(attr_type)
        if 'attr_type' in inspect.signature(cls).parameters:
            options['attr_type'] = attr_type
        elif attr_type is not None and attr_type.dim:
            raise ValueError(
                f"Expected no attributes in the kernels of {cls.__name__} "
                f"(got some of type {attr_type}). Use kernel='implicit'")
        build: Callable[..., Basis] = cls
        basis = build(in_type.group, **options)
        if cutoff_radius is not None:
            basis.set_cutoff_radius(cutoff_radius)
        return basis

    @classmethod
    def for_stencil(cls: type[Basis], in_type: FieldType,
                    out_type: FieldType, kernel_size, **options) -> Basis:
        r"""The basis for kernels between two types of fields at the offsets
        of a stencil, in units of the smallest spacing of voxels.
        """
        half = checks.integer('kernel_size', kernel_size, 1) // 2
        options.setdefault('radius', max(1., half))
        return cls.for_types(in_type, out_type, **options)

    # What other modules set follows here from the type of the basis.
    @property
    def in_type(self) -> FieldType:  # type: ignore[override]
        """Vectors: the relative positions."""
        return FieldType('1o', self.field_type.group)

    @property
    def out_type(self) -> FieldType:  # type: ignore[override]
        """That of the basis, :obj:`field_type`."""
        return self.field_type

    def set_radius(self, radius: float) -> None:
        """Sets the unit of length, in the unit of the positions."""
        self._set_length('radius', radius)

    def set_cutoff_radius(self, cutoff_radius: float) -> None:
        r"""Makes the basis end at a distance, in the unit of the positions:
        it is multiplied by

        .. math::
            u(s) = (1 - s)^4 \, (1 + 4 s + 10 s^2), \quad s = r^2 / c^2,

        which is zero at the cutoff :math:`c` with its first, second and third
        derivative, and zero beyond. It changes the scale of the kernels: set
        it before they measure theirs, as the option :obj:`cutoff_radius` of
        layers does, or call :func:`~pyg_steerable.nn.calibrate` after it.
        """
        self._set_length('cutoff_radius', cutoff_radius)

    def extent(self) -> Tensor:
        """The distance beyond which little is left of the basis, or nothing:
        the cutoff, if it comes first. In the unit of the positions.
        """
        extent = self.reach * self.radius
        return (extent if self.cutoff_radius is None else
                extent.minimum(self.cutoff_radius))

    def within(self, distance: Tensor) -> Tensor:
        """Those of some distances that are neither zero (a node is its own
        neighbour) nor beyond the cutoff.
        """
        checks.tensor('distance', distance)
        checks.shaped('distance', distance, (None, ), '[E]')
        checks.has_values('distance', distance, 'those that the basis sees')
        seen = distance > 0
        if self.cutoff_radius is not None:
            seen = seen & (distance < self.cutoff_radius)
        return distance[seen]

    def _set_length(self, name: str, value: float) -> None:
        """Sets a positive number that says where the basis is large: a buffer
        that is saved, so that a kernel stays what it was in other layers.
        """
        exact = torch.tensor(checks.scale(name, value), dtype=torch.float64,
                             device='cpu')
        if self._buffers.get(name) is not None:
            self._exact[name] = exact
            self.get_buffer(name).fill_(exact.item())
        else:
            self.__dict__.pop(name, None)  # a plain number
            self.keep_in_full(name)
            self.register_constant(name, exact, persistent=True)

    @property
    def lengths(self) -> dict[str, Tensor]:
        """The float64 originals of all lengths. They are replaced, never
        changed.
        """
        return {name: value for name, value in self._exact.items()
                if name not in self._non_persistent_buffers_set}

    def fit_radius(self, distance: Tensor) -> Tensor:
        """The radius that suits some distances of neighbours: their root
        mean square.
        """
        checks.tensor('distance', distance)
        checks.shaped('distance', distance, (None, ), '[E]')
        return distance.square().mean().sqrt()

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Files of old versions do not hold all of them.
        saved = [n for n in self.lengths if prefix + n in state_dict]
        for name, exact in self.lengths.items():
            state_dict.setdefault(prefix + name, exact)
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name in saved:
            buffer, known = self.get_buffer(name), self._exact[name]
            if buffer.is_meta:
                continue
            loaded = buffer.detach().to('cpu', torch.float64)
            # What a file of float32 says may be this number, rounded.
            if known.to(buffer.dtype).double() != loaded:
                self._exact[name] = loaded

    def reset_parameters(self):
        """Draws learned parts again."""

    def calibrate(self, positions: Tensor, attr: Tensor) -> None:
        """Takes statistics, if any, from typical inputs."""
        self.check_inputs(positions, attr)

    def __call__(self, positions: Tensor, attr: Tensor | None = None
                 ) -> Tensor:
        """What :meth:`forward` gives, which ends at the cutoff."""
        h = super().__call__(positions, attr)
        if self.cutoff_radius is None:
            return h
        x = positions.to(h.dtype) / self.cutoff_radius
        return h * envelope(x.square().sum(-1, keepdim=True))

    def forward(self, positions: Tensor, attr: Tensor | None = None
                ) -> Tensor:
        r"""The basis at relative positions, in at least float32, without
        regard to the cutoff.

        Shapes:
            - **positions:** :math:`[E, 3]`, **attr:** :math:`[E, d_z]`,
              **output:** :math:`[E, d_h]`
        """
        raise TypeError(f"Expected a subclass of SteerableBasis to define "
                        f"'forward' (got {type(self).__name__})")

    def example(self, generator: torch.Generator) -> Example:
        """Relative positions of about the radius, and attributes."""
        positions = float(self.radius) * random_fields(self.in_type,
                                                       generator)
        if not self.attr_type.dim:
            return Example((positions, ), (self.in_type, ), (self.out_type, ))
        attr = random_fields(self.attr_type, generator)
        return Example((positions, attr), (self.in_type, self.attr_type),
                       (self.out_type, ))

    def check_inputs(self, positions: Tensor, attr: Tensor | None) -> None:
        """Raises an error unless positions and attributes fit."""
        checks.positions('positions', positions)
        checks.same_device(positions=positions, radius=self.radius)
        self.check_attr(attr, positions.shape[0])

    def check_attr(self, attr: Tensor | None, num_edges: int) -> None:
        """Raises an error unless the attributes fit."""
        if attr is None and self.attr_type.dim:
            raise ValueError(
                f"Expected attributes of type {self.attr_type}, i.e. shape "
                f"[{num_edges}, {self.attr_type.dim}] (got None). Pass "
                f"'edge_attr' (and 'node_attr'), or build the layer without "
                f"'edge_type' and 'node_type'")
        if attr is not None:
            checks.tensor('attr', attr)
            checks.same_device(attr=attr, radius=self.radius)
            checks.shaped('attr', attr, (num_edges, self.attr_type.dim),
                          "[E, d], the width of 'attr_type'")


def check_types(in_type, out_type) -> tuple[FieldType, FieldType]:
    """Two types of one group."""
    types = FieldType.wrap(in_type), FieldType.wrap(out_type)
    check_same_group(*types)
    return types


def degree(name: str, value: int, least: int = 0) -> int:
    """A degree that there are harmonics of."""
    return checks.integer(name, value, least, MAX_DEGREE)


def count(name: str, value: int, least: int = 1) -> int:
    """A number of channels, layers or shells that is no mistake."""
    return checks.integer(name, value, least, MAX_COUNT)


def typical_inputs(basis: SteerableBasis, n: int = 1000):
    """Normal positions, of root mean square distance :obj:`radius`, and
    normal attributes, the same at every call.
    """
    generator = torch.Generator('cpu').manual_seed(0)
    sample = torch.randn(n, 3 + basis.attr_type.dim, generator=generator,
                         dtype=torch.float64, device='cpu')
    return float(basis.radius) / 3**0.5 * sample[:, :3], sample[:, 3:]
