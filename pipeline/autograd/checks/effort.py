"""How much may be spent on checks: counted, so that the same job is checked in the same way everywhere."""

from __future__ import annotations

import logging
from functools import lru_cache

from torch import Tensor

from pipeline.autograd.checks.view import random_directions
from pipeline.autograd.cost import Pass, count_pass
from pipeline.autograd.memory import WORKING_SET
from pipeline.autograd.reference import directional
from pipeline.autograd.request import Request

log = logging.getLogger(__name__)
CHECKING_SECONDS = 4.0  # that all comparisons of a job may take, by count
FEWEST = 2  # points that are compared, however long one takes
PASSES = 10  # passes per point that all oracles take together
FREE = 16  # passes per point that are not even counted


@lru_cache(maxsize=1)
def one_pass(request: Request) -> Pass:
    """Count one plain backward pass through the highest order, at the example.

    Args:
        request: What is evaluated.

    Returns:
        What it takes; nothing where torch cannot differentiate the function, which others say.
    """
    g, z = request.at(request.example)
    weights, *vectors = [each.to(z) for each in random_directions(request, seed=0)]
    try:
        return count_pass(lambda: directional(g, z, weights, vectors))
    except Exception:  # torch has no derivative of some operations, by any kind of error
        return Pass(0.0, 0)


def fits_together(request: Request) -> int:
    """Choose how many places oracles may evaluate in one call, where these only save calls of torch.

    Args:
        request: What is evaluated.

    Returns:
        As many as stay in the caches; 1 where the function makes text of values, which would be
        those of a batch.
    """
    peak = one_pass(request).peak
    return 1 if request.text or peak == 0 else max(1, WORKING_SET["cpu"][1] // peak)


def affordable(request: Request, points: Tensor) -> Tensor:
    """Choose at how many points a function is checked: fewer where it takes long.

    Args:
        request: What is evaluated.
        points: (P, d), where the function can be evaluated.

    Returns:
        The first of them, (P', d), with P' >= 2 where there are two.
    """
    seconds = one_pass(request).seconds
    count = max(FEWEST, int(CHECKING_SECONDS / max(PASSES * seconds, 1e-9)))
    if count < len(points):
        log.info(
            "a backward pass through the function takes about %.2g s: it is checked at %d points of %d",
            seconds, count, len(points),
        )  # fmt: skip
    return points[:count]


def fits_entry_by_entry(request: Request, points: Tensor, passes: int) -> bool:
    """Tell whether every entry of a derivative can be compared with the reference in the time there is.

    Args:
        request: What is evaluated.
        points: (P, d).
        passes: Backward passes per point.

    Returns:
        Whether it can; else a contraction with random directions is.
    """
    if passes <= FREE:
        return True
    twice = 2 * passes * len(points)  # at the points, and beside them
    return twice * one_pass(request).seconds <= CHECKING_SECONDS
