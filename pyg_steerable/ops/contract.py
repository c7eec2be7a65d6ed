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
from functools import lru_cache, wraps
from typing import NamedTuple

import torch
from torch import Tensor

#: Bytes that the temporaries of one chunk of nodes may take.
CHUNK_BYTES = {'cpu': 16 * 2**20, 'cuda': 256 * 2**20}

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
    k = h.new_zeros(h.shape[0], out_dim, in_dim)
    weights = weight.split([p.numel for p in paths])
    for p, W, Q in zip(paths, weights, bases):
        h_u = h[:, p.u:p.u + p.mu * p.du].view(-1, p.mu, p.du)
        W = W.view(p.mw, p.s, p.mu, p.mv)
        # Two operands at a time: of three, einsum reads the sizes, which a
        # compiler then takes for fixed.
        block = torch.einsum('eui,skij->euskj', h_u, Q.to(h.dtype))
        block = torch.einsum('euskj,wsuv->ewkvj', block, W)
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
    if not paths:
        return h.new_zeros(num_dst, out_dim)
    if order == 'reference':
        return contract_reference(h, x, src, dst, num_dst, weight, bases,
                                  paths, out_dim)
    if order == 'auto':
        order = cheapest_order(h.shape[0], x.shape[0], num_dst, h.shape[-1],
                               x.shape[-1], out_dim, paths)
    # Autocast may have lowered one of the factors.
    h, x = h.to(weight.dtype), x.to(weight.dtype)
    bases = [Q.to(weight.dtype) for Q in bases]
    if order == 'aggregate':
        return _call_forward(h, x, src, dst, num_dst, weight, bases,
                             flatten(paths), out_dim)
    # The kernels act from the sources' side: the derivative, with respect to
    # its features, of the operator with the roles of V and W exchanged.
    mirrored = [p.transposed() for p in paths]
    weights = weight.split([p.numel for p in paths])
    weight = torch.cat([
        W.view(p.mw, -1, p.mv).transpose(0, 2).reshape(-1)
        for p, W in zip(paths, weights)
    ])
    bases = [Q.transpose(1, 3).contiguous() for Q in bases]
    unused = x.new_zeros(1, 1).expand(num_dst, out_dim)
    return _call_backward(x, h, unused, dst, src, weight, bases,
                          flatten(mirrored), [False, True, False])[1]


def cheapest_order(num_edges: int, num_src: int, num_dst: int, h_dim: int,
                   in_dim: int, out_dim: int, paths: Sequence[Path]) -> str:
    """Counts the operations of the two orders of evaluation."""
    mirrored = [path.transposed() for path in paths]
    here = (num_edges * h_dim * in_dim +
            num_dst * min(_costs(paths, h_dim * in_dim, out_dim)))
    there = (num_edges * h_dim * out_dim +
             num_src * min(_costs(mirrored, h_dim * out_dim, in_dim)))
    return 'aggregate' if here <= there else 'source'


# Multiplications in the time in which one number is moved.
_MOVE = 64


def _costs(paths: Sequence[Path], outer_dim: int,
           out_dim: int) -> tuple[int, int]:
    """Operations per node: through the maps Q and then the weights, or with
    the two multiplied out to one matrix.
    """
    factored = 0
    moved = {(p.u, p.v): p.mu * p.mv * p.du * p.dv for p in paths}
    for p in paths:
        channels = p.mu * p.mv
        factored += channels * p.s * p.dw * (p.du * p.dv + p.mw)
        factored += _MOVE * channels * p.s * p.dw
    return factored + _MOVE * sum(moved.values()), outer_dim * out_dim


# Layout ####################################################################


class Pair(NamedTuple):
    """The paths that share the blocks (u, v)."""
    u: slice
    v: slice
    paths: tuple[tuple[int, Path], ...]  # with their places in the list


