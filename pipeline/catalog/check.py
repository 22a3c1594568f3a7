"""Check a plugin file: every law of the conformance kit, with a verdict a newcomer understands."""

from __future__ import annotations

import inspect
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from types import FrameType
from typing import Any

import torch

from pipeline.errors import ConfigurationError, PipelineError, nearest, told
from pipeline.functions.record import AnySize, Function
from pipeline.grids.kind import GridKind, Space
from pipeline.registry import Registry, build_registry
from pipeline.testing import Advice, FunctionTests, GridTests

OK, ADVICE, FAILED, SKIPPED, NOTHING = "ok", "advice", "FAILED", "skipped", "-"
FIRST = (
    "test_keeps_shape_dtype_and_input",
    "test_gives_the_same_twice",
    "test_is_finite_in_its_domain",
    "test_can_be_differentiated",
    "test_finite_differences",
    "test_rows_are_points",
    "test_gives_the_same_again",
)  # where one fails, all that follow would say the same
GIVEN = {"test_closed_forms": "closed_form", "test_scenarios": "scenarios"}  # what a law is about
SECONDS = 60.0  # of one check
SLOW_SECONDS = 0.01  # of one value: derivatives at a million points then take hours
# what torch says, and what a plugin's author can do about it
MEANINGS = {
    r"numpy\(\) on Tensor that requires grad": "numpy ends differentiation; use torch.sin for np.sin",
    r"[Ll]eaf Variable.*in-place|view of a leaf": (
        "it writes into x; fill a new tensor (x.clone(), torch.stack)"
    ),
    r"modified by an inplace": "it overwrites a tensor that the derivative needs; make a new one",
    r"must be Tensor, not float|only tensors can be converted|must be real number": (
        "it mixes math functions with tensors; use torch.sin for math.sin"
    ),
    r"(one element tensors?|scalars) can be converted": (
        "it uses float(), int() or math functions on a tensor; use torch operations"
    ),
    r"size of tensor|shapes cannot be multiplied|out of bounds|out of range|not enough values": (
        "x is one point of shape (n,), not a batch (N, n): are n= and the indices right?"
    ),
    r"not implemented for|derivative for .* is not": (
        "torch has no derivative for this operation; write it by others"
    ),
}


class _OutOfTime(BaseException):
    """A check has taken too long; nothing that catches any Exception is to stop this one."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check.

    Attributes:
        outcome: ok, advice, FAILED, skipped, or - where the plugin gives nothing that the law is about.
        what: The law.
        why: What is wrong, and what to do.
        seconds: How long it took.
    """

    outcome: str
    what: str
    why: Sequence[str] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        took = f"  ({self.seconds:.1f} s)" if self.seconds >= 1 else ""
        lines = [line for reason in self.why for line in reason.splitlines()]
        return "\n".join(
            [f"  {self.outcome:8}{self.what}{took}", *(f"            {line}" for line in lines)]
        )


@dataclass(frozen=True)
class Wanted:
    """What of a plugin is checked, and how.

    Attributes:
        name: Only this one of its functions and grids; None for all.
        n: Number of inputs, where any will do; None for their own.
        options: Parameters of functions, options of grids, that differ from their defaults.
        seconds: How long one check may take.
    """

    name: str | None = None
    n: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = SECONDS


def check_plugin(file: str, wanted: Wanted, tell: Callable[[str], None]) -> int:
    """Run the conformance kit on everything that a plugin file contributes.

    Args:
        file: The file.
        wanted: What of it.
        tell: Takes the text, line by line, as it becomes known.

    Returns:
        The number of failed checks.
    """
    tell(file)
    verdicts: list[Verdict] = []

    def note(verdict: Verdict) -> None:
        verdicts.append(verdict)
        tell(str(verdict))

    registry = _load(file, note)
    for record in [] if registry is None else _own(registry, file, wanted.name):
        tell(f"{'function' if isinstance(record, Function) else 'grid'} {record.name}")
        for verdict in _judge(record, wanted):
            note(verdict)
    counts = [
        sum(verdict.outcome == kind for verdict in verdicts)
        for kind in (OK, ADVICE, FAILED, SKIPPED, NOTHING)
    ]
    empty = f", {counts[4]} with nothing to check" if counts[4] else ""
    tell("{} ok, {} with advice, {} failed, {} skipped".format(*counts) + empty)
    return counts[2]


def _load(file: str, note: Callable[[Verdict], None]) -> Registry | None:
    what = "The file can be imported, and what it contributes can be read."
    try:
        registry = build_registry([file])
    except PipelineError as error:
        note(Verdict(FAILED, what, [str(error)]))
        return None
    note(Verdict(OK, what))
    return registry


def _own(registry: Registry, file: str, name: str | None) -> list[Function | GridKind]:
    records: list[Function | GridKind] = [
        *(registry.functions[own] for own in _contributed(registry, "function", file)),
        *(registry.grids[own] for own in _contributed(registry, "gridkind", file)),
    ]
    names = [record.name for record in records]
    if name is not None and name not in names:
        raise ConfigurationError([f"{file} contributes no {name!r}. {nearest(name, names)}"])
    return [record for record in records if name in (None, record.name)]


