r"""Neighbours' features through a factored kernel.

The kernel of an edge is :math:`k_e = \sum_q h_{eq} B_q` with steerable
features :math:`h_e` and an equivariant :math:`B`, which couples blocks of
fields along *paths* :math:`p = (u, v, w)`:

.. math::
    y_{i, w} = \sum_{e: j \to i} \sum_p \sum_s W^p_{m_w s m_u m_v} \,
    Q^p_{s d_w d_u d_v} \, h_{e, m_u d_u} \, x_{j, m_v d_v}

:func:`contract_reference` forms :math:`k_e`, :math:`[E, d_{out}, d_{in}]`.
:func:`contract` uses that the map is linear in the outer product
:math:`h_e \otimes x_j`: those are summed at each node first and go through
:math:`B` once per node, a bounded number of nodes at a time. Nothing of a
chunk is kept: backward computes it again.

All of it is multilinear, so that the derivatives of any order are again the
two operators below, with other arguments.
"""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

#: Bytes that the outer products of one chunk of nodes may take.
CHUNK_BYTES = {'cpu': 6 * 2**20, 'cuda': 256 * 2**20}

ORDERS = ('auto', 'aggregate', 'source', 'reference')


class Path(NamedTuple):
    """One coupling :math:`U_u \\otimes V_v \\to W_w` of blocks of fields:
    offset, copies and components of each, and the number s of maps.
    """
    u: int
    mu: int
    du: int
    v: int
    mv: int
    dv: int
    w: int
    mw: int
    dw: int
    s: int

    @property
    def numel(self) -> int:
        """The number of weights, in the order [mw, s, mu, mv]."""
        return self.mw * self.s * self.mu * self.mv

    def transposed(self) -> Path:
        """The path with the roles of V and W exchanged."""
        return Path(self.u, self.mu, self.du, self.w, self.mw, self.dw,
                    self.v, self.mv, self.dv, self.s)


def _parse(layout: Sequence[int]) -> list[Path]:
    n = len(Path._fields)
    return [Path(*layout[i:i + n]) for i in range(0, len(layout), n)]


def flatten(paths: Sequence[Path]) -> list[int]:
    """Paths as the plain list of integers that the operators take."""
    return [n for path in paths for n in path]


# The reference #############################################################


def dense_kernel(h: Tensor, weight: Tensor, bases: Sequence[Tensor],
                 paths: Sequence[Path], in_dim: int, out_dim: int) -> Tensor:
    r"""The kernels :math:`k_e` as matrices, the plain reference.

    Shapes:
        - **h:** :math:`[E, d_h]`, **weight:** :math:`[P]`,
          **output:** :math:`[E, d_{out}, d_{in}]`
    """
    k = h.new_zeros(len(h), out_dim, in_dim)
    weights = weight.split([p.numel for p in paths])
    for p, W, Q in zip(paths, weights, bases):
        h_u = h[:, p.u:p.u + p.mu * p.du].view(-1, p.mu, p.du)
        W = W.view(p.mw, p.s, p.mu, p.mv)
        block = torch.einsum('eui,wsuv,skij->ewkvj', h_u, W, Q.to(h.dtype))
        rows = slice(p.w, p.w + p.mw * p.dw)
        columns = slice(p.v, p.v + p.mv * p.dv)
        k[:, rows, columns] += block.reshape(-1, p.mw * p.dw, p.mv * p.dv)
    return k


def contract_reference(h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
                       num_dst: int, weight: Tensor, bases: Sequence[Tensor],
                       paths: Sequence[Path], out_dim: int) -> Tensor:
    r"""The same as :func:`contract` through :func:`dense_kernel`."""
    k = dense_kernel(h, weight, bases, paths, x.shape[-1], out_dim)
    message = (k @ x[src, :, None]).squeeze(-1)
    return h.new_zeros(num_dst, out_dim).index_add(0, dst, message)


# The public operator #######################################################


