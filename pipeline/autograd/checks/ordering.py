"""Kinks of what compares its elements with each other: ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, stack


def _along(x: Tensor, dim: Any) -> Tensor:
    """What is compared, as the last dimension: along one, several, or the whole tensor."""
    if x.ndim == 0 or not (isinstance(dim, int) or dim):
        return x.reshape(-1)
    dims = [dim] if isinstance(dim, int) else list(dim)
    return x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))


def _chosen(*choices: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """One element is chosen, and there is another of the same value."""

    def condition(x: Tensor, *args: Any, **options: Any) -> Tensor:
        second = options.get("other", args[0] if args else None)
        if isinstance(second, Tensor):
            return x == second
        rows = _along(x, options.get("dim", second))
        met = [(rows == choose(rows)[..., None]).sum(-1) > 1 for choose in choices]
        return stack(met).any(0)

    return condition


def _highest(rows: Tensor) -> Tensor:
    return rows.amax(-1)


def _lowest(rows: Tensor) -> Tensor:
    return rows.amin(-1)


def _median(rows: Tensor) -> Tensor:
    return rows.nanmedian(-1).values


def _sorted(x: Tensor, dim: int = -1, *args: Any, **options: Any) -> Tensor:
    return _along(x, dim).sort().values.diff(dim=-1) == 0


def _sorted_columns(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return _sorted(x, 0)


def _ranked(x: Tensor, k: int, dim: int = -1, *args: Any, **options: Any) -> Tensor:
    return _sorted(x, dim)


_TABLE = (
    (_chosen(_highest), "max amax argmax"),
    (_chosen(_lowest), "min amin argmin"),
    (_chosen(_highest, _lowest), "aminmax"),
    (_chosen(_median), "median nanmedian"),
    (_sorted, "sort argsort cummax cummin"),
    (_sorted_columns, "msort"),
    (_ranked, "topk kthvalue"),
)
ORDERING = {name: condition for condition, names in _TABLE for name in names.split()}