def _contributed(registry: Registry, kind: str, file: str) -> list[str]:
    return [
        what.removeprefix(f"{kind} ")
        for what, owner in registry.owners.items()
        if owner == file and what.startswith(f"{kind} ")
    ]


def _judge(record: Function | GridKind, wanted: Wanted) -> Iterator[Verdict]:
    case = _case(record, wanted)
    what = "It can be built with " + ("these options." if wanted.options else "its defaults.")
    built = _attempt(what, lambda: _build(case), record)
    yield built
    if built.outcome == FAILED:
        return
    if isinstance(case, FunctionTests):
        yield _speed(case)
    laws = [law for law in vars(type(case).__mro__[1]) if law.startswith("test_")]
    first = [law for law in FIRST if law in laws]
    broken = False
    for law in [*first, *(law for law in laws if law not in first)]:
        method = getattr(case, law)
        what = inspect.getdoc(method) or law
        verdict = Verdict(SKIPPED, what)
        if law in GIVEN and not getattr(record, GIVEN[law]):
            verdict = Verdict(NOTHING, f"{what.rstrip('.')}: none given")
        elif not broken:
            verdict = _attempt(what, _limited(method, wanted.seconds), record)
        broken |= law in first and verdict.outcome == FAILED
        yield verdict


def _case(record: Function | GridKind, wanted: Wanted) -> FunctionTests | GridTests:
    """The tests of a record, as its author would write them."""
    kind: type[FunctionTests] | type[GridTests]
    said: dict[str, Any]
    if isinstance(record, Function):
        kind = FunctionTests
        said = {"function": record, "n": wanted.n, "parameters": wanted.options}
    else:
        kind, space = GridTests, Space(AnySize() if wanted.n is None else wanted.n)
        said = {"grid": record, "space": space, "options": wanted.options}
    case: FunctionTests | GridTests = type("Checked", (kind,), said)()
    return case


def _build(case: FunctionTests | GridTests) -> object:
    return case.bound.f if isinstance(case, FunctionTests) else case.built


def _attempt(what: str, law: Callable[[], object], record: Function | GridKind) -> Verdict:
    began = time.monotonic()
    printed = StringIO()
    with warnings.catch_warnings(record=True) as seen, redirect_stdout(printed):
        warnings.simplefilter("always")
        try:
            law()
        except _OutOfTime as stop:
            return Verdict(SKIPPED, what, [str(stop)], time.monotonic() - began)
        except Exception as error:  # the plugin's own code may raise anything
            return Verdict(FAILED, what, [_explain(error, record)], time.monotonic() - began)
    advice = [str(item.message) for item in seen if issubclass(item.category, Advice)]
    if printed.getvalue():
        advice.append("it prints at every call; take the print out")
    advice = list(dict.fromkeys(advice))
    outcome = ADVICE if advice else OK
    return Verdict(outcome, what, advice, time.monotonic() - began)


def _limited(law: Callable[[], object], seconds: float) -> Callable[[], object]:
    """A law that is broken off after so long, in the main thread, where signals can do that."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime(
            f"not finished within {seconds:g} s; --seconds {10 * seconds:g} gives it more"
        )

    def run() -> None:
        if threading.current_thread() is not threading.main_thread():
            law()
            return
        handler = signal.signal(signal.SIGALRM, stop)
        timer = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            law()
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)

    return run


def _explain(error: Exception, record: Function | GridKind) -> str:
    if isinstance(error, AssertionError):
        return str(error)
    text = str(error) if isinstance(error, PipelineError) else told(error)
    meanings = [meaning for pattern, meaning in MEANINGS.items() if re.search(pattern, text)]
    return "\n".join([f"{text}{_place(error, record)}", *meanings[:1]])


def _place(error: BaseException, record: Function | GridKind) -> str:
    """The last line of the plugin's own file that the error came through."""
    source = inspect.getsourcefile(record.build)
    while error.__cause__ is not None:
        error = error.__cause__
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == source:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" (line {lines[-1]} of the file)" if lines else ""


def _speed(case: FunctionTests) -> Verdict:
    what = "One value takes little time."

    def value() -> float:
        began = time.perf_counter()
        with torch.no_grad():
            case.bound.f(case.points[0].clone())
        return time.perf_counter() - began

    verdict = _attempt(what, value, case.bound.function)
    if verdict.outcome == FAILED:  # another law says it better
        return Verdict(SKIPPED, what)
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = min(value() for _ in range(2))
    if seconds < SLOW_SECONDS:
        return Verdict(OK, f"One value takes {seconds * 1e6:.0f} µs.")
    reason = f"one value takes {seconds:.3g} s, so that a million take {seconds * 1e6 / 3600:.0f} hours; "
    remedy = "do what does not depend on x once, in build, and write loops as operations on whole tensors"
    return Verdict(ADVICE, what, [reason + remedy])
