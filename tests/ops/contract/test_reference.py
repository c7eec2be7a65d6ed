import pytest
import torch
from contract_problem import Problem, close

from pyg_steerable.ops import dense_kernel


def test_against_a_loop():
    p = Problem('D3')
    out = torch.zeros(p.num_dst, p.couplings.w_dim, dtype=torch.float64)
    for e in range(len(p.src)):
        at = 0
        for c, Q in zip(p.couplings.terms, p.couplings.bases):
            Wc = p.weight[at:at + c.numel].view(c.mw, c.s, c.mu, c.mv)
            at += c.numel
            h = p.h[e, c.u:c.u + c.mu * c.du].view(c.mu, c.du)
            x = p.x[p.src[e], c.v:c.v + c.mv * c.dv].view(c.mv, c.dv)
            y = torch.einsum('wsuv,skij,ui,vj->wk', Wc, Q, h, x)
            out[p.dst[e], c.w:c.w + c.mw * c.dw] += y.flatten()
    assert out.abs().max() > 1
    assert close(p(p.h, p.x, p.weight, 'reference'), out)
    k = dense_kernel(p.h, p.weight, p.couplings)
    message = (k @ p.x[p.src, :, None]).squeeze(-1)
    assert close(out.new_zeros(out.shape).index_add(0, p.dst, message), out)


def test_kernels_of_nothing():
    with pytest.warns(UserWarning, match='1x1o .* always zero'):
        p = Problem('O(3)', u='2x0e', v='3x0e', w='1x1o')
    k = dense_kernel(p.h, p.weight, p.couplings)
    assert k.shape == (len(p.h), 3, 3) and not k.any()
