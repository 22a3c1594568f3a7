"""The oracles that do not share the reference's derivation."""

from __future__ import annotations

import sys
from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.checks.effort import fits_together
from pipeline.autograd.checks.finite_difference import (
    FiniteDifferences,
    compare_with_finite_differences,
)
from pipeline.autograd.checks.forward_mode import (
    ForwardMode,
    compare_forward_with_reverse,
)
from pipeline.autograd.checks.oracle import Oracle
from pipeline.autograd.cost import FORWARD_SECONDS
from pipeline.autograd.functions.half_precision import FLOAT64
from pipeline.autograd.precision import half_inside
from pipeline.autograd.request import Request


@dataclass(frozen=True)
class Checks:
    """What other oracles say about the reference.

    Attributes:
        differences: Outcome of finite differences.
        forward: Outcome of forward mode.
        asymmetry: Where the reference is not symmetric.
    """

    differences: FiniteDifferences
    forward: ForwardMode
    asymmetry: tuple[str, ...]

    @property
    def disagreements(self) -> tuple[str, ...]:
        """What speaks against the reference.

        Where finite differences confirm reverse mode, forward mode is what is wrong.
        """
        pairs = zip(self.forward.disagreements, self.forward.places, strict=True)
        forward = (said for said, place in pairs if place not in self.differences.confirmed)
        return (*self.differences.disagreements, *forward, *self.asymmetry)

    @property
    def is_confirmed(self) -> bool:
        """Something that does not share the derivation of the reference speaks for it."""
        return self.differences.checks > 0 or self.forward.residual is not None

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What could not be checked, and why."""
        wrong = (
            "forward mode is wrong: it differs from reverse mode, which finite differences confirm"
        )
        remark = (wrong,) if set(self.forward.places) & self.differences.confirmed else ()
        return (*self.differences.unchecked, *self.forward.unchecked, *remark)


def check_reference(
    request: Request, points: Tensor, oracle: Oracle, job_seconds: float = float("inf")
) -> Checks:
    """Check the reference itself: by finite differences, forward mode, and symmetry.

    Args:
        request: What is evaluated.
        points: (P, n), of the job's dtype.
        oracle: The reference at these points.
        job_seconds: Predicted time of the job; one that is too short does not load forward mode.

    Returns:
        What they say.
    """
    if "float64" not in oracle.reference:
        reason = "the function cannot be evaluated in float64: neither finite differences nor forward mode"
        return _unchecked(reason, oracle)
    precise = points.to(torch.float64)
    half = request.precision  # of a function of float64 that calculates in less
    if points.dtype != torch.float64:
        half = half_inside(request, precise[0]) or FLOAT64
    if half.is_half:
        reason = (
            f"the function calculates in {half.name}: neither finite differences nor forward mode"
        )
        return _unchecked(reason, oracle)
    differences = compare_with_finite_differences(request, precise, fits_together(request))
    alone = differences.checks == 0  # then forward mode is worth its time in any job
    seconds = float("inf") if alone else job_seconds
    forward = _forward_mode(request, precise, differences.confirmed, seconds)
    return Checks(differences, forward, oracle.asymmetry())


def _unchecked(reason: str, oracle: Oracle) -> Checks:
    differences = FiniteDifferences(None, 0, (reason,), ())
    return Checks(differences, ForwardMode(None, (), ()), oracle.asymmetry())


def _forward_mode(
    request: Request, points: Tensor, confirmed: Set[int], job_seconds: float
) -> ForwardMode:
    if job_seconds < FORWARD_SECONDS and "torch._dynamo" not in sys.modules:
        reason = f"forward mode: loading it takes {FORWARD_SECONDS} s, longer than the job"
        return ForwardMode(None, (reason,), ())
    return compare_forward_with_reverse(request, points, confirmed)