def contract(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, bases: Sequence[Tensor], paths: Sequence[Path],
             out_dim: int, order: str = 'auto') -> Tensor:
    r"""Sums the neighbours' features, taken through the factored kernel.

    Linear in :obj:`h`, :obj:`x` and :obj:`weight`; differentiable any number
    of times in the three. With :math:`N` target nodes it costs
    :math:`2 E d_h d_{in}` operations for the outer products and
    :math:`2 N \sum_p m_u m_v s \, d_w (d_u d_v + m_w)` for the maps, and takes
    memory for one chunk of nodes beside its inputs and output.

    Args:
        h (Tensor): Steerable features of the edges.
        x (Tensor): Features of the source nodes.
        src (Tensor): Source node of each edge.
        dst (Tensor): Target node of each edge, in any order.
        num_dst (int): The number of target nodes.
        weight (Tensor): The weights of all paths, each [mw, s, mu, mv].
        bases (list[Tensor]): The maps :math:`Q^p` [s, dw, du, dv] of each
            path.
        paths (list[Path]): Where the paths lead.
        out_dim (int): The width of the output.
        order (str, optional): :obj:`"aggregate"` sums outer products at the
            targets, :obj:`"source"` takes the source nodes through
            :math:`B` first, :obj:`"reference"` forms the kernels;
            :obj:`"auto"` counts the operations of the first two.

    Shapes:
        - **h:** :math:`[E, d_h]`, **x:** :math:`[N_{src}, d_{in}]`,
          **output:** :math:`[N_{dst}, d_{out}]`
    """
    if order not in ORDERS:
        raise ValueError(f"Expected 'order' to be one of {ORDERS} (got "
                         f"'{order}')")
    if order == 'reference':
        return contract_reference(h, x, src, dst, num_dst, weight, bases,
                                  paths, out_dim)
    if order == 'auto':
        order = cheapest_order(len(h), len(x), num_dst, h.shape[-1],
                               x.shape[-1], out_dim, paths)
    bases = [Q.to(h.dtype) for Q in bases]
    if order == 'aggregate':
        return _forward(h, x, src, dst, num_dst, weight, bases,
                        flatten(paths), out_dim)
    # The kernels act from the sources' side: the derivative, with respect to
    # its features, of the operator with the roles of V and W exchanged.
    mirrored = [p.transposed() for p in paths]
    weights = weight.split([p.numel for p in paths])
    weight = torch.cat([
        W.view(p.mw, -1, p.mv).transpose(0, 2).reshape(-1)
        for p, W in zip(paths, weights)
    ]) if paths else weight
    bases = [Q.transpose(1, 3).contiguous() for Q in bases]
    unused = x.new_zeros(1, 1).expand(num_dst, out_dim)
    return _backward(x, h, unused, dst, src, weight, bases,
                     flatten(mirrored), [False, True, False])[1]


def cheapest_order(num_edges: int, num_src: int, num_dst: int, h_dim: int,
                   in_dim: int, out_dim: int, paths: Sequence[Path]) -> str:
    """Counts multiplications of the two orders of evaluation."""
    here = 1. * num_edges * h_dim * in_dim
    there = 1. * num_edges * h_dim * out_dim
    for path in paths:
        here += num_dst * min(_costs([path]))
        there += num_src * min(_costs([path.transposed()]))
    return 'aggregate' if here <= there else 'source'


def _costs(paths: Sequence[Path]) -> tuple[int, int]:
    """Multiplications per node for paths that share (u, v): through the maps
    Q and then the weights, or with the two multiplied out.
    """
    p = paths[0]
    channels = p.mu * p.mv
    factored = sum(q.s * q.dw * (q.du * q.dv + q.mw) for q in paths)
    expanded = sum(q.dw * q.mw * q.du * q.dv for q in paths)
    return channels * factored, channels * expanded


# Layout ####################################################################


