"""Numbers near the ends of float64, where matplotlib's margins and ticks overflow, brought within its reach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.results.report.fields import Field

REACH = 1e200  # sizes from 1 / REACH to REACH are drawn as they are


def scaled(values: NDArray[Any], label: str) -> tuple[NDArray[Any], str]:
    """Divide numbers by a power of ten, where their largest size is out of reach.

    Args:
        values: (…).
        label: What they are.

    Returns:
        The numbers to draw, and what these are, such as ``energy / 1e308``.
    """
    sizes = _sizes(values)
    if not sizes.size or 1 / REACH <= sizes.max() <= REACH:
        return values, label
    exponent = int(np.floor(np.log10(sizes.max())))
    half = exponent // 2  # 10**-324 is no number
    return values / 10.0**half / 10.0 ** (exponent - half), f"{label} / 1e{exponent}".lstrip()


def within_reach(field: Field, logarithmic: bool) -> Field:
    """Bring a field within reach of a linear scale; what would be drawn on a logarithmic one, by its logarithms.

    Args:
        field: As it is stored.
        logarithmic: Whether its scale is.

    Returns:
        The same field, unless it is out of reach.
    """
    sizes, label = _sizes(field.values), field.unit or field.name
    if not logarithmic:
        values, label = scaled(field.values, label)
        return field if values is field.values else replace(field, values=values, unit=label)
    if not sizes.size or (sizes.min() >= 1 / REACH and sizes.max() <= REACH):
        return field
    with np.errstate(all="ignore"):
        values = np.where(field.values > 0, np.log10(field.values), np.nan)
    return replace(field, values=values, unit=f"log10({label})", signed=True, ratio=False)


def _sizes(values: NDArray[Any]) -> NDArray[Any]:
    """Of the numbers that are finite and not zero."""
    sizes: NDArray[Any] = np.abs(values[np.isfinite(values) & (values != 0)])
    return sizes
