"""Chooses route, mode, chunk and batch on points of the job's own grid, and proves the choice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from pipeline.autograd.border import callable_of
from pipeline.autograd.by_differences import prepare_differences
from pipeline.autograd.certificate import Certificate
from pipeline.autograd.checks import Checks, check_reference
from pipeline.autograd.choice import Choice, Study, Trial, choose
from pipeline.autograd.contractions import Direction
from pipeline.autograd.effort import affordable
from pipeline.autograd.evaluation_plan import Plan
from pipeline.autograd.evaluator import Calls, Evaluator
from pipeline.autograd.formats import DENSE, Form, choose_pattern, confirm_pattern, mark_sparse
from pipeline.autograd.function_probe import probe
from pipeline.autograd.kinks import kink_finder
from pipeline.autograd.lost import lost_gradients
from pipeline.autograd.narrow import FLOAT64, Precision
from pipeline.autograd.operators import Operator, asking, contract, resolve_operators
from pipeline.autograd.option_faults import check_options
from pipeline.autograd.oracle import Oracle, build_oracle
from pipeline.autograd.precision import full_precision, half_inside
from pipeline.autograd.request import Request
from pipeline.autograd.routes import FiniteDifferenceRoute
from pipeline.autograd.sparsity.pattern import Pattern
from pipeline.autograd.variable import WHOLE, Beside, Variable, Wrt, resolve_variable
from pipeline.errors import ConfigurationError, DisagreementError, FunctionError
from pipeline.function import BoundFunction
from pipeline.job import Options
from pipeline.structure import Structure

log = logging.getLogger(__name__)
NO_DIGIT = 0.1  # relative error


@dataclass(frozen=True)
class Asked:
    """What is to be differentiated, as the user asked for it.

    Attributes:
        f: Maps one point (d,) to () or (m,).
        name: Its name, for messages.
        operators: Names of operators.
        order: Order of the operator `derivative`.
        output_shape: Output shape that f has to have; None if any will do.
        variable: What f is differentiated with respect to.
        symmetric: full, or packed: only the distinct entries of symmetric results are kept.
        form: Whether only the entries of a pattern are kept.
        direction: What jvp, vjp and hvp are taken along.
        structures: input, output or variable -> the tensors along it, where these are not flat.
        masses: What weights the Hessian of eigenvalues.
        precision: In which f is evaluated, which takes and returns what is kept.
    """

    f: Callable[[Tensor], Tensor]
    name: str
    operators: tuple[str, ...]
    order: int | None = None
    output_shape: tuple[int, ...] | None = None
    variable: Variable = WHOLE
    symmetric: str = "full"
    form: Form = DENSE
    direction: Direction | None = None
    structures: Mapping[str, Structure] = field(default_factory=dict)
    masses: tuple[float, ...] = ()
    precision: Precision | None = None


@dataclass(frozen=True)
class Wanted:
    """What a user wants of a function.

    Attributes:
        operators: Names of operators.
        order: Order of the operator `derivative`.
        wrt: With respect to what: see `resolve_variable`.
        symmetric: full, or packed: only the distinct entries of symmetric results are kept.
        form: dense, sparse or auto: see `pipeline.autograd.formats.Form`.
        direction: What jvp, vjp and hvp are taken along; where every point has its own, it stands
            behind the point in the rows that are evaluated.
        masses: What weights the Hessian of eigenvalues.
        pattern: Entries that can be other than zero, where the user gives them.
        precision: In which the function is evaluated.
    """

    operators: tuple[str, ...]
    order: int | None = None
    wrt: Wrt | None = None
    symmetric: str = "full"
    form: str = "dense"
    direction: Direction | None = None
    masses: tuple[float, ...] = ()
    pattern: Pattern | None = None
    precision: Precision = FLOAT64


def ask(function: BoundFunction, wanted: Wanted) -> Asked:
    """Say what is to be differentiated.

    Args:
        function: The function; where it is a module, a copy of it is what is evaluated.
        wanted: What is wanted of it.

    Returns:
        What `prepare` takes.
    """
    f, record, d = callable_of(function), function.function, function.n
    variable = resolve_variable(wanted.wrt, f, d, function.input_names)
    known, precision = structures(function, variable), wanted.precision
    f, variable = precision.function(f), precision.variable(variable)
    own = record.sparsity if function.chosen is None else {}  # a pattern is that of all outputs
    given = {name: partial(make, **function.parameters) for name, make in own.items()}
    if wanted.direction is not None and wanted.direction.vector is None:
        f, variable = partial(without_direction, f, d), Beside(variable, d)
    return Asked(
        f,
        record.name,
        wanted.operators,
        wanted.order,
        function.output_shape,
        variable,
        wanted.symmetric,
        Form(wanted.form, given, user=wanted.pattern),
        wanted.direction,
        known,
        wanted.masses,
        precision,
    )


def without_direction(f: Callable[[Tensor], Tensor], columns: int, row: Tensor) -> Tensor:
    """Evaluate at the point alone that a row (d + size,) begins with."""
    return f(row[:columns])


def resolve(
    asked: Asked, example: Tensor, output_shape: tuple[int, ...]
) -> tuple[Request, tuple[Operator, ...]]:
    """Say what is evaluated, and of which operators only the entries of a pattern are kept.

    Args:
        asked: What is to be differentiated.
        example: One point, (d,), of the job's dtype and device.
        output_shape: () or (m,).

    Returns:
        The request and the operators.
    """
    packed = asked.symmetric == "packed"
    named = resolve_operators(asked.operators, asked.order, output_shape, asked.symmetric)
    request = Request(asked.f, example, output_shape, (), asked.variable, packed)
    request = replace(request, evaluated_in=asked.precision)
    operators = contract(named, asked.direction, request.n, output_shape, asked.masses)
    request = asking(request, operators)
    if request.orders:  # the value says where the function has none, whatever its derivative is
        request = replace(request, orders=tuple(sorted({0, *request.orders})))
    pattern = choose_pattern(asked.form, request, operators)
    return replace(request, pattern=pattern), mark_sparse(operators, pattern)


def structures(function: BoundFunction, variable: Variable) -> dict[str, Structure]:
    """Say which dimensions of the results hold tensors that are not flat.

    Args:
        function: The function.
        variable: What it is differentiated with respect to.

    Returns:
        input, output or variable -> the tensors whose entries lie along it.
    """
    found = {
        "input": function.inputs,
        "output": function.outputs,
        "variable": variable.structure(function.inputs),
    }
    return {name: structure for name, structure in found.items() if structure is not None}


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
    request = _as_calculated(request, asked.name)
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


def _as_calculated(request: Request, name: str) -> Request:
    """Expect no more of a function than the precision in which it calculates."""
    half = half_inside(request, request.example)
    if half is None or half.epsilon <= request.precision.epsilon:
        return request
    log.warning(
        "function %r calculates in %s somewhere: its derivatives are no better", name, half.name
    )
    return replace(request, evaluated_in=half)


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
    choice = choose(replace(study, points=checked), oracle)
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
    oracle = build_oracle(request, points)
    if oracle.noise:
        log.warning(
            "the values of the function carry noise of %.0e relative: it computes in a lower precision "
            "than its inputs somewhere, and its derivatives are no better",
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
