"""Chooses among routes and modes: the cheapest by count that agrees with the reference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.autograd.checks.effort import one_pass
from pipeline.autograd.checks.oracle import Deviation, Oracle
from pipeline.autograd.cost import Cost
from pipeline.autograd.evaluation_plan import Candidate
from pipeline.autograd.memory import WORKING_SET, available_bytes, power_of_two
from pipeline.autograd.packing import symmetry_residual
from pipeline.autograd.request import Evaluate, Key, RefusedError, Request, spell_key
from pipeline.autograd.routes import ROUTES, Route
from pipeline.errors import ConfigurationError, DisagreementError, MemoryBudgetError, told
from pipeline.job import Options

log = logging.getLogger(__name__)
WIDEST_CHECK = 4096
CALL_SECONDS = 3e-4  # of a batch on its way into a file
FEW_PASSES = 1000  # backward passes of a job that is short point by point, if anything is
LONG = 20.0  # seconds of preparing that have to be worth more than what is left beside products
TRIAL_SECONDS = 2.0  # of evaluating points one by one
MOSTLY = 0.5  # part of the time of a job
MANY = 1_000_000  # points that are assumed where their number is not known


@dataclass(frozen=True)
class Study:
    """What every candidate is tried on.

    Attributes:
        request: What is evaluated.
        points: Points of the grid where the function can be evaluated, (P, n).
        options: How to evaluate.
        count: Number of points that will be evaluated; None if not known.
        rows: Most points that will be evaluated in one call; None if there is no such limit.
    """

    request: Request
    points: Tensor
    options: Options
    count: int | None
    rows: int | None

    @property
    def budget(self) -> int:
        """Bytes that an evaluation may hold."""
        return self.options.memory or available_bytes(self.points.device) // 2

    @cached_property
    def point_by_point(self) -> float:
        """Predicted time of a short job by the loop: what is prepared for longer gains nothing."""
        request = self.request
        passes = request.m * request.n ** max(request.order - 1, 0) * (self.count or MANY)
        is_free = (self.options.route, self.options.mode) == ("auto", "auto")
        seconds = one_pass(request).seconds if is_free and passes <= FEW_PASSES else 0.0
        return passes * seconds or float("inf")


@dataclass(frozen=True)
class Draft:
    """A candidate whose cost is known, and that has not been tried."""

    route: Route
    mode: str
    cost: Cost
    batch: int
    seconds: float

    def seen_as(self, verdict: str, error: float | None = None) -> Candidate:
        """The candidate as it is reported."""
        return Candidate(self.route.name, self.mode, verdict, self.cost, self.seconds, error)


@dataclass(frozen=True)
class Trial:
    """A candidate that could be evaluated, and how it did at some points, in batches of some widths."""

    draft: Draft
    evaluate: Evaluate
    deviations: dict[Key, Deviation]
    symmetry: float | None
    widths: tuple[int, ...]
    points: int

    @property
    def error(self) -> float:
        """Worst error against the reference, over all that is asked for."""
        return max(deviation.error for deviation in self.deviations.values())


@dataclass(frozen=True)
class Choice:
    """What is used.

    Attributes:
        trial: The candidate.
        considered: All candidates with a verdict on each, the one that is used last.
        disagreements: Why none can be trusted, where none agrees.
    """

    trial: Trial
    considered: tuple[Candidate, ...]
    disagreements: tuple[str, ...]


def choose(study: Study, oracle: Oracle) -> Choice:
    """Take the cheapest candidate that agrees with the reference.

    Args:
        study: What candidates are tried on.
        oracle: The reference at its points.

    Returns:
        The choice; where no candidate agrees, the last that could be evaluated.

    Raises:
        DisagreementError: No candidate can be evaluated.
        MemoryBudgetError: No candidate fits into memory.
    """
    considered: list[Candidate] = []
    last: Trial | None = None
    for group in _by_rank(study):
        drafts = sorted(_drafts(study, group, considered), key=lambda draft: draft.seconds)
        for position, draft in enumerate(drafts):
            try:
                last = _try(study, draft, oracle)
                _require_agreement(last, oracle)
            except RefusedError as reason:
                error = last.error if last and last.draft is draft else None
                considered.append(draft.seen_as(f"refused: {reason}", error))
                log.debug("route %s %s is not used: %s", draft.route.name, draft.mode, reason)
            else:
                slower = [
                    other.seen_as("predicted to be slower") for other in drafts[position + 1 :]
                ]
                considered += [*slower, draft.seen_as("used", last.error)]
                return Choice(last, tuple(considered), ())
    reasons = [f"{item.route} {item.mode}: {item.verdict}" for item in considered]
    if last is None:
        listed = "\n".join(f"  - {reason}" for reason in reasons)
        if any("memory budget" in reason for reason in reasons):
            raise MemoryBudgetError(f"no route fits into memory:\n{listed}")
        raise DisagreementError(f"no route can differentiate this function:\n{listed}")
    considered.append(last.draft.seen_as("used all the same", last.error))
    return Choice(last, tuple(considered), tuple(reasons))


def _by_rank(study: Study) -> list[list[tuple[Route, str]]]:
    groups: dict[int, list[tuple[Route, str]]] = {}
    for route, mode in _candidates(study):
        groups.setdefault(route.rank(study.request, mode), []).append((route, mode))
    return [groups[rank] for rank in sorted(groups)]


def _candidates(study: Study) -> list[tuple[Route, str]]:
    request, options = study.request, study.options
    exact = [route for route in ROUTES.values() if route.exact]
    routes = exact if options.route == "auto" else [ROUTES[options.route]]
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


def _drafts(
    study: Study, group: Iterable[tuple[Route, str]], considered: list[Candidate]
) -> list[Draft]:
    """Count the cost of every candidate, unless its preparation alone takes longer than another."""
    drafts: list[Draft] = []
    request = study.request
    for route, mode in sorted(group, key=lambda pair: pair[0].least_seconds(request, pair[1])):
        reason = _cannot_pay(study, route, mode, drafts)
        if reason:
            considered.append(Candidate(route.name, mode, f"not tried: {reason}"))
            continue
        try:
            drafts.append(_draft(study, route, mode))
        except RefusedError as reason:
            considered.append(Candidate(route.name, mode, f"refused: {reason}"))
            log.debug("route %s %s is not used: %s", route.name, mode, reason)
    return drafts


def _cannot_pay(study: Study, route: Route, mode: str, drafts: Sequence[Draft]) -> str:
    """Why a candidate cannot be faster than the best of those whose cost is known; else nothing."""
    least = route.least_seconds(study.request, mode)
    soonest = study.point_by_point if not drafts and least > 0 else float("inf")
    if min([soonest, *(draft.seconds for draft in drafts)]) <= least:
        return f"preparing it takes {least:.3g} s, longer than the job"
    if not drafts:
        return ""
    best = min(drafts, key=lambda draft: draft.seconds)
    compiling = least + best.cost.operations * route.operation_seconds
    products = best.cost.product_seconds * (study.count or MANY)
    if compiling > LONG and products > MOSTLY * best.seconds:
        return f"most of the time is that of matrix products, and preparing it takes about {compiling:.0f} s"
    return ""


def _draft(study: Study, route: Route, mode: str) -> Draft:
    text = study.request.text
    if not route.pointwise and text:
        raise RefusedError(f"it makes text of values, which are those of a batch: {text}()")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on speed; agreement is what is checked
        try:
            cost = route.cost(study.request, mode, study.options.chunk, study.budget)
        except Exception as error:
            raise _refusal(error) from error
    if cost.point_bytes > study.budget:
        raise RefusedError(
            f"one point needs {cost.point_bytes} bytes, more than the memory budget of {study.budget}"
        )
    batch = fit_batch(study, route, cost)
    return Draft(route, mode, cost, batch, cost.seconds(study.count or MANY, batch))


def _refusal(error: Exception) -> RefusedError:
    """Torch refuses a function by any kind of error; say which."""
    if isinstance(error, RefusedError | MemoryBudgetError):
        return RefusedError(str(error))
    reason = told(error)
    return RefusedError(reason if len(reason) < 200 else reason[:200] + " …")


def fit_batch(study: Study, route: Route, cost: Cost) -> int:
    """Choose how many points are evaluated in one call.

    Args:
        study: What is evaluated.
        route: How.
        cost: What it takes.

    Returns:
        What the user asked for, or as many as are worth it and fit into memory.
    """
    if study.options.batch is not None:
        return study.options.batch
    room = max((study.budget - cost.fixed_bytes) // cost.point_bytes, 1)
    batch = min(power_of_two(min(room, _worthwhile(study, cost))), route.widest)
    limits = [limit for limit in (study.count, study.rows) if limit is not None]
    return min([batch, *limits])


def _worthwhile(study: Study, cost: Cost) -> int:
    """Points per call after which more of them only leave the caches (docs/performance.md)."""
    device = study.points.device.type
    least, most = (size // cost.point_bytes for size in WORKING_SET[device])
    overhead = CALL_SECONDS + cost.batch_seconds
    enough = int(4 * overhead / max(cost.point_seconds, 1e-12))
    return max(1, least, min(enough, most))


def _try(study: Study, draft: Draft, oracle: Oracle) -> Trial:
    if draft.cost.setup_seconds > LONG:
        log.info(
            "route %s %s: compiling %d operations takes about %.0f s",
            draft.route.name, draft.mode, draft.cost.operations, draft.cost.setup_seconds,
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluate = draft.route.prepare(study.request, draft.mode, draft.cost.chunk, draft.batch)
            return _compare(study, draft, evaluate, oracle)
        except Exception as error:
            raise _refusal(error) from error


def _compare(study: Study, draft: Draft, evaluate: Evaluate, oracle: Oracle) -> Trial:
    request, widths, alone = study.request, _widths(study, draft), _alone(study, draft)
    worst: dict[Key, Deviation] = dict.fromkeys(request.keys, Deviation())
    for width in widths:
        found = zip(request.keys, _at_width(evaluate, study.points, width, alone), strict=True)
        levels = [request.comparable(level, key) for key, level in found]
        for key, deviation in oracle.compare(levels).items():
            worst[key] = worst[key].worse(deviation)
    highest = dict(zip(request.keys, levels, strict=True)).get(request.whole_order)
    symmetry = None if highest is None else _symmetry(request, highest)
    points = max(alone if width == 1 else width for width in widths)
    return Trial(draft, evaluate, worst, symmetry, tuple(widths), min(points, len(study.points)))


def _symmetry(request: Request, level: Tensor) -> float | None:
    pattern = request.pattern
    if pattern is None or not request.is_sparse(level, request.whole_order):
        return symmetry_residual(level, request.whole_order)
    if request.whole_order < 2:
        return None
    kept = level[level.isfinite().all(dim=1)]
    size = kept.abs().amax(dim=1) if kept.numel() else kept.new_zeros(0)
    if not len(size):
        return None
    turned = [pattern.exchanged(axis) for axis in range(-1, -request.whole_order, -1)]
    gaps = [(kept - kept[:, each.to(kept.device)]).abs().amax(dim=1) for each in turned]
    tiny = torch.finfo(level.dtype).tiny
    return float((torch.stack(gaps) / size.clamp_min(tiny)).max())


def _require_agreement(trial: Trial, oracle: Oracle) -> None:
    for key, deviation in trial.deviations.items():
        if not deviation.excess <= 1:
            raise RefusedError(
                f"{spell_key(key)} differs from the reference ({oracle.reference}) by "
                f"{deviation.error:.1e} relative, {deviation.excess:.1e} times what is allowed"
            )
    if trial.symmetry is not None and not oracle.allows_asymmetry(trial.symmetry):
        raise RefusedError(f"its result is not symmetric: residual {trial.symmetry:.1e}")


def _widths(study: Study, draft: Draft) -> list[int]:
    """Batch sizes at which a route is compared: they have changed answers in torch."""
    probes, route = len(study.points), draft.route
    if route.pointwise:
        return [_alone(study, draft)]
    most = study.count or probes
    most = most if route.streams else min(most, draft.batch)  # wider ones are taken apart
    return sorted({1, min(probes, most), min(draft.batch, WIDEST_CHECK, most)})


def _alone(study: Study, draft: Draft) -> int:
    """How many points are evaluated one by one: fewer where that takes long."""
    width = draft.batch if draft.route.pads else 1
    call = draft.cost.batch_seconds + width * draft.cost.point_seconds
    return max(1, min(len(study.points), int(TRIAL_SECONDS / max(call, 1e-9))))


def _at_width(evaluate: Evaluate, points: Tensor, width: int, alone: int) -> tuple[Tensor, ...]:
    """Evaluate the points in a batch of this width, by repetition; some one by one at width 1."""
    if width == 1:
        rows = [evaluate(point[None]) for point in points[:alone]]
        return tuple(torch.cat(level) for level in zip(*rows, strict=True))
    return evaluate(points.repeat(-(-width // len(points)), 1)[:width])
