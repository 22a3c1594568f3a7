"""Derivatives of any order at one point, through jvp and vjp of torch.func."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Levels = tuple[Tensor, ...]


def basis(size: int, chunk: int, like: Tensor) -> Iterator[Tensor]:
    """Rows of the identity matrix, never more than a chunk of them at a time.

    Args:
        size: Size of the identity.
        chunk: Rows per block.
        like: Gives dtype and device.

    Yields:
        Blocks of shape (c, size) with c <= chunk.
    """
    for start in range(0, size, chunk):
        columns = torch.arange(size, device=like.device)
        yield (columns == columns[start : start + chunk, None]).to(like.dtype)


def differentiate(
    f: Callable[[Tensor], Tensor], directions: Sequence[str], chunk: int
) -> Callable[[Tensor], Levels]:
    """All derivatives of f at one point in one pass.

    Each level differentiates the last one, by forward mode (`jvp` along the columns of the
    identity) or by reverse mode (`vjp` along its rows), and carries the lower levels along.

    Args:
        f: Maps (n,) to `output_shape`.
        directions: fwd or rev for each level, **innermost first**.
        chunk: Directions evaluated together at each level.

    Returns:
        A function from (n,) to f(x), Df(x), …, D^k f(x), where D^j f has shape
        ``output_shape + (n,) * j``.
    """

    def value(x: Tensor) -> Levels:
        return (f(x),)

    levels: Callable[[Tensor], Levels] = value
    for direction in directions:
        levels = (_forward if direction == "fwd" else _reverse)(levels, chunk)
    return levels


def _split(levels: Callable[[Tensor], Levels]) -> Callable[[Tensor], tuple[Tensor, Levels]]:
    def last_and_all(x: Tensor) -> tuple[Tensor, Levels]:
        result = levels(x)
        return result[-1], result

    return last_and_all


def _forward(levels: Callable[[Tensor], Levels], chunk: int) -> Callable[[Tensor], Levels]:
    def differentiated(x: Tensor) -> Levels:
        def column(tangent: Tensor) -> tuple[Tensor, Levels]:
            result: tuple[Any, ...] = torch.func.jvp(_split(levels), (x,), (tangent,), has_aux=True)
            return result[1], result[2]

        columns: list[Tensor] = []
        lower: Levels = ()
        for tangents in basis(x.shape[0], chunk, x):
            # out_dims=None is refused inside an outer vmap, and out_dims=-1 fails for a constant;
            # along dimension 0 whatever does not depend on the tangent is an expanded view
            block, repeated = torch.func.vmap(column)(tangents)
            columns.append(block)
            lower = tuple(level[0] for level in repeated)
        return (*lower, torch.cat(columns).movedim(0, -1))

    return differentiated


def _reverse(levels: Callable[[Tensor], Levels], chunk: int) -> Callable[[Tensor], Levels]:
    def differentiated(x: Tensor) -> Levels:
        result: tuple[Any, ...] = torch.func.vjp(_split(levels), x, has_aux=True)
        last, pull, lower = result
        if last.ndim == 0:
            return (*lower, pull(torch.ones_like(last))[0])
        rows = [
            torch.func.vmap(pull)(cotangents.reshape(-1, *last.shape))[0]
            for cotangents in basis(last.numel(), chunk, last)
        ]
        return (*lower, torch.cat(rows).reshape(last.shape + x.shape))

    return differentiated