class Pair(NamedTuple):
    """The paths that share the blocks (u, v)."""
    u: slice
    v: slice
    paths: tuple[tuple[int, Path], ...]  # with their places in the list
    expanded: bool


@lru_cache(maxsize=256)
def _pairs(layout: tuple[int, ...]) -> tuple[Pair, ...]:
    groups: dict[tuple[int, int], list] = {}
    for i, p in enumerate(_parse(layout)):
        groups.setdefault((p.u, p.v), []).append((i, p))
    pairs = []
    for paths in groups.values():
        p = paths[0][1]
        factored, expanded = _costs([q for _, q in paths])
        pairs.append(
            Pair(slice(p.u, p.u + p.mu * p.du),
                 slice(p.v, p.v + p.mv * p.dv), tuple(paths),
                 expanded <= factored))
    return tuple(pairs)


@lru_cache(maxsize=256)
def _component_major(layout: tuple[int, ...], which: str,
                     dim: int) -> tuple[list[int], list[int]]:
    """The permutation of columns from [mul, d] to [d, mul] in each block of
    U, V or W, and its inverse.
    """
    forth = list(range(dim))
    for p in _parse(layout):
        start = getattr(p, which)
        mul, d = getattr(p, 'm' + which), getattr(p, 'd' + which)
        forth[start:start + mul * d] = [
            start + m * d + i for i in range(d) for m in range(mul)
        ]
    back = [0] * dim
    for new, old in enumerate(forth):
        back[old] = new
    return forth, back


def _permute(x: Tensor, permutation: list[int]) -> Tensor:
    if permutation == list(range(len(permutation))):
        return x.contiguous()
    return x[:, torch.tensor(permutation, device=x.device)]


