"""Every operator through jvp and vjp: pure definitions for one point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ConfigurationError, nearest

Levels = tuple[Tensor, ...]
OPERATORS = {"value": 0, "gradient": 1, "jacobian": 1, "hessian": 2}
HIGHEST_ORDER = 8
SYMMETRIC = ("full", "packed")


@dataclass(frozen=True)
class Operator:
    """What is asked per point.

    Attributes:
        name: value, gradient, jacobian, hessian or derivative_k.
        order: Number of times f is differentiated.
        packed: Only the distinct entries are kept: `pipeline.autograd.packing`.
    """

    name: str
    order: int
    packed: bool = False

    @property
    def dataset(self) -> str:
        """Name of what is kept."""
        return f"{self.name}_packed" if self.packed else self.name


def resolve_operators(
    names: Sequence[str],
    order: int | None,
    output_shape: tuple[int, ...],
    symmetric: str = "full",
) -> tuple[Operator, ...]:
    """Turn the names that a user gives into operators.

    Args:
        names: Names of operators; ``all`` stands for value, first derivative and hessian.
        order: Order of the operator `derivative`.
        output_shape: () or (m,).
        symmetric: full, or packed: orders from 2 on without their repetitions.

    Returns:
        The operators, in the order of the names, each once.

    Raises:
        ConfigurationError: Something cannot be asked; lists every fault.
    """
    if symmetric not in SYMMETRIC:
        raise ConfigurationError(
            [f"symmetric: expected {' or '.join(SYMMETRIC)}, got {symmetric!r}"]
        )
    first = "jacobian" if output_shape else "gradient"
    wanted = [
        name
        for asked in names
        for name in (("value", first, "hessian") if asked == "all" else (asked,))
    ]
    faults = [] if wanted else ["no operator was asked for; " + nearest("", _known())]
    for name in wanted:
        faults += _faults(name, order, output_shape)
    if faults:
        raise ConfigurationError(faults)
    named = [
        (f"derivative_{order}", order)
        if name == "derivative" and order is not None
        else (name, OPERATORS[name])
        for name in wanted
    ]
    packed = symmetric == "packed"
    chosen = [Operator(name, order, packed and order > 1) for name, order in named]
    return tuple(dict.fromkeys(chosen))


def _known() -> list[str]:
    return [*OPERATORS, "derivative", "all"]


def _faults(name: str, order: int | None, output_shape: tuple[int, ...]) -> list[str]:
    if name not in _known():
        return [f"operator {name!r} is unknown. {nearest(name, _known())}"]
    if name == "gradient" and output_shape:
        return [
            f"gradient needs a scalar function, this one returns shape {output_shape}; ask for the jacobian"
        ]
    if name == "derivative" and (order is None or not 1 <= order <= HIGHEST_ORDER):
        return [
            f"derivative needs an order from 1 to {HIGHEST_ORDER}, got {order}; give order=3, for example"
        ]
    return []


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
