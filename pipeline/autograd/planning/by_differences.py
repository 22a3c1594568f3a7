"""Evaluators by finite differences: where torch has no derivative, and only if the user says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.autograd.checks.certificate import Certificate
from pipeline.autograd.checks.conditioning import TINY
from pipeline.autograd.checks.kinks import kink_finder
from pipeline.autograd.checks.spot_check import UNCHECKED, SpotCheck
from pipeline.autograd.evaluation_plan import Candidate, Plan
from pipeline.autograd.evaluator import Calls, Evaluator
from pipeline.autograd.methods.differences import Along, Known, is_smooth
from pipeline.autograd.operators import Operator
from pipeline.autograd.planning.choice import MANY, Study, fit_batch
from pipeline.autograd.precision import runs_in_float64
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.routes.finite_difference import FiniteDifferenceRoute, difference_modes
from pipeline.errors import DisagreementError, told

log = logging.getLogger(__name__)
REFERENCE = "central differences of values along random directions"
DOUBTFUL = 1e-2  # relative error of what nothing can be compared with
SAME = 1e-6  # of a result that is evaluated twice


@dataclass(frozen=True)
class Comparison:
    """Differences along the axes against those along random directions.

    Attributes:
        error: Relative difference.
        doubt: Largest error of an entry, by their own estimate.
        largest: Largest entry.
        agrees: Whether the difference can be that of the errors of both.
    """

    error: float
    doubt: float
    largest: float
    agrees: bool


@dataclass(frozen=True)
class Differences:
    """Finite differences of one request, and how they are checked.

    Attributes:
        request: What is evaluated.
        route: The route, with what it knows of the job.
        mode: Its mode.
        kinks: Tells at which points a call of the function meets a kink; None for none.
    """

    request: Request
    route: FiniteDifferenceRoute
    mode: str
    kinks: Callable[[Tensor], Tensor] | None = None

    def flag(self, points: Tensor) -> Tensor:
        """Find the points at which the function is not smooth.

        Args:
            points: (B, d).

        Returns:
            bool (B,).
        """
        rough = [not self._is_smooth(point) for point in points]
        flags = torch.tensor(rough, dtype=torch.bool, device=points.device)
        return flags if self.kinks is None else flags | self.kinks(points)

    def _is_smooth(self, point: Tensor) -> bool:
        here, z, scale = self.route.place(self.request, point)
        g, along = self.request.at(here)[0], Along.random(self.request, seed=1)
        with torch.no_grad():
            return is_smooth(g, z, scale, along, self.request.order)

    def compare(self, point: Tensor, seed: int) -> dict[int, Comparison]:
        """Compare at one point.

        Args:
            point: (d,).
            seed: Of the directions.

        Returns:
            Order -> outcome; without those whose differences along the directions do not converge.
        """
        here, z, scale = self.route.place(self.request, point)
        g, along = self.request.at(here)[0], Along.random(self.request, seed)
        levels = self.route.known(self.request, self.mode, point)
        with torch.no_grad():
            pairs = {
                order: (
                    known,
                    along.contracted(known, scale, order),
                    along.known(g, z, scale, order),
                )
                for order, known in levels.items()
                if order > 0
            }
        found = {order: _compare(*pair) for order, pair in pairs.items()}
        return {order: outcome for order, outcome in found.items() if outcome is not None}

    def spot_check(
        self, operators: Sequence[Operator], point: Tensor, row: Mapping[str, Tensor], seed: int
    ) -> SpotCheck:
        """Compare one row that has been computed: with what comes out again, and that with values.

        Args:
            operators: What the row holds.
            point: (d,).
            row: Dataset -> its derivative there.
            seed: Of the directions.

        Returns:
            The outcome.
        """
        evaluate = self.route.prepare(self.request, self.mode, 1, 1)
        again = dict(zip(self.request.keys, evaluate(point[None]), strict=True))
        outcomes = self.compare(point, seed)
        errors = {
            item.name: outcomes[item.order].error for item in operators if item.order in outcomes
        }
        wrong = [
            f"{item.name} differs from {REFERENCE} by {errors[item.name]:.1e} relative"
            for item in operators
            if item.order in outcomes and not outcomes[item.order].agrees
        ]
        for item in operators:
            kept = self.request.keep(again[item.key], item.key)[0]
            gap = (kept - row[item.dataset]).abs().nan_to_num(0, 0, 0).max()
            if gap > SAME * kept.abs().nan_to_num(0, 0, 0).max():
                wrong.append(f"{item.name} comes out differently at the same point")
        return SpotCheck(errors, tuple(wrong)) if errors or wrong else UNCHECKED


def differences_of(request: Request, points: Tensor, mode: str) -> Differences:
    """The differences of a job.

    Args:
        request: What is evaluated.
        points: Points of the job, (P, d).
        mode: How many of the levels are differences.

    Returns:
        What evaluates and checks.
    """
    route = FiniteDifferenceRoute(points, runs_in_float64(request, points))
    return Differences(request, route, mode)


def _compare(known: Known, own: Known, seen: Known) -> Comparison | None:
    """A derivative, its contraction, and the same contraction from values along the directions."""
    largest = max(float(known.value.abs().max()), TINY)
    size = max(abs(float(own.value)), abs(float(seen.value)), 1e-9 * largest)
    gap, slack = abs(float(own.value - seen.value)), float(own.error + seen.error)
    if not (float(seen.error) < DOUBTFUL * size or gap <= slack):
        return None
    doubt = float(known.error.max())
    return Comparison(gap / size, doubt, largest, gap <= 10 * slack + 1e-9 * size)


def prepare_differences(
    study: Study, operators: tuple[Operator, ...], reason: str = ""
) -> Evaluator:
    """Evaluate by finite differences, and check these against others.

    Args:
        study: What is evaluated at which points; it needs no oracle.
        operators: What was asked for.
        reason: Why nothing more accurate is used; nothing where the user asked for it.

    Returns:
        The evaluator.

    Raises:
        DisagreementError: The differences do not converge, or not to the same.
    """
    request, points, options = study.request, study.points, study.options
    kinks = kink_finder(request, points) if request.order else None
    modes = difference_modes(request.order) if options.mode == "auto" else (options.mode,)
    considered = [Candidate("auto", "auto", f"refused: {reason}")] if reason else []
    for mode in modes:
        differences = replace(differences_of(request, points, mode), kinks=kinks)
        route = differences.route
        smooth = points[~differences.flag(points)] if request.order else points
        try:
            outcomes = _require_agreement(differences, smooth)
            break
        except RefusedError as refusal:
            considered.append(Candidate(route.name, mode, f"refused: {refusal}"))
    else:
        listed = "\n".join(f"  - {item.route} {item.mode}: {item.verdict}" for item in considered)
        raise DisagreementError(f"finite differences cannot be trusted either:\n{listed}")
    cost = route.cost(request, mode, options.chunk, study.budget)
    batch = fit_batch(study, route, cost)
    used = Candidate(route.name, mode, "used", cost, cost.seconds(study.count or MANY, batch))
    plan = Plan(route.name, mode, batch, points.dtype, points.device, cost, (*considered, used))
    certificate = _certify(
        differences, operators, outcomes, tuple(item.verdict for item in considered)
    )
    calls = Calls(route.prepare(request, mode, 1, batch), batch, differences.flag, differences)
    log.warning(
        "derivatives by finite differences (%s): estimated relative errors %s", mode,
        ", ".join(f"{name} {error:.0e}" for name, error in certificate.estimated_error.items()),
    )  # fmt: skip
    return Evaluator(calls, request, operators, plan, certificate)


def _require_agreement(differences: Differences, points: Tensor) -> list[dict[int, Comparison]]:
    """Outcomes at the points; refused where nothing can be said, or the wrong thing."""
    try:
        outcomes = [differences.compare(point, seed) for seed, point in enumerate(points)]
    except Exception as error:  # torch has no derivative below, by any kind of error
        raise RefusedError(told(error)) from error
    for outcome in outcomes:
        for order, each in outcome.items():
            if not each.agrees:
                raise RefusedError(
                    f"order {order} differs from {REFERENCE} by {each.error:.1e} relative"
                )
    order = differences.request.order
    if order and not any(order in outcome for outcome in outcomes):
        raise RefusedError(f"the function is not {order} times smooth at any of the points tried")
    return outcomes


def _certify(
    differences: Differences,
    operators: tuple[Operator, ...],
    outcomes: list[dict[int, Comparison]],
    unchecked: tuple[str, ...],
) -> Certificate:
    every = [each for outcome in outcomes for each in outcome.values()]
    errors, doubts = {}, {}
    for item in operators:
        of_it = [outcome[item.order] for outcome in outcomes if item.order in outcome]
        errors[item.name] = max((each.error for each in of_it), default=0.0)
        largest = max((each.largest for each in of_it), default=TINY)
        doubts[item.name] = max((each.doubt for each in of_it), default=0.0) / largest
    return Certificate(
        route=differences.route.name,
        mode=differences.mode,
        points_checked=len(outcomes),
        widths_checked=(1,),
        reference=REFERENCE,
        reference_error=errors,
        rounding_error=None,
        symmetry_residual=None,
        forward_reverse_residual=None,
        finite_difference_residual=max((each.error for each in every), default=None),
        finite_difference_checks=len(every),
        unchecked=unchecked,
        estimated_error=doubts,
    )
