"""Which basis, with which options: what networks hand down to their
convolutions.
"""
from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from ... import checks
from ...symmetry.fields import FieldType

#: The bases that have a name, see :class:`SteerableBasis`.
NAMED: dict[str, type[Any]] = {}
#: Options of what is made of any basis, the kernel.
OF_KERNELS = {'groups': inspect.Parameter(
    'groups', inspect.Parameter.KEYWORD_ONLY, default=1,
    annotation='int | str')}


@dataclass(frozen=True)
class BasisSpec:
    r"""A steerable basis that is yet to be built: its class and the options
    that do not follow from the types of a layer; and, among these,
    :obj:`groups`, whether the kernels made of it keep channels apart (see
    :class:`~pyg_steerable.kernels.SteerableKernel`). Made by
    :meth:`SteerableBasis.spec`.

    .. code-block:: python

        kernel = ImplicitBasis.spec(hidden=32, groups='depthwise')
        model = QM9Net(kernel=kernel)
        conv = LatticeSteerableConv(in_type, out_type, 5, kernel=kernel)

    Args:
        basis (type): The class of the basis.
        options (tuple): Pairs of an option's name and its value.

    Raises:
        TypeError: If the basis has no such option.
    """
    basis: type[Any]
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self):
        if not (isinstance(self.basis, type)
                and hasattr(self.basis, 'for_types')):
            raise TypeError(f"Expected 'basis' to be a subclass of "
                            f"SteerableBasis (got "
                            f"{checks.show(self.basis)})")
        if not isinstance(self.options, tuple) or not all(
                isinstance(pair, tuple) and len(pair) == 2
                for pair in self.options):
            raise TypeError(f"Expected 'options' to be a tuple of pairs of a "
                            f"name and a value (got "
                            f"{checks.show(self.options)}). "
                            f"'{self.basis.__name__}.spec(name=value)' makes "
                            f"them")
        known = self.basis.options()
        for name, _ in self.options:
            if name not in known:
                raise TypeError(f'Expected options of '
                                f'{self.basis.__name__}, {sorted(known)} '
                                f'(got {checks.show(name)})')

    def with_defaults(self, **options) -> BasisSpec:
        """The same with values for options that are not given."""
        return BasisSpec(self.basis, tuple({**options,
                                            **dict(self.options)}.items()))

    @property
    def groups(self) -> int | str:
        """In how many groups the kernels keep the channels of their input
        apart.
        """
        return dict(self.options).get('groups', OF_KERNELS['groups'].default)

    def for_types(self, in_type: FieldType, out_type: FieldType,
                  attr_type: FieldType | None = None) -> Any:
        """The basis of kernels between two types, on points."""
        return self.basis.for_types(in_type, out_type, attr_type,
                                    **self._read(self.basis.for_types))

    def for_stencil(self, in_type: FieldType, out_type: FieldType,
                    kernel_size) -> Any:
        """The basis of kernels between two types, on a lattice."""
        return self.basis.for_stencil(in_type, out_type, kernel_size,
                                      **self._read(self.basis.for_stencil))

    def _read(self, build) -> dict:
        """The options of the basis, if this way of building takes them."""
        known = {**self.basis.settings(), **keywords(build)}
        options = {name: value for name, value in self.options
                   if name not in OF_KERNELS}
        for name in options:
            if name not in known:
                raise TypeError(f"Expected options of {build.__qualname__}, "
                                f"{sorted(known)} (got '{name}')")
        return options

    def __repr__(self) -> str:
        options = ', '.join(f'{k}={v!r}' for k, v in self.options)
        return f'{self.basis.__name__}.spec({options})'


def read_spec(kernel, **options) -> BasisSpec:
    """A specification, or the name of a basis with options.

    Raises:
        ValueError: If there is no basis of that name.
        TypeError: If it is neither, or options come with a specification.
    """
    if isinstance(kernel, BasisSpec):
        if options:
            raise TypeError(f'Expected the options of a basis inside of its '
                            f'specification, {kernel} (got {sorted(options)}'
                            f', too)')
        return kernel
    if not isinstance(kernel, str):
        raise TypeError(f"Expected 'kernel' to be one of {sorted(NAMED)} or "
                        f"a BasisSpec, such as ImplicitBasis.spec(hidden=8) "
                        f"(got {checks.show(kernel)})")
    checks.choice('kernel', kernel, tuple(sorted(NAMED)))
    return NAMED[kernel].spec(**options)


def keywords(function) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function."""
    return {name: p for name, p in
            inspect.signature(function).parameters.items()
            if p.kind is p.KEYWORD_ONLY}


def takes_options_of(basis: type[Any]):
    """Shows the options of a basis in the signature of a layer that hands
    them on, for :func:`help` and editors.
    """
    def decorate(cls):
        own = inspect.signature(cls.__init__).parameters
        above = inspect.signature(cls.__mro__[1].__init__).parameters
        merged = {k: p for k, p in own.items()
                  if k != 'self' and p.kind is not p.VAR_KEYWORD}
        for source in ({**basis.settings(), **keywords(basis.for_types),
                        **OF_KERNELS}, above):
            for name, p in source.items():
                if name not in merged and p.default is not p.empty:
                    merged[name] = p.replace(kind=p.KEYWORD_ONLY)
        merged.update({k: p for k, p in above.items()
                       if p.kind is p.VAR_KEYWORD})
        cls.__signature__ = inspect.Signature([*merged.values()])
        return cls

    return decorate
