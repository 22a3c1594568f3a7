"""Chooses route, mode, chunk and batch on points of the job's own grid, and proves the choice."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.certificate import Certificate, symmetry_residual
from pipeline.autograd.evaluator import Evaluator, Plan
from pipeline.autograd.finite_difference import (
    FiniteDifferences,
    compare_with_finite_differences,
)
from pipeline.autograd.function_probe import probe
from pipeline.autograd.memory import (
    WORKING_SET,
    OverBudgetError,
    available_bytes,
    peak_bytes,
    power_of_two,
)
from pipeline.autograd.operators import resolve_operators
from pipeline.autograd.oracle import AGREEMENT, Deviation, Oracle, build_oracle
from pipeline.autograd.routes import ROUTES, Evaluate, Request, Route
from pipeline.autograd.routes.base import parse_mode
from pipeline.errors import ConfigurationError, DisagreementError, MemoryBudgetError, nearest
from pipeline.job import Options

log = logging.getLogger(__name__)
WIDEST_CHECK = 4096


class RefusedError(Exception):
    """Why a route and mode is not used; with the trial, where it could be evaluated."""

    def __init__(self, reason: str, trial: Trial | None = None) -> None:
        super().__init__(reason)
        self.trial = trial


@dataclass(frozen=True)
class Asked:
    """What is to be differentiated, as the user asked for it.

    Attributes:
        f: Maps one point (n,) to () or (m,).
        name: Its name, for messages.
        operators: Names of operators.
        order: Order of the operator `derivative`.
        output_shape: Output shape that f has to have; None if any will do.
    """

    f: Callable[[Tensor], Tensor]
    name: str
    operators: tuple[str, ...]
    order: int | None = None
    output_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Study:
    """What every candidate is tried on.

    Attributes:
        request: What is evaluated.
        points: Points of the grid where the function can be evaluated, (P, n).
        oracle: The reference at these points.
        options: How to evaluate.
        count: Number of points that will be evaluated; None if not known.
    """

    request: Request
    points: Tensor
    oracle: Oracle
    options: Options
    count: int | None

    @property
    def budget(self) -> int:
        """Bytes that an evaluation may hold."""
        return self.options.memory or available_bytes(self.points.device) // 2


@dataclass(frozen=True)
class Trial:
    """A candidate that could be evaluated, and how it did."""

    evaluate: Evaluate
    route: str
    mode: str
    chunk: int
    batch: int
    point_bytes: int
    fixed_bytes: int
    deviations: dict[int, Deviation]
    symmetry: float | None
    widths: tuple[int, ...]
    point_seconds: float


def probe_indices(count: int) -> list[int]:
    """Indices of the points of a grid that candidates are compared on.

    Args:
        count: N >= 1.

    Returns:
        Up to five indices: the ends, the middle, and two at no round fraction.

    Example:
        >>> probe_indices(1000)
        [0, 381, 500, 723, 999]
    """
    return sorted({0, count - 1, count // 2, int(0.3819 * count), int(0.7236 * count)})


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
    if options.on_disagreement not in ("error", "warn"):
        faults.append(f"on_disagreement: expected error or warn, got {options.on_disagreement!r}")
    for name in ("batch", "chunk", "memory"):
        value = getattr(options, name)
        if value is not None and value < 1:
            faults.append(f"{name}: expected a positive number or null, got {value}")
    if options.mode != "auto" and order is not None:
        try:
            parse_mode(options.mode, order)
        except ConfigurationError as error:
            faults += error.faults
    return faults


def prepare(asked: Asked, points: Tensor, options: Options, count: int | None = None) -> Evaluator:
    """Choose how to evaluate operators of a function, and check it against independent oracles.

    Args:
        asked: What is to be differentiated.
        points: (P, n) points of the job's own grid, of the job's dtype and device.
        options: How to evaluate.
        count: Number of points that will be evaluated; None if not known.

    Returns:
        The evaluator.

    Raises:
        ConfigurationError: The options do not fit the operators.
        DisagreementError: No route agrees with the oracles.
    """
    seen = probe(asked.f, points, asked.output_shape, asked.name)
    operators = resolve_operators(asked.operators, asked.order, seen.output_shape)
    orders = tuple(sorted({operator.order for operator in operators}))
    request = Request(asked.f, points.shape[1], seen.output_shape, orders)
    faults = check_options(options, request.order)
    if faults:
        raise ConfigurationError(faults)
    oracle = build_oracle(request, seen.points)
    differences = _finite_differences(request, seen.points, oracle)
    trial, refused, disagreements = _choose(Study(request, seen.points, oracle, options, count))
    disagreements = [*differences.disagreements, *disagreements]
    if disagreements and options.on_disagreement == "error":
        raise DisagreementError(
            f"the derivatives of function {asked.name!r} cannot be trusted:\n"
            + "\n".join(f"  - {reason}" for reason in disagreements)
            + "\nLook for detach(), no_grad(), .item(), a wrong custom backward or randomness in the function; "
            "on_disagreement=warn goes on all the same"
        )
    for reason in disagreements:
        log.warning("disagreement let pass: %s", reason)
    errors = {item.name: trial.deviations[item.order].error for item in operators}
    certificate = Certificate(
        route=trial.route,
        mode=trial.mode,
        points_checked=len(seen.points),
        widths_checked=trial.widths,
        reference=oracle.reference,
        reference_error=errors,
        rounding_error=oracle.rounding,
        symmetry_residual=trial.symmetry,
        finite_difference_residual=differences.residual,
        finite_difference_checks=differences.checks,
        unchecked=differences.unchecked,
        disagreements=tuple(disagreements),
    )
    plan = Plan(
        route=trial.route,
        mode=trial.mode,
        batch=trial.batch,
        chunk=trial.chunk,
        dtype=points.dtype,
        device=points.device,
        point_bytes=trial.point_bytes,
        fixed_bytes=trial.fixed_bytes,
        point_seconds=trial.point_seconds,
        refused=refused,
    )
    return Evaluator(trial.evaluate, request, operators, plan, certificate)


def _finite_differences(request: Request, points: Tensor, oracle: Oracle) -> FiniteDifferences:
    if "float64" not in oracle.reference:
        reason = "no finite differences: the function cannot be evaluated in float64"
        return FiniteDifferences(None, 0, (reason,), ())
    return compare_with_finite_differences(request, points.to(torch.float64))


def _candidates(study: Study) -> list[tuple[Route, str]]:
    request, options = study.request, study.options
    routes = ROUTES.values() if options.route == "auto" else [ROUTES[options.route]]
    if options.mode == "auto":
        return [(route, mode) for route in routes for mode in route.modes(request)]
    fitting = [route for route in routes if route.takes(options.mode, request)]
    if not fitting:
        raise ConfigurationError(
            [
                f"route {options.route!r} has no mode {options.mode!r}: expected one of "
                f"{', '.join(ROUTES[options.route].modes(request))}, or auto"
            ]
        )
    return [(route, options.mode) for route in fitting]


def _choose(study: Study) -> tuple[Trial, dict[str, str], list[str]]:
    """Take the first candidate that agrees; the last one that can be evaluated if none does."""
    refused: dict[str, str] = {}
    last: Trial | None = None
    for route, mode in _candidates(study):
        try:
            trial = _try(study, route, mode)
            _require_agreement(trial, study.oracle)
        except RefusedError as reason:
            refused[f"{route.name} {mode}"] = str(reason)
            last = reason.trial or last
            log.info("route %s %s is not used: %s", route.name, mode, reason)
        else:
            return trial, refused, []
    reasons = [f"{candidate}: {reason}" for candidate, reason in refused.items()]
    if last is None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        raise DisagreementError(f"no route can differentiate this function:\n{listed}")
    return last, refused, reasons


def _require_agreement(trial: Trial, oracle: Oracle) -> None:
    for order, deviation in trial.deviations.items():
        if not deviation.excess <= 1:
            raise RefusedError(
                f"order {order} differs from the reference ({oracle.reference}) by "
                f"{deviation.error:.1e} relative, allowed {oracle.tolerance:.1e}",
                trial,
            )


def _try(study: Study, route: Route, mode: str) -> Trial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on speed; agreement is what is checked
        try:
            chunk, single, double = _fit_chunk(study, route, mode)
            per_point, fixed = max(double - single, 1), max(2 * single - double, 0)
            batch = _fit_batch(study, route, per_point, fixed)
            evaluate = route.prepare(study.request, mode, chunk)
            widths = _widths(study, route, batch)
            compared = _compare(study, evaluate, widths)
        except MemoryBudgetError:
            raise
        except Exception as error:  # torch refuses a function by any kind of error
            reason = f"{type(error).__name__}: {error}"
            raise RefusedError(reason if len(reason) < 200 else reason[:200] + " …") from error
    return Trial(evaluate, route.name, mode, chunk, batch, per_point, fixed, *compared)


def _compare(
    study: Study, evaluate: Evaluate, widths: Sequence[int]
) -> tuple[dict[int, Deviation], float | None, tuple[int, ...], float]:
    worst = dict.fromkeys(study.request.orders, AGREEMENT)
    for width in widths:
        began = time.perf_counter()
        levels = _at_width(evaluate, study.points, width)
        seconds = (time.perf_counter() - began) / len(levels[0])
        for order, deviation in study.oracle.compare(levels).items():
            worst[order] = worst[order].worse(deviation)
    symmetry = symmetry_residual(levels[-1], study.request.order)
    return worst, symmetry, tuple(widths), seconds


def _widths(study: Study, route: Route, batch: int) -> list[int]:
    """Batch sizes at which a route is compared: they have changed answers in torch."""
    probes = len(study.points)
    if route.pointwise:
        return [probes]
    return sorted({1, probes, min(batch, WIDEST_CHECK, study.count or probes)})


def _at_width(evaluate: Evaluate, points: Tensor, width: int) -> tuple[Tensor, ...]:
    """Evaluate the points in a batch of this width, by repetition; one by one at width 1."""
    if width == 1:
        rows = [evaluate(point[None]) for point in points]
        return tuple(torch.cat(level) for level in zip(*rows, strict=True))
    return evaluate(points.repeat(-(-width // len(points)), 1)[:width])


def _fit_chunk(study: Study, route: Route, mode: str) -> tuple[int, int, int]:
    """Largest chunk at which one point fits, with the bytes that one and two points hold."""
    chunk = study.options.chunk or study.request.directions
    point, pair = study.points[:1], study.points[:1].repeat(2, 1)
    while True:
        evaluate = route.prepare(study.request, mode, chunk)
        try:
            single = peak_bytes(evaluate, point, limit=study.budget)
            return chunk, single, single if route.pointwise else peak_bytes(evaluate, pair)
        except OverBudgetError:
            if study.options.chunk is not None or chunk == 1:
                raise MemoryBudgetError(
                    f"one point with chunk={chunk} needs more than the memory budget of "
                    f"{study.budget / 2**20:.0f} MiB; set memory= higher or ask for less per point"
                ) from None
            chunk = -(-chunk // 2)


def _fit_batch(study: Study, route: Route, per_point: int, fixed: int) -> int:
    if study.options.batch is not None:
        return study.options.batch
    room = min(study.budget - fixed, WORKING_SET[study.points.device.type])
    batch = min(power_of_two(max(room // per_point, 1)), route.widest)
    return min(batch, study.count or batch)
