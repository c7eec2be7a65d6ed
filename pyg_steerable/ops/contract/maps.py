"""The map B applied to outer products of edge and node features."""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .couplings import Coupling, parse, split_weights
from .plan import prefers_matrix


class Pair(NamedTuple):
    """The couplings that share the blocks (u, v)."""
    u: slice
    v: slice
    copies: int  # of pairs of fields, mu mv
    terms: tuple[tuple[int, Coupling], ...]  # with their places in the list


def pairs(terms: Sequence[Coupling]) -> tuple[Pair, ...]:
    """The couplings by their pairs of blocks."""
    groups: dict[tuple[int, int], list] = {}
    for i, c in enumerate(terms):
        groups.setdefault((c.u, c.v), []).append((i, c))
    out = []
    for (u, v), group in groups.items():
        c = group[0][1]
        out.append(Pair(slice(u, u + c.mu * c.du), slice(v, v + c.mv * c.dv),
                        c.mu * c.mv, tuple(group)))
    return tuple(out)


@lru_cache(maxsize=256)
def _pairs(layout: tuple[int, ...]) -> tuple[Pair, ...]:
    return pairs(parse(layout))


@lru_cache(maxsize=256)
def _blocks(layout: tuple[int, ...], which: str,
            dim: int) -> tuple[tuple[int, int, int], ...]:
    """All columns of U, V or W as blocks (start, mul, d); those that no
    coupling uses are blocks of single components.
    """
    used = sorted({(getattr(c, which), getattr(c, 'm' + which),
                    getattr(c, 'd' + which)) for c in parse(layout)})
    blocks, end = [], 0
    for start, mul, d in [*used, (dim, 0, 0)]:
        if start > end:
            blocks.append((end, start - end, 1))
        if mul:
            blocks.append((start, mul, d))
        end = start + mul * d
    return tuple(blocks)


def _swapped(x: Tensor, blocks, out: Tensor, inverse: bool = False) -> Tensor:
    """Writes x with the columns of each block turned from [mul, d] to
    [d, mul], or back, into the first rows of out.
    """
    place = out[:len(x)]
    for start, mul, d in blocks:
        block = slice(start, start + mul * d)
        shape = (d, mul) if inverse else (mul, d)
        place[:, block].view(-1, *shape[::-1]).copy_(
            x[:, block].unflatten(1, shape).transpose(1, 2))
    return out


def _with_zero_rows(x: Tensor, rows: int) -> Tensor:
    """An empty tensor like x with so many more rows, which are zero."""
    out = x.new_empty(len(x) + rows, x.shape[1])
    out[len(x):] = 0
    return out


def rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows x[index], which index_select copies several times faster."""
    return x.index_select(0, index.flatten()).view(*index.shape, x.shape[1])


class ExpandedMap:
    """The map B applied to outer products A [n, U, V], its transpose, and
    its derivative in the weights: as one matrix.
    """
    working_size = 1  # of a chunk's temporaries, in units of A

    def __init__(self, weight, bases, layout, dims):
        self.bases, self.dims = bases, dims
        self.terms = parse(layout)
        self.B = weight.new_zeros(dims)
        for c, W, Q in zip(self.terms, split_weights(weight, self.terms),
                           bases):
            block = torch.einsum('wsuv,skij->uivjwk', W, Q)
            self._block(self.B, c).add_(block.reshape(
                c.mu * c.du, c.mv * c.dv, c.mw * c.dw))
        self.B = self.B.view(-1, dims[2])

    @staticmethod
    def _block(B: Tensor, c: Coupling) -> Tensor:
        return B[c.u:c.u + c.mu * c.du, c.v:c.v + c.mv * c.dv,
                 c.w:c.w + c.mw * c.dw]

    # Inputs and outputs in the layout that the map works in (with rows of
    # zeros after them), and back.

    def enter(self, x: Tensor, which: str, pad: int = 0) -> Tensor:
        if not pad:
            return x.contiguous()
        out = _with_zero_rows(x, pad)
        out[:len(x)] = x
        return out

    def leave(self, x: Tensor, which: str) -> Tensor:
        return x.contiguous()

    def __call__(self, A: Tensor) -> Tensor:
        return A.flatten(1) @ self.B

    def transpose(self, g: Tensor) -> Tensor:
        """[n, W] -> [n, U, V]."""
        return (g @ self.B.T).view(-1, *self.dims[:2])

    def start_weight_grad(self) -> Tensor:
        """Zeros for :meth:`add_weight_grad` to add to."""
        return torch.zeros_like(self.B)

    def add_weight_grad(self, grad: Tensor, A: Tensor, g: Tensor) -> None:
        """Adds the derivative of <g, B(A)> in the weights."""
        grad.addmm_(A.flatten(1).T, g)

    def finish_weight_grad(self, grad: Tensor) -> Tensor:
        """All weight derivatives, flat."""
        grad = grad.view(self.dims)
        flat = []
        for c, Q in zip(self.terms, self.bases):
            block = self._block(grad, c).reshape(c.mu, c.du, c.mv, c.dv,
                                                 c.mw, c.dw)
            flat.append(
                torch.einsum('uivjwk,skij->wsuv', block, Q).flatten())
        return torch.cat(flat)


class FactoredMap:
    """The same, through the maps Q and then the weights, in the layout with
    components before copies.
    """
    def __init__(self, weight, bases, layout, dims):
        self.layout, self.dims = layout, dims
        self.pairs = _pairs(layout)
        self.weights = [W.flatten(2) for W in split_weights(
            weight, parse(layout))]  # [mw, s, (mu mv)]
        self.bases = [  # the maps of a pair as one matrix [(s dw), (du dv)]
            torch.cat([bases[i].flatten(2).flatten(0, 1)
                       for i, _ in pair.terms]) for pair in self.pairs
        ]
        self.working_size = 2 + max(len(Q) / Q.shape[1] for Q in self.bases)

    def enter(self, x: Tensor, which: str, pad: int = 0) -> Tensor:
        return _swapped(x, _blocks(self.layout, which, x.shape[1]),
                        _with_zero_rows(x, pad))

    def leave(self, x: Tensor, which: str) -> Tensor:
        return _swapped(x, _blocks(self.layout, which, x.shape[1]),
                        x.new_empty(x.shape), inverse=True)

    def _through_bases(self, A: Tensor):
        """Applies Q: yields (i, c, T [s, (dw n), (mu mv)])."""
        for pair, Q in zip(self.pairs, self.bases):
            c = pair.terms[0][1]
            A_uv = A[:, pair.u, pair.v].reshape(-1, c.du, c.mu, c.dv, c.mv)
            A_uv = A_uv.permute(1, 3, 0, 2, 4).reshape(c.du * c.dv, -1)
            parts = (Q @ A_uv).split([c.s * c.dw for _, c in pair.terms])
            for T, (i, c) in zip(parts, pair.terms):
                yield i, c, T.view(c.s, -1, c.mu * c.mv)

    def __call__(self, A: Tensor) -> Tensor:
        out = A.new_zeros(len(A), self.dims[2])
        for i, c, T in self._through_bases(A):
            W = self.weights[i]
            y = T[0] @ W[:, 0].T  # [(dw n), mw]
            for s in range(1, c.s):
                y.addmm_(T[s], W[:, s].T)
            block = out[:, c.w:c.w + c.dw * c.mw].unflatten(1, (c.dw, c.mw))
            block.add_(y.view(c.dw, -1, c.mw).transpose(0, 1))
        return out

    @staticmethod
    def _cotangent(g: Tensor, c: Coupling) -> Tensor:
        g = g[:, c.w:c.w + c.dw * c.mw].reshape(-1, c.dw, c.mw)
        return g.transpose(0, 1).reshape(-1, c.mw)  # [(dw n), mw]

    def transpose(self, g: Tensor) -> Tensor:
        covered = sum(Q.shape[1] * pair.copies
                      for pair, Q in zip(self.pairs, self.bases))
        new = g.new_zeros if covered < self.dims[0] * self.dims[1] else (
            g.new_empty)
        dA = new(len(g), *self.dims[:2])
        for pair, Q in zip(self.pairs, self.bases):
            T, first = g.new_empty(len(Q), len(g) * pair.copies), 0
            for i, c in pair.terms:
                W = self.weights[i].transpose(0, 1)  # [s, mw, (mu mv)]
                part = T[first:first + c.s * c.dw].view(c.s, -1, W.shape[2])
                torch.matmul(self._cotangent(g, c), W, out=part)
                first += c.s * c.dw
            c = pair.terms[0][1]
            block = Q.T @ T
            block = block.view(c.du, c.dv, len(g), c.mu, c.mv)
            place = dA[:, pair.u, pair.v].unflatten(2, (c.dv, c.mv))
            place.unflatten(1, (c.du, c.mu)).copy_(
                block.permute(2, 0, 3, 1, 4))
        return dA

    def start_weight_grad(self) -> list[Tensor]:
        return [torch.zeros_like(W) for W in self.weights]

    def add_weight_grad(self, grads: list[Tensor], A: Tensor, g: Tensor):
        for i, c, T in self._through_bases(A):
            gw = self._cotangent(g, c)
            for s in range(c.s):
                grads[i][:, s].addmm_(gw.T, T[s])

    def finish_weight_grad(self, grads: list[Tensor]) -> Tensor:
        return torch.cat([grad.flatten() for grad in grads])


def build_map(weight, bases, layout, dims):
    """The cheaper of the two ways to apply B, dims are those of U, V, W."""
    kind = (ExpandedMap if prefers_matrix(parse(layout), dims, weight)
            else FactoredMap)
    return kind(weight, bases, layout, dims)
