"""Finds what is wrong with the options of a job, before anything is evaluated."""

from __future__ import annotations

from pipeline.autograd.functions.half_precision import FLOAT64, PRECISIONS
from pipeline.autograd.routes import ROUTES
from pipeline.autograd.routes.base import BOTH, parse_mode
from pipeline.autograd.routes.finite_difference import FiniteDifferenceRoute, difference_modes
from pipeline.errors import ConfigurationError, nearest
from pipeline.job import Options

SETTLED = {"on_disagreement": ("error", "warn"), "on_point_error": ("flag", "stop")}


def check_options(options: Options, order: int | None = None) -> list[str]:
    """Find what is wrong with the options, before anything is evaluated.

    Args:
        options: How to evaluate.
        order: Highest order, where it is known already.

    Returns:
        One sentence per fault.
    """
    faults = []
    if options.route not in ("auto", *ROUTES):
        faults.append(
            f"route {options.route!r} is unknown. {nearest(options.route, ['auto', *ROUTES])}"
        )
    faults += [
        f"{name}: expected {' or '.join(words)}, got {getattr(options, name)!r}"
        for name, words in SETTLED.items()
        if getattr(options, name) not in words
    ]
    faults += _half_faults(options)
    for name in ("batch", "chunk", "memory"):
        value = getattr(options, name)
        if value is not None and value < 1:
            faults.append(f"{name}: expected a positive number or null, got {value}")
    if options.mode == BOTH and order not in (None, 1):
        faults.append(f"mode {BOTH} is of order 1, and order {order} is asked for")
    elif options.route == FiniteDifferenceRoute.name and options.mode != "auto":
        faults += _check_differences(options.mode, order)
    elif options.mode not in ("auto", BOTH) and order is not None:
        try:
            parse_mode(options.mode, order)
        except ConfigurationError as error:
            faults += error.faults
    return faults


def _half_faults(options: Options) -> list[str]:
    by_differences = options.finite_differences or options.route == FiniteDifferenceRoute.name
    if not by_differences or not PRECISIONS.get(options.dtype, FLOAT64).is_half:
        return []
    return [
        f"dtype={options.dtype} leaves no digits for differences of values; "
        "use dtype=float32, or leave finite_differences and its route out"
    ]


def _check_differences(mode: str, order: int | None) -> list[str]:
    if order is None or mode in (modes := difference_modes(order)):
        return []
    return [
        f"route {FiniteDifferenceRoute.name} has no mode {mode!r} of order {order}: expected {', '.join(modes)}"
    ]