@lru_cache(maxsize=256)
def _pairs(layout: tuple[int, ...]) -> tuple[Pair, ...]:
    groups: dict[tuple[int, int], list] = {}
    for i, p in enumerate(_parse(layout)):
        groups.setdefault((p.u, p.v), []).append((i, p))
    return tuple(
        Pair(slice(u, u + paths[0][1].mu * paths[0][1].du),
             slice(v, v + paths[0][1].mv * paths[0][1].dv), tuple(paths))
        for (u, v), paths in groups.items())


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
    return x.index_select(1, torch.tensor(permutation, device=x.device))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows x[index], which index_select copies several times faster."""
    return x.index_select(0, index.flatten()).view(*index.shape, x.shape[1])


class _Chunks:
    """Target nodes in chunks of like degree, with their edges as a table.

    Yields :obj:`(nodes [c], edges [c, D])`; the empty places of a table
    point to the row :math:`E`, which callers keep at zero.
    """
    def __init__(self, dst: Tensor, num_nodes: int, kernel, itemsize: int):
        U, V, _ = kernel.dims
        self.num_edges = dst.numel()
        self.by_node = torch.argsort(dst, stable=True)
        degree = torch.bincount(dst, minlength=num_nodes)
        self.start = degree.cumsum(0) - degree
        degree, self.nodes = degree.sort(descending=True, stable=True)
        self.degree = degree
        self.bounds = self._bounds(degree.tolist(),
                                   int(U * V * kernel.working_size), U + V,
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


class _Expanded:
    """The map B applied to outer products A [c, U, V], its transpose, and
    its derivative in the weights: as one matrix.
    """
    working_size = 1  # of a chunk's temporaries, in units of A

    def __init__(self, weight, bases, layout, dims):
        self.bases, self.dims = bases, dims
        self.paths = _parse(layout)
        self.weights = weight.split([p.numel for p in self.paths])
        self.B = weight.new_zeros(dims)
        for p, W, Q in zip(self.paths, self.weights, bases):
            W = W.view(p.mw, p.s, p.mu, p.mv)
            block = torch.einsum('wsuv,skij->uivjwk', W, Q)
            self._block(self.B, p).add_(block.reshape(
                p.mu * p.du, p.mv * p.dv, p.mw * p.dw))
        self.B = self.B.view(-1, dims[2])

    @staticmethod
    def _block(B: Tensor, p: Path) -> Tensor:
        return B[p.u:p.u + p.mu * p.du, p.v:p.v + p.mv * p.dv,
                 p.w:p.w + p.mw * p.dw]

    # Inputs and outputs in the layout that the map works in, and back.

    def enter(self, x: Tensor, which: str) -> Tensor:
        return x.contiguous()

    leave = enter

    def __call__(self, A: Tensor) -> Tensor:
        return A.flatten(1) @ self.B

    def transpose(self, g: Tensor) -> Tensor:
        """[c, W] -> [c, U, V]."""
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
        for p, Q in zip(self.paths, self.bases):
            block = self._block(grad, p).reshape(p.mu, p.du, p.mv, p.dv,
                                                 p.mw, p.dw)
            flat.append(
                torch.einsum('uivjwk,skij->wsuv', block, Q).flatten())
        return torch.cat(flat)


class _Factored:
    """The same, through the maps Q and then the weights, in the layout with
    components before copies.
    """
    def __init__(self, weight, bases, layout, dims):
        self.layout, self.dims = layout, dims
        self.pairs = _pairs(layout)
        paths = _parse(layout)
        self.weights = [
            W.view(p.mw, p.s, p.mu * p.mv)
            for p, W in zip(paths, weight.split([p.numel for p in paths]))
        ]
        self.bases = [  # the maps of a pair as one matrix [(s dw), (du dv)]
            torch.cat([bases[i].flatten(2).flatten(0, 1)
                       for i, _ in pair.paths]) for pair in self.pairs
        ]
        self.working_size = 2 + max(len(Q) / Q.shape[1] for Q in self.bases)

    def enter(self, x: Tensor, which: str) -> Tensor:
        return _permute(
            x, _component_major(self.layout, which, x.shape[1])[0])

    def leave(self, x: Tensor, which: str) -> Tensor:
        return _permute(
            x, _component_major(self.layout, which, x.shape[1])[1])

    def _through_bases(self, A: Tensor):
        """Applies Q: yields (i, p, T [s, (dw c), (mu mv)])."""
        for pair, Q in zip(self.pairs, self.bases):
            p = pair.paths[0][1]
            A_uv = A[:, pair.u, pair.v].reshape(-1, p.du, p.mu, p.dv, p.mv)
            A_uv = A_uv.permute(1, 3, 0, 2, 4).reshape(p.du * p.dv, -1)
            parts = (Q @ A_uv).split([p.s * p.dw for _, p in pair.paths])
            for T, (i, p) in zip(parts, pair.paths):
                yield i, p, T.view(p.s, -1, p.mu * p.mv)

    def __call__(self, A: Tensor) -> Tensor:
        out = A.new_zeros(len(A), self.dims[2])
        for i, p, T in self._through_bases(A):
            W = self.weights[i]
            y = T[0] @ W[:, 0].T  # [(dw c), mw]
            for s in range(1, p.s):
                y.addmm_(T[s], W[:, s].T)
            block = out[:, p.w:p.w + p.dw * p.mw].unflatten(1, (p.dw, p.mw))
            block.add_(y.view(p.dw, -1, p.mw).transpose(0, 1))
        return out

    @staticmethod
    def _cotangent(g: Tensor, p: Path) -> Tensor:
        g = g[:, p.w:p.w + p.dw * p.mw].reshape(-1, p.dw, p.mw)
        return g.transpose(0, 1).reshape(-1, p.mw)  # [(dw c), mw]

    def transpose(self, g: Tensor) -> Tensor:
        covered = sum(Q.shape[1] * pair.paths[0][1].mu * pair.paths[0][1].mv
                      for pair, Q in zip(self.pairs, self.bases))
        new = g.new_zeros if covered < self.dims[0] * self.dims[1] else (
            g.new_empty)
        dA = new(len(g), *self.dims[:2])
        for pair, Q in zip(self.pairs, self.bases):
            parts = []
            for i, p in pair.paths:
                W = self.weights[i].transpose(0, 1)  # [s, mw, (mu mv)]
                part = torch.matmul(self._cotangent(g, p), W)
                parts.append(part.reshape(p.s * p.dw, -1))
            p = pair.paths[0][1]
            block = Q.T @ torch.cat(parts)
            block = block.view(p.du, p.dv, len(g), p.mu, p.mv)
            place = dA[:, pair.u, pair.v].unflatten(2, (p.dv, p.mv))
            place.unflatten(1, (p.du, p.mu)).copy_(
                block.permute(2, 0, 3, 1, 4))
        return dA

    def start_weight_grad(self) -> list[Tensor]:
        return [torch.zeros_like(W) for W in self.weights]

    def add_weight_grad(self, grads: list[Tensor], A: Tensor, g: Tensor):
        for i, p, T in self._through_bases(A):
            gw = self._cotangent(g, p)
            for s in range(p.s):
                grads[i][:, s].addmm_(gw.T, T[s])

    def finish_weight_grad(self, grads: list[Tensor]) -> Tensor:
        return torch.cat([grad.flatten() for grad in grads])


# The one matrix is formed up to this size only.
_MAX_EXPANDED_BYTES = 256 * 2**20


def _kernel(weight, bases, layout, dims):
    factored, expanded = _costs(_parse(layout), dims[0] * dims[1], dims[2])
    size = dims[0] * dims[1] * dims[2] * weight.itemsize
    fits = size <= max(_MAX_EXPANDED_BYTES, 2 * weight.nbytes)
    kind = _Expanded if expanded <= factored and fits else _Factored
    return kind(weight, bases, layout, dims)


def _pad(h: Tensor) -> Tensor:
    """One more row, of zeros, for the empty places of tables of edges."""
    return torch.nn.functional.pad(h, (0, 0, 0, 1))


def _in_full_precision(function):
    """Autocast would lower single products, here and in backward."""
    @wraps(function)
    def wrapper(tensor, *args, **kwargs):
        with torch.autocast(tensor.device.type, enabled=False):
            return function(tensor, *args, **kwargs)

    return wrapper


@torch.library.custom_op('pyg_steerable::contract', mutates_args=())
@_in_full_precision
def _forward(h: Tensor, x: Tensor, src: Tensor, dst: Tensor, num_dst: int,
             weight: Tensor, bases: Sequence[Tensor], layout: Sequence[int],
             out_dim: int) -> Tensor:
    layout = tuple(layout)
    out = h.new_zeros(num_dst, out_dim)
    if not layout or not len(h):
        return out
    kernel = _kernel(weight, bases, layout, (h.shape[1], x.shape[1], out_dim))
    h = kernel.enter(_pad(h), 'u')
    x = kernel.enter(x, 'v')
    src = torch.nn.functional.pad(src, (0, 1))
    for nodes, edges in _Chunks(dst, num_dst, kernel, h.itemsize):
        out[nodes] = kernel(_rows(h, edges).mT @ _rows(x, src[edges]))
    return kernel.leave(out, 'w')


@_forward.register_fake
def _(h, x, src, dst, num_dst, weight, bases, layout, out_dim):
    return h.new_empty(num_dst, out_dim)


@torch.library.custom_op('pyg_steerable::contract_backward', mutates_args=())
@_in_full_precision
def _backward(
        g: Tensor, h: Tensor, x: Tensor, src: Tensor, dst: Tensor,
        weight: Tensor, bases: Sequence[Tensor], layout: Sequence[int],
        needs: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of <g, contract(h, x, weight)> in h, x and weight;
    empty where not needed.
    """
    layout = tuple(layout)
    need_h, need_x, need_w = needs
    gh = h.new_zeros(len(h) + 1, h.shape[1]) if need_h else h.new_empty(0)
    gx = x.new_zeros(x.shape) if need_x else h.new_empty(0)
    gw = torch.zeros_like(weight) if need_w else h.new_empty(0)
    if not layout or not len(h):
        return gh[:-1] if need_h else gh, gx, gw
    kernel = _kernel(weight, bases, layout,
                     (h.shape[1], x.shape[1], g.shape[1]))
    h, g = kernel.enter(_pad(h), 'u'), kernel.enter(g, 'w')
    if need_h or need_w:
        x = kernel.enter(x, 'v')
    src = torch.nn.functional.pad(src, (0, 1))
    grads = kernel.start_weight_grad() if need_w else None
    for nodes, edges in _Chunks(dst, len(g), kernel, h.itemsize):
        h_c, g_c = _rows(h, edges), _rows(g, nodes)
        if need_h or need_w:
            x_c = _rows(x, src[edges])
        if need_w:
            kernel.add_weight_grad(grads, h_c.mT @ x_c, g_c)
        if need_h or need_x:
            dA = kernel.transpose(g_c)
        if need_h:
            gh[edges.flatten()] = (x_c @ dA.mT).flatten(0, 1)
        if need_x:
            gx.index_add_(0, src[edges.flatten()], (h_c @ dA).flatten(0, 1))
    if need_h:
        gh = kernel.leave(gh[:-1], 'u')
    if need_x:
        gx = kernel.leave(gx, 'v')
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
    grads = _call_backward(g, h, x, src, dst, weight, bases, ctx.layout,
                           needs)
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
                _call_forward(here[0], here[1], src, dst, g.shape[0],
                              here[2], bases, ctx.layout, g.shape[1]))
        needs = [wanted[1 + i] and i != k for i in range(3)]
        if any(needs):
            grads = _call_backward(g, here[0], here[1], src, dst, here[2],
                                   bases, ctx.layout, needs)
            for i in range(3):
                if needs[i]:
                    total[1 + i] = _add(total[1 + i], grads[i])
    gg, gh, gx, gw = total
    return gg, gh, gx, None, None, gw, [None] * len(bases), None, None


