"""Pure reverse mode over a whole batch: the function under vmap, plain autograd around it.

Every point has its own row of every level, so that one backward pass through a level gives that
row's derivative at all points together. Nothing of torch.func but `vmap` is used: its transforms
take twice as long per operation, and load torch's compiler at their first call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.autograd.operators import Levels, basis
from pipeline.autograd.request import Request

FEW_ROWS = 2  # so few cost no more one by one than batched, which loads sympy at its first call


def reverse_batch(request: Request, chunk: int) -> Callable[[Tensor], Levels]:
    """All derivatives at a batch of points, by reverse mode at every level.

    Args:
        request: What is evaluated; all orders up to its highest, k.
        chunk: Rows of a level that are differentiated together.

    Returns:
        A function from points (B, d) to f, Df, …, D^k f at all points, where D^j f has shape
        ``(B, *output_shape) + (n,) * j``.
    """
    order = request.order
    batched = torch.func.vmap(lambda z, point: request.at(point)[0](z))

    def evaluate(points: Tensor) -> Levels:
        with torch.enable_grad():
            z = request.variables(points).detach().requires_grad_()
            levels = [batched(z, points)]
            for level in range(1, order + 1):
                levels.append(_differentiate(levels[-1], z, chunk, create_graph=level < order))
        return tuple(level.detach() for level in levels)

    return evaluate


def _differentiate(level: Tensor, z: Tensor, chunk: int, create_graph: bool) -> Tensor:
    rows = level.reshape(len(z), -1)
    if not rows.requires_grad:  # a constant
        return z.new_zeros((*level.shape, z.shape[1]))
    pull = partial(
        torch.autograd.grad,
        inputs=z,
        create_graph=create_graph,
        retain_graph=True,
        materialize_grads=True,
    )
    if rows.shape[1] <= FEW_ROWS:
        each = [pull(row.sum())[0] for row in rows.unbind(1)]
        return torch.stack(each, 1).reshape(*level.shape, z.shape[1])
    blocks = [
        pull(rows, grad_outputs=unit[:, None, :].expand(-1, *rows.shape), is_grads_batched=True)[0]
        for unit in basis(rows.shape[1], chunk, rows)
    ]
    return torch.cat(blocks).movedim(0, 1).reshape(*level.shape, z.shape[1])
