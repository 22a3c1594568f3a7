"""Chooses route, mode, chunk and batch on points of the job's own grid, and proves the choice."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.certificate import (
    Certificate,
    FiniteDifferences,
    Oracle,
    build_oracle,
    compare_with_finite_differences,
    symmetry_residual,
)
from pipeline.autograd.evaluator import Evaluator, Plan
from pipeline.autograd.function_probe import probe
from pipeline.autograd.memory import (
    WORKING_SET,
    OverBudgetError,
    available_bytes,
    peak_bytes,
    power_of_two,
)
from pipeline.autograd.operators import Operator
from pipeline.autograd.routes import ROUTES, Evaluate, Request, Route
from pipeline.autograd.routes.base import parse_mode
from pipeline.errors import ConfigurationError, DisagreementError, MemoryBudgetError, nearest
from pipeline.job import Options

log = logging.getLogger(__name__)
WIDEST_CHECK = 4096


class RefusedError(Exception):
    """Why a route and mode is not used."""


@dataclass(frozen=True)
class Trial:
    """A candidate that passed."""

    evaluate: Evaluate
    route: str
    mode: str
    chunk: int
    batch: int
    point_bytes: int
    fixed_bytes: int
    errors: dict[int, float]
    symmetry: float | None
    widths: tuple[int, ...]


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


def prepare(
    f: Callable[[Tensor], Tensor],
    points: Tensor,
    operators: Callable[[tuple[int, ...]], tuple[Operator, ...]],
    options: Options,
    *,
    declared: tuple[int, ...] | None = None,
    count: int | None = None,
) -> Evaluator:
    """Choose how to evaluate operators of a function, and check it against independent oracles.

    Args:
        f: Maps one point (n,) to () or (m,).
        points: (P, n) points of the job's own grid, of the job's dtype and device.
        operators: Gives the operators for an output shape.
        options: How to evaluate.
        declared: Output shape that f has to have; None if any will do.
        count: Number of points that will be evaluated; None if not known.

    Returns:
        The evaluator.

    Raises:
        ConfigurationError: The options do not fit the operators.
        DisagreementError: No route agrees with the oracles.
    """
    name = getattr(f, "__name__", type(f).__name__)
    seen = probe(f, points, declared, name)
    chosen = operators(seen.output_shape)
    orders = tuple(sorted({operator.order for operator in chosen}))
    request = Request(f, points.shape[1], seen.output_shape, orders)
    faults = check_options(options, request.order)
    if faults:
        raise ConfigurationError(faults)
    oracle = build_oracle(request, seen.points)
    differences = _finite_differences(request, seen.points, oracle)
    trial, refused, disagreements = _choose(request, seen.points, oracle, options, count)
    disagreements = [*differences.disagreements, *disagreements]
    if disagreements and options.on_disagreement == "error":
        raise DisagreementError(
            f"the derivatives of function {name!r} cannot be trusted:\n"
            + "\n".join(f"  - {reason}" for reason in disagreements)
            + "\nLook for detach(), no_grad(), .item(), a wrong custom backward or randomness in the function; "
            "on_disagreement=warn goes on all the same"
        )
    for reason in disagreements:
        log.warning("disagreement let pass: %s", reason)
    certificate = _certify(trial, oracle, differences, len(seen.points), disagreements)
    plan = Plan(
        trial.route, trial.mode, trial.batch, trial.chunk, points.dtype, points.device,
        trial.point_bytes, trial.fixed_bytes, refused,
    )  # fmt: skip
    return Evaluator(trial.evaluate, request, chosen, plan, certificate)


def _finite_differences(request: Request, points: Tensor, oracle: Oracle) -> FiniteDifferences:
    if "float64" not in oracle.reference:
        reason = "no finite differences: the function cannot be evaluated in float64"
        return FiniteDifferences(None, 0, (reason,), ())
    return compare_with_finite_differences(request, points.to(torch.float64))


def _certify(
    trial: Trial,
    oracle: Oracle,
    differences: FiniteDifferences,
    points: int,
    disagreements: Sequence[str],
) -> Certificate:
    return Certificate(
        route=trial.route,
        mode=trial.mode,
        points_checked=points,
        widths_checked=trial.widths,
        reference=oracle.reference,
        reference_error=trial.errors,
        rounding_error=oracle.rounding,
        symmetry_residual=trial.symmetry,
        finite_difference_residual=differences.residual,
        finite_difference_checks=differences.checks,
        unchecked=differences.unchecked,
        disagreements=tuple(disagreements),
    )


def _candidates(request: Request, options: Options) -> list[tuple[Route, str]]:
    routes = ROUTES.values() if options.route == "auto" else [ROUTES[options.route]]
    if options.mode == "auto":
        return [(route, mode) for route in routes for mode in route.modes(request)]
    fitting = [
        route for route in routes if route.name != "loop" or options.mode in route.modes(request)
    ]
    if not fitting:
        raise ConfigurationError(
            [
                f"route 'loop' has only the mode {ROUTES['loop'].modes(request)[0]!r}, got mode={options.mode!r}; use mode=auto"
            ]
        )
    return [(route, options.mode) for route in fitting]


def _choose(
    request: Request, points: Tensor, oracle: Oracle, options: Options, count: int | None
) -> tuple[Trial, dict[str, str], list[str]]:
    refused: dict[str, str] = {}
    last: Trial | None = None
    for route, mode in _candidates(request, options):
        try:
            trial = _try(route, mode, request, points, oracle, options, count)
        except RefusedError as reason:
            refused[f"{route.name} {mode}"] = str(reason)
            log.info("route %s %s is not used: %s", route.name, mode, reason)
            continue
        wrong = _disagreement(trial, oracle)
        if wrong is None:
            return trial, refused, []
        refused[f"{route.name} {mode}"], last = wrong, trial
        log.info("route %s %s is not used: %s", route.name, mode, wrong)
    reasons = [f"{candidate}: {reason}" for candidate, reason in refused.items()]
    if last is None or options.on_disagreement == "error":
        raise DisagreementError(
            "no route can be used:\n" + "\n".join(f"  - {reason}" for reason in reasons)
        )
    return last, refused, reasons


def _disagreement(trial: Trial, oracle: Oracle) -> str | None:
    order, error = max(trial.errors.items(), key=lambda item: item[1])
    if error <= oracle.tolerance:
        return None
    return f"order {order} differs from the reference ({oracle.reference}) by {error:.1e}, allowed {oracle.tolerance:.1e}"


def _try(
    route: Route,
    mode: str,
    request: Request,
    points: Tensor,
    oracle: Oracle,
    options: Options,
    count: int | None,
) -> Trial:  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on speed; agreement is checked below
        try:
            chunk, single, double = _fit_chunk(route, mode, request, points, options)
            evaluate = route.prepare(request, mode, chunk)
            batch = _fit_batch(route, single, double, options, points.device, count)
            width = min(batch, WIDEST_CHECK, count or len(points))
            return _compare(
                evaluate,
                route,
                mode,
                chunk,
                batch,
                (single, double),
                request,
                points,
                oracle,
                width,
            )
        except MemoryBudgetError:
            raise
        except Exception as error:  # torch refuses functions with many kinds of errors
            raise RefusedError(
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error


def _compare(evaluate, route, mode, chunk, batch, sizes, request, points, oracle, width):  # noqa
    widths = sorted({1, len(points), width})
    errors = dict.fromkeys(request.orders, 0.0)
    together = evaluate(points)
    for size in widths:
        for order, error in oracle.errors(_at_width(evaluate, points, size)).items():
            errors[order] = max(errors[order], error)
    single, double = sizes
    symmetry = symmetry_residual(together[-1], request.order)
    return Trial(
        evaluate, route.name, mode, chunk, batch, max(double - single, 1), max(2 * single - double, 0),
        errors, symmetry, tuple(widths),
    )  # fmt: skip


def _at_width(evaluate: Evaluate, points: Tensor, width: int) -> tuple[Tensor, ...]:
    """All points, evaluated in batches of exactly this width: a narrow one each, a wide one by repetition."""
    if width == 1:
        rows = [evaluate(point[None]) for point in points]
        return tuple(torch.cat(level) for level in zip(*rows, strict=True))
    repeats = -(-width // len(points))
    return evaluate(points.repeat(repeats, 1)[: max(width, 1)])


def _budget(options: Options, device: torch.device) -> int:
    return options.memory or available_bytes(device) // 2


def _fit_chunk(
    route: Route, mode: str, request: Request, points: Tensor, options: Options
) -> tuple[int, int, int]:
    """Largest chunk at which one point fits, with the bytes that one and two points hold."""
    budget = _budget(options, points.device)
    chunk = options.chunk or request.directions
    while True:
        evaluate = route.prepare(request, mode, chunk)
        try:
            single = peak_bytes(lambda: evaluate(points[:1]), limit=budget)
            return chunk, single, peak_bytes(lambda: evaluate(points[:1].repeat(2, 1)))
        except OverBudgetError:
            if options.chunk is not None or chunk == 1:
                raise MemoryBudgetError(
                    f"one point with chunk={chunk} needs more than the memory budget of {budget / 2**20:.0f} MiB; "
                    "set memory= higher or ask for less per point"
                ) from None
            chunk = -(-chunk // 2)


def _fit_batch(
    route: Route,
    single: int,
    double: int,
    options: Options,
    device: torch.device,
    count: int | None,
) -> int:
    if options.batch is not None:
        return options.batch
    per_point, fixed = max(double - single, 1), max(2 * single - double, 0)
    room = min(_budget(options, device) - fixed, WORKING_SET[device.type])
    return min(
        power_of_two(max(room // per_point, 1)),
        route.widest,
        power_of_two(max(count or 1 << 62, 1)),
    )
