"""What is drawn, as numbers: norms, eigenvalues, condition numbers, patterns of zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def norms(rows: NDArray[Any]) -> Floats:
    """Frobenius norm of each point's tensor, without overflow on the way.

    Args:
        rows: (B, …).

    Returns:
        (B,), NaN where an entry is NaN.
    """
    flat = np.abs(rows.reshape(len(rows), -1).astype(np.float64))
    largest = flat.max(axis=1, initial=0.0)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    size: Floats = scale * np.sqrt(np.square(flat / scale[:, None]).sum(axis=1))
    return size


def eigenvalues(hessians: NDArray[Any]) -> Floats:
    """Eigenvalues of symmetric matrices.

    Args:
        hessians: (B, n, n); their symmetric part counts.

    Returns:
        (B, n), ascending; NaN where an entry is not finite.
    """
    matrices = hessians.astype(np.float64)
    values = np.full(matrices.shape[:2], np.nan)
    finite = np.isfinite(matrices).all(axis=(1, 2))
    symmetric = 0.5 * matrices[finite] + 0.5 * matrices[finite].transpose(0, 2, 1)
    values[finite] = np.linalg.eigvalsh(symmetric)
    return values


def condition_numbers(spectrum: Floats) -> Floats:
    """Condition number in the 2-norm of symmetric matrices.

    Args:
        spectrum: (B, n) eigenvalues.

    Returns:
        (B,) max|λ| / min|λ|; infinite for singular matrices, NaN where the spectrum is.
    """
    sizes = np.abs(spectrum)
    largest, smallest = sizes.max(axis=1), sizes.min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient: Floats = np.where(largest > 0, largest / smallest, np.inf)
    return np.where(np.isnan(largest), np.nan, quotient)


def zero_fractions(rows: NDArray[Any]) -> Floats:
    """How often each entry is exactly zero.

    Args:
        rows: (B, …).

    Returns:
        (…) between 0 and 1.
    """
    fractions: Floats = (rows == 0).mean(axis=0)
    return fractions
