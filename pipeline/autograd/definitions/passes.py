"""Plain reverse passes at a batch of points: no transform of torch.func takes part.

Every point has its own row of every level, so that one pass gives a derivative at all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.autograd.definitions.differentiation import basis

FEW_ROWS = 2  # so few cost no more one by one than batched, which loads sympy at its first call


def pull_back(y: Tensor, z: Tensor, w: Tensor, create_graph: bool) -> Tensor:
    """``w · dy/dz`` at a batch of points, by one plain reverse pass.

    Args:
        y: (B, …), with the graph that leads to it.
        z: (B, n).
        w: Of the shape of y.
        create_graph: Make the result differentiable.

    Returns:
        (B, n); zeros where y does not depend on z.
    """
    if not y.requires_grad:
        return torch.zeros_like(z)
    (result,) = torch.autograd.grad(
        y, z, w, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return result


def push(y: Tensor, z: Tensor, v: Tensor, create_graph: bool) -> Tensor:
    """``dy/dz · v`` at a batch of points, by plain reverse passes alone.

    For vectors: what a reverse pass gives is linear in the cotangent, and its derivative with
    respect to that is the derivative along v (the "double backward trick", J. Townsend 2017).

    Args:
        y: (B, …), with the graph that leads to it.
        z: (B, n).
        v: (B, n).
        create_graph: Make the result differentiable.

    Returns:
        Of the shape of y.
    """
    if y.ndim == 1:
        return (pull_back(y, z, torch.ones_like(y), create_graph) * v).sum(1)
    w = torch.zeros_like(y, requires_grad=True)
    pulled = pull_back(y, z, w, create_graph=True)
    if not pulled.requires_grad:
        return torch.zeros_like(y)
    (result,) = torch.autograd.grad(
        pulled, w, v, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return result


def reverse(level: Tensor, z: Tensor, chunk: int, create_graph: bool = False) -> Tensor:
    """The derivative of every entry of a level, at a batch of points.

    Args:
        level: (B, …), with the graph that leads to it.
        z: (B, n).
        chunk: Entries that are differentiated together; 1 for plain passes, one after the other.
        create_graph: Make the result differentiable.

    Returns:
        level.shape + (n,).
    """
    shape = (*level.shape, z.shape[1])
    rows = level.reshape(len(z), -1)
    if not rows.requires_grad:  # a constant
        return z.new_zeros(shape)
    blocks = [block for _, block in _pulled(rows, z, chunk, create_graph)]
    return torch.cat(blocks).movedim(0, 1).reshape(shape)


def own_entries(level: Tensor, z: Tensor, chunk: int) -> Tensor:
    """The derivative of every entry with respect to the variable of its own last index.

    Args:
        level: (B, …, n), with the graph that leads to it.
        z: (B, n).
        chunk: Entries that are differentiated together; 1 for plain passes, one after the other.

    Returns:
        Of the shape of the level.
    """
    rows = level.reshape(len(z), -1)
    if not rows.requires_grad:
        return torch.zeros_like(level)
    n, kept = z.shape[1], []
    for start, block in _pulled(rows, z, chunk, create_graph=False):
        own = torch.arange(start, start + len(block), device=z.device) % n
        kept.append(block.gather(2, own[:, None, None].expand(-1, len(z), 1))[..., 0])
    return torch.cat(kept).movedim(0, 1).reshape(level.shape)


def _pulled(
    rows: Tensor, z: Tensor, chunk: int, create_graph: bool
) -> Iterator[tuple[int, Tensor]]:
    """First row and derivatives (c, B, n) of c rows at a time."""
    if chunk == 1 or rows.shape[1] <= FEW_ROWS:
        for start, row in enumerate(rows.unbind(1)):
            yield start, pull_back(row, z, torch.ones_like(row), create_graph)[None]
        return
    for start, unit in zip(
        range(0, rows.shape[1], chunk), basis(rows.shape[1], chunk, rows), strict=True
    ):
        yield start, torch.autograd.grad(
            rows, z, unit[:, None, :].expand(-1, *rows.shape), is_grads_batched=True,
            create_graph=create_graph, retain_graph=True, materialize_grads=True,
        )[0]  # fmt: skip
