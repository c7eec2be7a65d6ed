"""One check for each kind of argument."""
import math

import numpy as np
import pytest
import torch

from pyg_steerable import checks

GOOD = [
    (checks.integer, (3, ), 3),
    (checks.integer, (np.int64(3), ), 3),
    (checks.integer, (np.uint8(3), 0, 3), 3),
    (checks.integer, (torch.tensor(3), ), 3),
    (checks.integer, (-3, None), -3),
    (checks.real, (np.float32(0.5), ), 0.5),
    (checks.real, (1, 0., 1.), 1.),
    (checks.positive, (torch.tensor(2.), ), 2.),
    (checks.choice, ('a', ('a', 'b')), 'a'),
    (checks.flag, (np.bool_(True), ), True),
    (checks.text, ('a', ), 'a'),
]

BAD = [
    (checks.integer, (2.5, ), ValueError, 'got 2.5'),
    (checks.integer, (3., ), ValueError, 'got 3.0'),
    (checks.integer, (True, ), ValueError, 'got True'),
    (checks.integer, (np.bool_(True), ), (ValueError, TypeError), 'True'),
    (checks.integer, ('3', ), TypeError, "got '3'"),
    (checks.integer, (None, ), TypeError, 'got None'),
    (checks.integer, (torch.tensor([1, 2]), ), TypeError, 'shape [2]'),
    (checks.integer, (torch.tensor(True), ), TypeError, 'torch.bool'),
    (checks.integer, (0, ), ValueError, '>= 1 (got 0)'),
    (checks.integer, (9, 0, 5), ValueError,
     'non-negative integer, >= 0 and <= 5 (got 9)'),
    (checks.real, (math.nan, ), ValueError, 'finite number (got nan)'),
    (checks.real, (2., 0., 1.), ValueError, '>= 0 and <= 1 (got 2.0)'),
    (checks.real, ('a', ), TypeError, "to be a number (got 'a')"),
    (checks.real, (1j, ), TypeError, 'got 1j'),
    (checks.positive, (0, ), ValueError, 'positive number (got 0)'),
    (checks.positive, (10**400, ), ValueError, 'positive number'),
    (checks.positive, (torch.ones(2), ), TypeError, 'shape [2]'),
    (checks.choice, ('c', ('a', 'b')), ValueError, "'a', 'b' (got 'c')"),
    (checks.flag, (1, ), TypeError, 'True or False (got 1)'),
    (checks.flag, (torch.ones(2).bool(), ), TypeError, 'shape [2]'),
    (checks.tensor, ([1.], ), TypeError, 'got list [1.0]'),
    (checks.tensor, (torch.eye(2).to_sparse(), ), TypeError, 'to_dense'),
    (checks.tensor, (torch.eye(2).long(), ), TypeError, '.to(torch.float32)'),
    (checks.tensor, (torch.eye(2) + 0j, ), TypeError, 'complex64'),
    (checks.positions, (torch.eye(2), ), ValueError,
     '[N, 3] (got [2, 2])'),
    (checks.indices, (torch.tensor([0, 5]), 5), ValueError, '0 to 5'),
    (checks.indices, (torch.tensor([0., 1.]), 5), TypeError, 'torch.long'),
    (checks.indices, (torch.tensor([0]), 5, 2), ValueError, 'got [1]'),
    (checks.finite, (torch.tensor([[0.], [math.inf]]), ), ValueError,
     '[inf] at row 1'),
    (checks.has_values, (torch.empty(2, device='meta'), 'all'), ValueError,
     "'meta'"),
    (checks.generator, (3, ), TypeError, 'torch.Generator'),
]


@pytest.mark.parametrize('check, args, expected', GOOD)
def test_good_values(check, args, expected):
    got = check('arg', *args)
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize('check, args, error, words', BAD)
def test_bad_values(check, args, error, words):
    with pytest.raises(error) as caught:
        check('arg', *args)
    assert "'arg'" in str(caught.value) and words in str(caught.value)


def test_devices():
    with pytest.raises(ValueError, match="'x' on cpu, 'y' on meta"):
        checks.same_device(x=torch.ones(1), y=torch.ones(1, device='meta'))


def test_tracers_are_not_asked_for_values():
    """Out of range, and nobody looks."""
    from torch.fx.experimental.proxy_tensor import make_fx
    index = torch.tensor([0, 7])

    def function(index):
        return checks.indices('arg', index, 5) + 1

    with pytest.raises(ValueError, match="'arg'"):
        function(index)
    for traced in (make_fx(function)(index),
                   torch.func.vmap(function), torch.jit.trace(
                       function, (index, ), check_trace=False)):
        assert traced(index.view(1, 2)).flatten().tolist() == [1, 8]


def test_memory_is_bounded():
    checks.memory('a tensor', 8, 'Take less')
    with pytest.raises(MemoryError, match='a tensor.* GiB.*Take less'):
        checks.memory('a tensor', 10**18, 'Take less')
