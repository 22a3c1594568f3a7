"""Kinks of what is made of eigenvalues and ranks: where several are one, and where one is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Condition = Callable[..., Tensor]
TIE = 1e-12  # relative gap of eigenvalues that are one


def _degenerate(values_of: Callable[[Tensor], Tensor]) -> Condition:
    def condition(x: Tensor, *args: Any, **options: Any) -> Tensor:
        values = values_of(x)
        met: Tensor = values.diff(dim=-1).abs() <= TIE * values.abs().amax(dim=-1, keepdim=True)
        return met

    return condition


def _rank(x: Tensor, *args: Any, **options: Any) -> Tensor:
    values = torch.linalg.svdvals(x)
    met: Tensor = values[..., -1] <= TIE * values[..., 0]
    return met


def _multiple_roots(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Eigenvalues that are one, as far as those of a matrix that is not symmetric can be known."""
    values = torch.linalg.eigvals(x)
    rows, columns = torch.triu_indices(x.shape[-1], x.shape[-1], 1)
    gaps = (values[..., rows] - values[..., columns]).abs()
    met: Tensor = gaps <= 8 * torch.finfo(x.dtype).eps ** 0.5 * values.abs().amax(-1, keepdim=True)
    return met


_TABLE = (
    (_degenerate(torch.linalg.eigvalsh), "eigh eigvalsh"),
    (_degenerate(torch.linalg.svdvals), "svd svdvals"),
    (_rank, "qr pinv lstsq"),
    (_multiple_roots, "eig eigvals"),
)
SPECTRAL = {name: condition for condition, names in _TABLE for name in names.split()}