class _Chunks:
    """Target nodes in chunks of like degree, with their edges as a table.

    Yields :obj:`(nodes [c], edges [c, D])`; the empty places of a table
    point to the row :math:`E`, which callers keep at zero.
    """
    def __init__(self, dst: Tensor, num_nodes: int, outer_dim: int,
                 edge_dim: int, itemsize: int):
        self.num_edges = dst.numel()
        self.by_node = torch.argsort(dst, stable=True)
        degree = torch.bincount(dst, minlength=num_nodes)
        self.start = degree.cumsum(0) - degree
        degree, self.nodes = degree.sort(descending=True, stable=True)
        self.degree = degree
        self.bounds = self._bounds(degree.tolist(), outer_dim, edge_dim,
                                   itemsize, dst.device.type)

    @staticmethod
    def _bounds(degree, outer_dim, edge_dim, itemsize, device):
        budget = CHUNK_BYTES.get(device, CHUNK_BYTES['cuda']) // itemsize
        bounds, first = [], 0
        end = len(degree)
        while end and degree[end - 1] == 0:
            end -= 1
        while first < end:
            width = degree[first]
            size = max(1, budget // (outer_dim + width * edge_dim))
            last = min(first + size, end)
            bounds.append((first, last, width, degree[last - 1]))
            first = last
        return bounds

    def __iter__(self):
        for first, last, width, least in self.bounds:
            nodes = self.nodes[first:last]
            column = torch.arange(width, device=nodes.device)
            table = self.start[nodes][:, None] + column
            if least == width:
                yield nodes, self.by_node[table]
                continue
            inside = column < self.degree[first:last, None]
            edges = self.by_node[table.where(inside, 0)]
            yield nodes, edges.where(inside, self.num_edges)


# Execution #################################################################


class _Kernel:
    """The map B applied to outer products A [c, U, V] in component-major
    layout, its transpose, and the derivative in its weights.
    """
    def __init__(self, weight, bases, layout, out_dim):
        self.pairs = _pairs(tuple(layout))
        self.bases = bases
        self.out_dim = out_dim
        paths = _parse(layout)
        self.numel = [p.numel for p in paths]
        self.weights = [
            W.view(p.mw, p.s, p.mu * p.mv)
            for p, W in zip(paths, weight.split(self.numel))
        ]
        self.matrices = [
            self._expand(pair) if pair.expanded else None
            for pair in self.pairs
        ]

    def _expand(self, pair: Pair) -> Tensor:
        """B of one pair as a matrix, [(du mu dv mv), out_dim]."""
        q = pair.paths[0][1]
        B = self.bases[0].new_zeros(q.du, q.mu, q.dv, q.mv, self.out_dim)
        for i, p in pair.paths:
            W = self.weights[i].view(p.mw, p.s, p.mu, p.mv)
            block = torch.einsum('wsuv,skij->iujvkw', W, self.bases[i])
            B[..., p.w:p.w + p.mw * p.dw] += block.flatten(-2)
        return B.view(-1, self.out_dim)

    @staticmethod
    def _outer(A: Tensor, pair: Pair) -> Tensor:
        """The block of A as [(du dv), c, (mu mv)]."""
        p = pair.paths[0][1]
        A = A[:, pair.u, pair.v].reshape(-1, p.du, p.mu, p.dv, p.mv)
        return A.permute(1, 3, 0, 2, 4).reshape(p.du * p.dv, len(A), -1)

    def _through_bases(self, A: Tensor, pair: Pair) -> Tensor:
        """Q applied to the block: [sum of s dw, c, (mu mv)]."""
        Q = torch.cat([self.bases[i].flatten(2).flatten(0, 1)
                       for i, _ in pair.paths])
        A = self._outer(A, pair)
        return (Q @ A.flatten(1)).view(len(Q), *A.shape[1:])

    @staticmethod
    def _split(T: Tensor, pair: Pair):
        parts = T.split([p.s * p.dw for _, p in pair.paths])
        for part, (i, p) in zip(parts, pair.paths):
            yield i, p, part.view(p.s, -1, part.shape[-1])

    def __call__(self, A: Tensor) -> Tensor:
        """[c, U, V] -> [c, W]."""
        out = A.new_zeros(len(A), self.out_dim)
        for pair, B in zip(self.pairs, self.matrices):
            if B is not None:
                out.addmm_(A[:, pair.u, pair.v].reshape(len(A), -1), B)
                continue
            for i, p, T in self._split(self._through_bases(A, pair), pair):
                W = self.weights[i]
                y = T[0] @ W[:, 0].T  # [(dw c), mw]
                for s in range(1, p.s):
                    y.addmm_(T[s], W[:, s].T)
                block = out[:, p.w:p.w + p.dw * p.mw]
                block.unflatten(1, (p.dw, p.mw)).add_(
                    y.view(p.dw, -1, p.mw).transpose(0, 1))
        return out

    def _cotangent(self, g: Tensor, p: Path) -> Tensor:
        g = g[:, p.w:p.w + p.dw * p.mw].reshape(-1, p.dw, p.mw)
        return g.transpose(0, 1).reshape(-1, p.mw)  # [(dw c), mw]

    def transpose(self, g: Tensor, shape: torch.Size) -> Tensor:
        """[c, W] -> [c, U, V]."""
        dA = g.new_zeros(shape)
        for pair, B in zip(self.pairs, self.matrices):
            q = pair.paths[0][1]
            if B is not None:
                block = (g @ B.T).view(len(g), q.du * q.mu, q.dv * q.mv)
                dA[:, pair.u, pair.v] += block
                continue
            parts = []
            for i, p in pair.paths:
                gw = self._cotangent(g, p)
                W = self.weights[i].transpose(0, 1)  # [s, mw, (mu mv)]
                part = gw @ W if p.s > 1 else (gw @ W[0])[None]
                parts.append(part.view(p.s * p.dw, len(g), -1))
            Q = torch.cat([self.bases[i].flatten(2).flatten(0, 1)
                           for i, _ in pair.paths])
            block = Q.T @ torch.cat(parts).flatten(1)
            block = block.view(q.du, q.dv, len(g), q.mu, q.mv)
            block = block.permute(2, 0, 3, 1, 4)
            dA[:, pair.u, pair.v] += block.reshape(
                len(g), q.du * q.mu, q.dv * q.mv)
        return dA

    def start_weight_grad(self) -> list[Tensor | None]:
        """Zeros for :meth:`add_weight_grad` to add to."""
        grads = [torch.zeros_like(W) for W in self.weights]
        return grads + [
            None if B is None else torch.zeros_like(B) for B in self.matrices
        ]

    def add_weight_grad(self, grads: list[Tensor], A: Tensor, g: Tensor):
        """Adds the derivative of <g, B(A)> in the weights."""
        n = len(self.weights)
        for k, (pair, B) in enumerate(zip(self.pairs, self.matrices)):
            if B is not None:
                flat = A[:, pair.u, pair.v].reshape(len(A), -1)
                grads[n + k].addmm_(flat.T, g)
                continue
            for i, p, T in self._split(self._through_bases(A, pair), pair):
                gw = self._cotangent(g, p)
                for s in range(p.s):
                    grads[i][:, s].addmm_(gw.T, T[s])

    def finish_weight_grad(self, grads: list[Tensor]) -> Tensor:
        """All weight derivatives, flat."""
        n = len(self.weights)
        for k, (pair, B) in enumerate(zip(self.pairs, self.matrices)):
            if B is None:
                continue
            q = pair.paths[0][1]
            full = grads[n + k].view(q.du, q.mu, q.dv, q.mv, self.out_dim)
            for i, p in pair.paths:
                block = full[..., p.w:p.w + p.mw * p.dw]
                block = block.unflatten(-1, (p.dw, p.mw))
                grad = torch.einsum('iujvkw,skij->wsuv', block,
                                    self.bases[i])
                grads[i] += grad.reshape(grads[i].shape)
        return torch.cat([grad.flatten() for grad in grads[:n]])


def _padded(h: Tensor, permutation: list[int]) -> Tensor:
    """Columns permuted, and one more row, of zeros."""
    h = torch.nn.functional.pad(h, (0, 0, 0, 1))
    return _permute(h, permutation)


@torch.library.custom_op('pyg_steerable::contract', mutates_args=())
def _forward(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, bases: Sequence[Tensor], layout: Sequence[int],
             out_dim: int) -> Tensor:
    layout = tuple(layout)
    out = h.new_zeros(num_dst, out_dim)
    if not layout or not len(h):
        return out
    U, V = h.shape[1], x.shape[1]
    h = _padded(h, _component_major(layout, 'u', U)[0])
    x = _permute(x, _component_major(layout, 'v', V)[0])
    src = torch.nn.functional.pad(src, (0, 1))
    kernel = _Kernel(weight, bases, layout, out_dim)
    for nodes, edges in _Chunks(dst, num_dst, U * V, U + V, h.itemsize):
        A = h[edges].mT @ x[src[edges]]
        out[nodes] = kernel(A)
    return _permute(out, _component_major(layout, 'w', out_dim)[1])


@_forward.register_fake
def _(h, x, src, dst, num_dst, weight, bases, layout, out_dim):
    return h.new_empty(num_dst, out_dim)


@torch.library.custom_op('pyg_steerable::contract_backward', mutates_args=())
def _backward(
        g: Tensor, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
        weight: Tensor, bases: Sequence[Tensor], layout: Sequence[int],
        needs: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of <g, contract(h, x, weight)> in h, x and weight;
    empty where not needed.
    """
    layout = tuple(layout)
    need_h, need_x, need_w = needs
    U, V, W = h.shape[1], x.shape[1], g.shape[1]
    gh = h.new_zeros(len(h) + 1, U) if need_h else h.new_empty(0)
    gx = h.new_zeros(x.shape) if need_x else h.new_empty(0)
    gw = torch.zeros_like(weight) if need_w else h.new_empty(0)
    if not layout or not len(h):
        return gh[:-1] if need_h else gh, gx, gw
    h_out, h_back = _component_major(layout, 'u', U)
    x_out, x_back = _component_major(layout, 'v', V)
    h = _padded(h, h_out)
    g = _permute(g, _component_major(layout, 'w', W)[0])
    if need_h or need_w:
        x = _permute(x, x_out)
    src = torch.nn.functional.pad(src, (0, 1))
    kernel = _Kernel(weight, bases, layout, W)
    grads = kernel.start_weight_grad() if need_w else []
    for nodes, edges in _Chunks(dst, len(g), U * V, U + V, h.itemsize):
        h_c, g_c = h[edges], g[nodes]
        if need_h or need_w:
            x_c = x[src[edges]]
        if need_w:
            kernel.add_weight_grad(grads, h_c.mT @ x_c, g_c)
        if need_h or need_x:
            dA = kernel.transpose(g_c, (len(nodes), U, V))
        if need_h:
            gh[edges.flatten()] = (x_c @ dA.mT).flatten(0, 1)
        if need_x:
            gx.index_add_(0, src[edges.flatten()], (h_c @ dA).flatten(0, 1))
    if need_h:
        gh = _permute(gh[:-1], h_back)
    if need_x:
        gx = _permute(gx, x_back)
    if need_w:
        gw = kernel.finish_weight_grad(grads)
    return gh, gx, gw


@_backward.register_fake
def _(g, h, x, src, dst, weight, bases, layout, needs):
    tensors = (h, x, weight)
    return tuple(
        h.new_empty(t.shape) if need else h.new_empty(0)
        for t, need in zip(tensors, needs))


def _save_forward(ctx, inputs, output):
    h, x, src, dst, _, weight, bases, layout, _ = inputs
    ctx.save_for_backward(h, x, src, dst, weight, *bases)
    ctx.layout = layout


def _grad_forward(ctx, g):
    h, x, src, dst, weight, *bases = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 1, 5)]
    grads = _backward(g, h, x, src, dst, weight, bases, ctx.layout, needs)
    gh, gx, gw = (d if need else None for d, need in zip(grads, needs))
    return gh, gx, None, None, None, gw, [None] * len(bases), None, None


_forward.register_autograd(_grad_forward, setup_context=_save_forward)


def _save_backward(ctx, inputs, output):
    g, h, x, src, dst, weight, bases, layout, needs = inputs
    ctx.save_for_backward(g, h, x, src, dst, weight, *bases)
    ctx.layout, ctx.needs = layout, needs


def _add(a, b):
    return b if a is None else a if b is None else a + b


def _grad_backward(ctx, *tangents):
    # S(g, h, x, W) = <g, contract(h, x, W)> is linear in each argument.
    # The operator returned its derivatives in (h, x, W), and (a, b, c) come
    # back, so that the function to derive is
    #   S(g, a, x, W) + S(g, h, b, W) + S(g, h, x, c).
    g, h, x, src, dst, weight, *bases = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 2, 5)]
    total = [None, None, None, None]
    arguments = [h, x, weight]
    for k in range(3):
        if not ctx.needs[k] or tangents[k] is None:
            continue
        here = list(arguments)
        here[k] = tangents[k]
        if wanted[0]:
            total[0] = _add(
                total[0],
                _forward(here[0], here[1], src, dst, len(g), here[2], bases,
                         ctx.layout, g.shape[1]))
        needs = [wanted[1 + i] and i != k for i in range(3)]
        if any(needs):
            grads = _backward(g, here[0], here[1], src, dst, here[2], bases,
                              ctx.layout, needs)
            for i in range(3):
                if needs[i]:
                    total[1 + i] = _add(total[1 + i], grads[i])
    gg, gh, gx, gw = total
    return gg, gh, gx, None, None, gw, [None] * len(bases), None, None


_backward.register_autograd(_grad_backward, setup_context=_save_backward)
