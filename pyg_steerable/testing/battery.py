"""A battery of tests to inherit from."""
from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .cases import Case, make_case
from .equivariance import (
    TOLERANCE,
    _call,
    assert_equivariant,
    equivariance_error,
)


class _Dtypes(TorchDispatchMode):
    """Records the floating types that operators return."""
    def __init__(self):
        super().__init__()
        self.seen: dict[torch.dtype, str] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor) and t.is_floating_point():
                self.seen.setdefault(t.dtype, str(func))
        return out


class EquivariantLayerTests:
    r"""Tests that any equivariant layer should pass, for pytest: inherit and
    define :meth:`make`.

    .. code-block:: python

        class TestMyLayer(EquivariantLayerTests):
            outside = 'O(3)'

            def make(self):
                return MyLayer(FieldType('2x0e + 1x1o', 'SO(2)'))

    Attributes:
        outside (str, Group or None): Elements of this group must *not*
            commute with the layer.
        options (dict): Additional arguments of :func:`equivariance_error`,
            e.g. :obj:`in_types`, and :obj:`tol`, the tolerance of the tests
            in float64.
        least_outside (float): The least error outside.
        smooth (bool): Whether to compare first derivatives with finite
            differences.
    """
    outside = None
    options: dict = {}
    smooth = True
    least_outside = 1e-2

    def make(self) -> torch.nn.Module:
        """Builds the layer (in float32, torch's default)."""
        raise TypeError("Expected a subclass of EquivariantLayerTests to "
                        "define 'make' (got none)")

    def _build(self, seed: int = 0) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.make()
            with torch.no_grad():  # biases must matter
                for p in module.parameters():
                    p.add_(0.1 * torch.randn_like(p))
        return module

    def _case(self, module, dtype=torch.float64) -> Case:
        keys = ('in_types', 'out_types', 'inputs')
        given = {k: self.options[k] for k in keys if k in self.options}
        return make_case(module, dtype=dtype, **given)

    def _outputs(self, module) -> Tensor:
        case = self._case(module)
        out = _call(case, case.inputs)
        return torch.cat([o.flatten() for o in out])

    def _options(self, *without: str) -> dict:
        """Those that one of the tests takes; it sets the dtype itself."""
        return {k: v for k, v in self.options.items()
                if k not in ('dtype', *without)}

    def test_equivariance_float32(self):
        options = self._options('tol')
        if 'tol' in self.options:  # not tighter than float32 can be
            options['tol'] = max(self.options['tol'],
                                 TOLERANCE[torch.float32])
        assert_equivariant(self._build(), dtype=torch.float32, **options)

    def test_equivariance_float64(self):
        # Built in float32: its constants must not be rounded for good.
        assert_equivariant(self._build().double(), **self._options())

    def test_equivariance_in_eval_mode(self):
        assert_equivariant(self._build().double().eval(), **self._options())

    def test_no_equivariance_outside(self):
        import pytest
        if self.outside is None:
            pytest.skip('equivariant under all of O(3)')
        error = equivariance_error(self._build().double(), self.outside,
                                   **self._options('tol'))
        assert error > self.least_outside, (
            f'Expected no equivariance under {self.outside}, i.e. an error '
            f'above {self.least_outside} (got {error:.1e}): the layer is '
            f'more symmetric than that, or sees nothing')

    def test_derivatives(self):
        import pytest
        if not self.smooth:
            pytest.skip('not differentiable')
        module = self._build().double().eval()
        case = self._case(module)
        index = [k for k, x in enumerate(case.inputs)
                 if isinstance(x, Tensor) and x.is_floating_point()]

        def function(*moving):
            inputs = list(case.inputs)
            for k, x in zip(index, moving):
                inputs[k] = x
            return case.function(*inputs)

        moving = [case.inputs[k].clone().requires_grad_() for k in index]
        assert torch.autograd.gradcheck(function, moving, fast_mode=True), (
            'Expected derivatives that agree with finite differences')

    def test_copies(self):
        module = self._build()
        expected = self._outputs(module)
        for kind, other in [('deepcopy', copy.deepcopy(module)),
                            ('pickle', pickle.loads(pickle.dumps(module)))]:
            error = (self._outputs(other) - expected).abs().max()
            assert error == 0, (f'Expected the same output of a copy made by '
                                f'{kind} (got a difference of {error:.1e})')

    def test_state_dict(self):
        module = self._build()
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        other = self._build(seed=1)
        other.load_state_dict(torch.load(file, weights_only=True))
        error = (self._outputs(other) - self._outputs(module)).abs().max()
        assert error == 0, (f'Expected the same output with a loaded state '
                            f'dict (got a difference of {error:.1e})')

    def test_float64_stays_float64(self):
        module = self._build().double()
        case = self._case(module)
        with _Dtypes() as dtypes:
            _call(case, case.inputs)
        other = {str(dtype): name for dtype, name in dtypes.seen.items()
                 if dtype != torch.float64}
        assert not other, (f'Expected float64 throughout (got other numbers '
                           f'from these operators: {other})')