_backward.register_autograd(_grad_backward, setup_context=_save_backward)


# torch.func ################################################################

# Operators with registered derivatives cannot be used under the transforms of
# torch.func: there, the same derivatives are those of an autograd.Function.
# (It is not used elsewhere: torch.compile does not take it with a list.)


def _function(operator, save, grad):
    """An autograd.Function of an operator's first six arguments, the two
    behind its bases, and the bases.
    """
    def pack(args):
        return (*args[:6], list(args[8:]), *args[6:8])

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return operator(*pack(args))

        @staticmethod
        def setup_context(ctx, inputs, output):
            save(ctx, pack(inputs), output)

        @staticmethod
        def backward(ctx, *grads):
            out = grad(ctx, *grads)
            return (*out[:6], None, None, *out[6])

        @staticmethod
        def vmap(info, in_dims, *args):
            return _one_by_one(Function.apply, info.batch_size, in_dims, args)

    return Function


def _one_by_one(function, batch_size: int, in_dims, args):
    """The rule of :func:`torch.func.vmap`: calls once for each entry."""
    def entry(b):
        return [a.select(d, b) if isinstance(a, Tensor) and d is not None
                else a for a, d in zip(args, in_dims)]

    outs = [function(*entry(b)) for b in range(batch_size)]
    if isinstance(outs[0], Tensor):
        return torch.stack(outs), 0
    return tuple(torch.stack(o) for o in zip(*outs)), (0, ) * len(outs[0])


_FORWARD = _function(_forward, _save_forward, _grad_forward)
_BACKWARD = _function(_backward, _save_backward, _grad_backward)


def _call(operator, function, *args):
    if (not torch.compiler.is_compiling()
            and torch._C._are_functorch_transforms_active()):
        return function.apply(*args[:6], *args[7:], *args[6])
    return operator(*args)


def _call_forward(*args) -> Tensor:
    return _call(_forward, _FORWARD, *args)


def _call_backward(*args) -> tuple[Tensor, Tensor, Tensor]:
    return _call(_backward, _BACKWARD, *args)
