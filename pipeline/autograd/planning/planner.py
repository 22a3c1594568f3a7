"""Chooses route, mode, chunk and batch on points of the job's own grid, and proves the choice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.autograd.checks.certificate import Certificate
from pipeline.autograd.checks.effort import affordable
from pipeline.autograd.checks.independent import Checks, check_reference
from pipeline.autograd.checks.kinks import kink_finder
from pipeline.autograd.checks.lost_gradient import lost_gradients
from pipeline.autograd.checks.oracle import Oracle, build_oracle
from pipeline.autograd.checks.rounding import worst_loss
from pipeline.autograd.evaluation_plan import Plan
from pipeline.autograd.evaluator import Calls, Evaluator
from pipeline.autograd.functions.following import TEXT, reads
from pipeline.autograd.functions.probe import probe
from pipeline.autograd.methods.reverse import plain
from pipeline.autograd.operators import Operator
from pipeline.autograd.planning.asked import Asked, resolve
from pipeline.autograd.planning.by_differences import prepare_differences
from pipeline.autograd.planning.choice import Choice, Study, Trial, choose
from pipeline.autograd.planning.formats import DENSE, confirm_pattern
from pipeline.autograd.planning.option_faults import check_options
from pipeline.autograd.precision import as_calculated, full_precision
from pipeline.autograd.request import Request
from pipeline.autograd.routes import FiniteDifferenceRoute
from pipeline.errors import ConfigurationError, DisagreementError, FunctionError
from pipeline.job import Options

log = logging.getLogger(__name__)
NO_DIGIT = 0.1  # relative error
FEW_DIGITS = 1e-6  # relative error in float64, of which half of the digits are left


@full_precision()
def prepare(
    asked: Asked,
    points: Tensor,
    options: Options,
    count: int | None = None,
    rows: int | None = None,
) -> Evaluator:
    """Choose how to evaluate operators of a function, and check it against independent oracles.

    Args:
        asked: What is to be differentiated.
        points: (P, n) points of the job's own grid, of the job's dtype and device.
        options: How to evaluate.
        count: Number of points that will be evaluated; None if not known.
        rows: Most points that will be evaluated in one call; None if there is no such limit.

    Returns:
        The evaluator.

    Raises:
        ConfigurationError: The options do not fit the operators.
        DisagreementError: No route agrees with the oracles.
        FunctionError: The function cannot be evaluated, or torch cannot differentiate it.
    """
    seen = probe(asked.f, points, asked.output_shape, asked.name)
    request, operators = resolve(_dense(asked, options), seen.points[0], seen.output_shape)
    faults = check_options(options, request.order)
    if faults:
        raise ConfigurationError(faults)
    request = _as_calculated(_with_text(request), asked.name)
    study = Study(request, seen.points, options, count, rows)
    if options.route == FiniteDifferenceRoute.name:
        return prepare_differences(study, operators)
    try:
        return _prepare(asked, study, operators)
    except (FunctionError, DisagreementError) as error:
        if not (options.finite_differences and request.order and options.route == "auto"):
            raise
        reason = " ".join(line.strip(" -") for line in str(error).splitlines()[:2])
        log.warning("automatic differentiation is not used: %s", reason)
        bare, operators = resolve(replace(asked, form=DENSE), seen.points[0], seen.output_shape)
        return prepare_differences(replace(study, request=bare), operators, reason)


def _with_text(request: Request) -> Request:
    """Say by which call the function makes text of values, where it does."""
    name = reads(request.f, request.example.clone())
    return replace(request, text=name) if name in TEXT else request


def _as_calculated(request: Request, name: str) -> Request:
    """Expect no more of a function than the precision in which it calculates, and say so."""
    found = as_calculated(request, request.example)
    if found is not request:
        log.warning(
            "function %r calculates in %s somewhere: its derivatives are no better",
            name, found.precision.name,
        )  # fmt: skip
    return found


def _dense(asked: Asked, options: Options) -> Asked:
    """Finite differences look for no pattern."""
    if options.route != FiniteDifferenceRoute.name:
        return asked
    if asked.form.format == "sparse":
        raise ConfigurationError(
            [f"route {options.route} keeps results dense, got format=sparse; use another route"]
        )
    return replace(asked, form=DENSE)


def _prepare(asked: Asked, study: Study, operators: tuple[Operator, ...]) -> Evaluator:
    request, options = study.request, study.options
    points = affordable(request, study.points)
    kinks = kink_finder(request, points) if request.order else None
    checked, oracle = _build_oracle(request, points, kinks)
    request = replace(request, example=checked[0])
    lost = _lost_digits(asked.name, oracle, checked, kinks)
    choice = choose(replace(study, request=request, points=checked), oracle)
    checks = check_reference(request, checked, oracle, choice.trial.draft.seconds)
    pattern, unfit = confirm_pattern(request)
    disagreements = (*unfit, *checks.disagreements, *choice.disagreements)
    if disagreements and options.on_disagreement == "error":
        raise DisagreementError(
            f"the derivatives of function {asked.name!r} cannot be trusted:\n"
            + "\n".join(f"  - {reason}" for reason in disagreements)
            + f"\n{_look_for(request, points[0])}; on_disagreement=warn goes on all the same, "
            "finite_differences=true takes differences of its values"
        )
    for reason in disagreements:
        log.warning("disagreement let pass: %s", reason)
    if request.order and not checks.is_confirmed:
        log.warning(
            "nothing independent confirms the derivatives of function %r: %s",
            asked.name, "; ".join(checks.unchecked[:2]),
        )  # fmt: skip
    certificate = _certify(choice.trial, oracle, checks, operators, disagreements)
    if lost:
        known = certificate.rounding_error or 0.0
        certificate = replace(certificate, rounding_error=max(known, lost))
    if pattern is not None:
        notes = [f"pattern: {note}" for note in pattern.notes]
        certificate = replace(certificate, unchecked=(*certificate.unchecked, *notes))
    trial, plan = choice.trial, _plan(choice, points)
    most = None if trial.draft.route.streams else plan.batch
    calls = Calls(trial.evaluate, most, kinks)
    return Evaluator(calls, request, operators, plan, certificate)


def _build_oracle(
    request: Request, points: Tensor, kinks: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Oracle]:
    """The reference and its points; without those on a kink, where it is not symmetric there."""
    points, oracle = _where_differentiable(request, points)
    if oracle.noise:
        log.warning(
            "the values of the function carry noise of %.0e relative: it computes in a lower precision "
            "than its inputs somewhere, or its terms cancel, and its derivatives are no better",
            oracle.noise,
        )
    if (oracle.rounding or 0.0) > NO_DIGIT:
        log.warning(
            "in %s no digit is left of some derivatives at the points tried: they are off by %.0e relative; "
            "use a wider dtype=",
            request.precision.name,
            oracle.rounding,
        )
    if not oracle.asymmetry() or kinks is None:
        return points, oracle
    smooth = points[~kinks(points)]
    return (smooth, build_oracle(request, smooth)) if len(smooth) else (points, oracle)


def _lost_digits(
    name: str, oracle: Oracle, points: Tensor, kinks: Callable[[Tensor], Tensor] | None
) -> float:
    """Relative error that rounding leaves in float64, where that is much; and say so."""
    if oracle.roundings is not None or not oracle.view.request.order:
        return 0.0
    is_smooth = torch.ones(len(points), dtype=torch.bool) if kinks is None else ~kinks(points).cpu()
    loss = worst_loss(oracle, is_smooth)
    if loss is None or loss.error <= FEW_DIGITS:
        return 0.0
    log.warning(
        "rounding leaves few digits of the derivatives of function %r: order %d is off by about %.0e "
        "relative at x = %s, as terms cancel within it; write it in another form there, with expm1, "
        "log1p, sinc, atan2 or a series",
        name, loss.order, min(loss.error, 1.0), loss.point[:4].tolist(),
    )  # fmt: skip
    return min(loss.error, 1.0)


def _where_differentiable(request: Request, points: Tensor) -> tuple[Tensor, Oracle]:
    """Leave out points at which only the derivatives raise: such a point fails alone."""
    try:
        return points, build_oracle(request, points)
    except FunctionError:
        good = [point for point in points if _can_differentiate(request, point)]
        if not good:
            raise
    points = torch.stack(good)
    return points, build_oracle(request, points)


def _can_differentiate(request: Request, point: Tensor) -> bool:
    try:
        plain(request, point)
    except Exception:  # torch has no derivative there, by any kind of error
        return False
    return True


def _look_for(request: Request, point: Tensor) -> str:
    lost = lost_gradients(request, point)
    if not lost:
        return "Look for a wrong custom backward, a hook, numpy, or what depends on the precision"
    return f"Gradients are lost at {', '.join(lost[:5])}: write these in operations that torch differentiates"


def _certify(
    trial: Trial,
    oracle: Oracle,
    checks: Checks,
    operators: tuple[Operator, ...],
    disagreements: tuple[str, ...],
) -> Certificate:
    return Certificate(
        route=trial.draft.route.name,
        mode=trial.draft.mode,
        points_checked=trial.points,
        widths_checked=trial.widths,
        reference=oracle.reference,
        reference_error={item.name: trial.deviations[item.key].error for item in operators},
        rounding_error=max(oracle.rounding or 0.0, oracle.noise) or oracle.rounding,
        symmetry_residual=trial.symmetry,
        forward_reverse_residual=checks.forward.residual,
        finite_difference_residual=checks.differences.residual,
        finite_difference_checks=checks.differences.checks,
        unchecked=checks.unchecked,
        disagreements=disagreements,
    )


def _plan(choice: Choice, points: Tensor) -> Plan:
    draft = choice.trial.draft
    return Plan(
        route=draft.route.name,
        mode=draft.mode,
        batch=draft.batch,
        dtype=points.dtype,
        device=points.device,
        cost=draft.cost,
        considered=choice.considered,
    )
