"""What tests of layers torch share."""
import torch

from pyg_steerable import FieldType
from pyg_steerable.kernels import HarmonicBasis, ImplicitBasis, SteerableKernel

T = FieldType('2x0e + 2x1o + 1x2e', 'SO(2)')


def kernel(kind='implicit'):
    basis = (ImplicitBasis('SO(2)', 2, 2, attr_type=FieldType('1x1o', 'SO(2)'))
             if kind == 'implicit' else HarmonicBasis('SO(2)', 2))
    return SteerableKernel(basis, T, T)


def same_tensors(a, b):
    a, b = ({**dict(m.named_parameters()), **dict(m.named_buffers())}
            for m in (a, b))
    return a.keys() == b.keys() and all(
        torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)
