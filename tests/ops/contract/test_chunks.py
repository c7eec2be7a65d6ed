import pytest
import torch
from contract_problem import Problem, close
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_steerable.ops.limits import LIMITS


def limit(monkeypatch, size):
    monkeypatch.setitem(LIMITS, 'cpu', LIMITS['cpu']._replace(
        chunk_bytes=size))


@pytest.mark.parametrize('order', ['aggregate', 'source'])
@pytest.mark.parametrize('size', [1, 500, 4000])
def test_chunk_boundaries(order, size, monkeypatch):
    problem = Problem('SO(2)', kind='hub')
    expected = problem.derivatives('reference')
    limit(monkeypatch, size)
    for a, b in zip(problem.derivatives(order), expected):
        assert close(a, b)


class _Largest(TorchDispatchMode):
    """The size of the largest tensor that an operator returns."""
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, torch.Tensor):
                # What is stored, not what an expanded view shows.
                numel = t.untyped_storage().nbytes() // t.element_size()
                self.numel = max(self.numel, numel)
        return out


@pytest.mark.parametrize('order', ['aggregate', 'source'])
def test_no_kernel_is_stored(order, monkeypatch):
    n, degree = 60, 15
    problem = Problem('SO(2)', u='4x0e + 4x1o', v='8x0e + 8x1o',
                      w='8x0e + 8x1o', num_src=n, num_dst=n)
    E = n * degree
    problem.src = torch.randint(n, (E, ))
    problem.dst = torch.arange(n).repeat_interleave(degree)
    problem.h = torch.randn(E, 16).double()
    limit(monkeypatch, 2**16)
    sizes = {}
    for which in (order, 'reference'):
        with _Largest() as largest:
            problem(*problem.inputs, which).sin().sum().backward()
        sizes[which] = largest.numel
    kernels = E * 32 * 32
    inputs = max(E * 17, problem.weight.numel(), 2 * n * 32)
    assert sizes['reference'] >= kernels
    # Inputs, a chunk, or the maps multiplied out: nothing else.
    assert sizes[order] <= max(inputs, 2**16 // 8, 16 * 32 * 32)
    assert sizes[order] < kernels / 20
