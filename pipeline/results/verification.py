"""Repeats the check of a result later, from the file alone and the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.autograd.checks.independent import check_reference
from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.definitions.contractions import Direction
from pipeline.autograd.functions.border import at_border, callable_of
from pipeline.autograd.functions.half_precision import resolve_precision
from pipeline.autograd.functions.module_function import as_function
from pipeline.autograd.functions.probe import probe_indices
from pipeline.autograd.functions.variable import Beside, resolve_variable
from pipeline.autograd.operators import ALONG, Operator, asking, contract
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.planning.asked import without_direction
from pipeline.autograd.planning.by_differences import REFERENCE, differences_of
from pipeline.autograd.precision import as_calculated
from pipeline.autograd.request import Request
from pipeline.autograd.routes import FiniteDifferenceRoute
from pipeline.display import card, spell_points
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.functions.bound import BoundFunction, bind_function
from pipeline.functions.fingerprint import callable_digest
from pipeline.functions.outputs import Chosen, choose_outputs
from pipeline.functions.parameters import bind
from pipeline.functions.structure import Structure
from pipeline.registry import build_registry
from pipeline.store.export.integrity import check_files
from pipeline.store.files.trust import readable
from pipeline.store.layout import SPARSE, STATUS
from pipeline.store.reading.reader import Results, open_results

OBJECT = (
    "the derivatives were not compared again: the function was given as a Python object; "
    "pipeline.verify(path, function=…) compares them"
)


@dataclass(frozen=True)
class Verification:
    """What a result looks like on a second look.

    Attributes:
        path: The result.
        facts: What was found, a line each.
        faults: What is wrong, a sentence each.
    """

    path: Path
    facts: tuple[str, ...]
    faults: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.facts, *(f"wrong: {fault}" for fault in self.faults), self.verdict])

    @property
    def verdict(self) -> str:
        """The result, and whether it is verified."""
        return f"{self.path}: {'NOT verified' if self.faults else 'verified'}"

    def _repr_html_(self) -> str:
        found = [("found", fact) for fact in self.facts]
        return card(self.verdict, [*found, *(("wrong", fault) for fault in self.faults)])


def verify(
    path: str | Path,
    plugins: Sequence[str] = (),
    points: int = 16,
    function: Callable[[Tensor], Tensor] | None = None,
    *,
    edited: bool = False,
) -> Verification:
    """Check files and checksums, and compare stored derivatives with the reference.

    Args:
        path: A result file, or the directory of a run.
        plugins: Plugin files that define the function; by default those of the run.
        points: How many stored points are compared, spread over the whole result.
        function: What was differentiated, where it is no plugin's but was given as an object.
        edited: Whether to open files that have been changed since they were written.

    Returns:
        What was found.

    Raises:
        StoreError: There is nothing to open.
    """
    with open_results(path, edited=edited) as results:
        faults = check_files(results)
        files = "1 file" if len(results.files) == 1 else f"{len(results.files)} files"
        facts = [f"{spell_points(results.points)} in {files}"]
        if not faults:
            seals = "no seal was asked for" if edited else "every seal is whole"
            facts.append(f"every checksum is right, {seals}")
        with readable(results.account):
            identity = json.loads(results.provenance["identity_json"])
        if results.provenance.get("function_from") == "object" and not (function or plugins):
            return Verification(Path(path), (*facts, OBJECT), tuple(faults))
        try:
            if function is None:
                f = callable_of(_function(identity, results, plugins))
            else:
                _require_source(identity, callable_digest(as_function(function)))
                f = _flat(function, identity)
            compared, wrong = _compare(identity, results, f, points)
        except PipelineError as error:
            compared, wrong = [], [f"the certificate cannot be repeated: {error}"]
        return Verification(Path(path), (*facts, *compared), (*faults, *wrong))


def _function(identity: dict[str, Any], results: Results, plugins: Sequence[str]) -> BoundFunction:
    files = plugins or json.loads(results.provenance["plugins_json"])
    record = build_registry(files).function(identity["function"])
    parameters, wrong = bind(record.parameters, identity["parameters"], "function_params")
    if wrong:
        raise ConfigurationError(wrong)
    function = bind_function(record, parameters, results["x"].shape[1])
    _require_source(identity, function.source_digest)
    return choose_outputs(function, identity.get("outputs"))


def _flat(f: Callable[..., Any], identity: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    structure, outputs = identity.get("structure") or {}, identity.get("outputs")
    if not structure and outputs is None:
        return as_function(f)
    inputs = structure.get("inputs")
    chosen = None if outputs is None else Chosen(tuple(outputs), identity["outputs_of"])
    return at_border(f, Structure.from_record(inputs) if inputs else None, chosen)


def _require_source(identity: dict[str, Any], digest: str) -> None:
    if digest != identity["source"]:
        raise PipelineError(
            f"the source of function {identity['function']!r} has changed since: "
            f"sha256 {identity['source'][:12]}… then, {digest[:12]}… now"
        )


def _compare(
    identity: dict[str, Any], results: Results, f: Callable[[Tensor], Tensor], count: int
) -> tuple[list[str], list[str]]:
    rows = _rows(results, count)
    if not rows:
        return ["no point to compare: nowhere is the result finite"], []
    points = torch.from_numpy(np.stack([results["x"][row] for row in rows]))
    names = results.labels.get("input", ())
    variable = resolve_variable(identity.get("wrt"), f, points.shape[1], names)
    precision = resolve_precision(identity["dtype"])
    f, variable = precision.function(f), precision.variable(variable)
    shape, named = tuple(f(points[0]).shape), [Operator(*pair) for pair in identity["operators"]]
    direction = None
    if any(operator.name in ALONG for operator in named):
        points, direction = _with_directions(results, points, rows)
        d = results["x"].shape[1]
        f, variable = partial(without_direction, f, d), Beside(variable, d)
    bare = Request(f, points[0], shape, (), variable, evaluated_in=precision)
    operators = contract(named, direction, bare.n, shape, identity.get("masses", ()))
    by_key = {operator.key: operator.name for operator in operators}
    twins = [operator for operator in operators if by_key[operator.key] != operator.name]
    request = asking(as_calculated(bare, points[0]), operators)
    kept = {key: _kept_name(results, by_key[key]) for key in request.keys}
    request = replace(request, pattern=_pattern(results, kept.get(request.sparse_order, "")))
    stored = [
        torch.from_numpy(np.stack([results[kept[key]][row] for row in rows]))
        for key in request.keys
    ]
    if results.certificate["route"] == FiniteDifferenceRoute.name:
        return _differences(results, request, operators, points, stored)
    oracle = build_oracle(request, points)
    deviations = oracle.compare(stored)
    facts = [f"{spell_points(len(rows))} compared with {oracle.reference}"]
    facts += [
        f"{by_key[key]}: largest error {deviation.error:.1e}"
        for key, deviation in deviations.items()
    ]
    faults = [
        f"{by_key[key]} differs from the reference by {deviation.error:.1e} relative"
        for key, deviation in deviations.items()
        if not deviation.excess <= 1
    ]
    faults += [
        f"{twin.name} differs from {by_key[twin.key]}, which is the same derivative"
        for twin in twins
        if any(not _same(results, twin.name, by_key[twin.key], row) for row in rows)
    ]
    checks = check_reference(request, points, oracle)
    return [*facts, *checks.unchecked], [*faults, *checks.disagreements]


def _differences(
    results: Results,
    request: Request,
    operators: Sequence[Operator],
    points: Tensor,
    stored: Sequence[Tensor],
) -> tuple[list[str], list[str]]:
    """The same where torch has no derivative to compare with."""
    differences = differences_of(request, _grid_points(results), results.certificate["mode"])
    levels = dict(zip(request.keys, stored, strict=True))
    checks = [
        differences.spot_check(
            operators, point, {item.dataset: levels[item.key][row] for item in operators}, row
        )
        for row, point in enumerate(points)
    ]
    errors = [(name, error) for check in checks for name, error in check.error.items()]
    worst = {name: max(error for each, error in errors if each == name) for name, _ in errors}
    facts = [f"{spell_points(len(points))} compared with {REFERENCE}"]
    facts += [f"{name}: largest error {error:.1e}" for name, error in worst.items()]
    return facts, [fault for check in checks for fault in check.disagreements]


def _grid_points(results: Results) -> Tensor:
    """Points that say how far the inputs change: those that were looked at when the run began."""
    return torch.from_numpy(np.stack([results["x"][row] for row in probe_indices(len(results))]))


def _with_directions(results: Results, points: Tensor, rows: list[int]) -> tuple[Tensor, Direction]:
    """Rows with the direction behind each point, and where it stands."""
    common = results.common_direction
    if common is not None:
        return points, Direction(torch.from_numpy(common))
    given = torch.from_numpy(np.stack([results["direction"][row] for row in rows]))
    d = points.shape[1]
    return torch.cat([points, given], dim=1), Direction(columns=(d, d + given.shape[1]))


def _kept_name(results: Results, name: str) -> str:
    """The dataset that is compared: the entries of a pattern as they are stored."""
    return f"{name}{SPARSE}" if f"{name}{SPARSE}" in results.stored else name


def _pattern(results: Results, name: str) -> Pattern | None:
    if not name.endswith(SPARSE):
        return None
    sparse = results.sparse(name)
    shape = sparse.shape[1:]
    flat = np.ravel_multi_index(sparse.coordinates, shape)
    return Pattern.of_flat(torch.from_numpy(flat), shape)


def _same(results: Results, one: str, other: str, row: int) -> bool:
    return bool(np.array_equal(results[one][row], results[other][row], equal_nan=True))


def _rows(results: Results, count: int) -> list[int]:
    """Rows to compare: those of the first check, and others at random, the same every time."""
    missing = results.missing()
    count = max(count, 1)
    drawn = np.random.default_rng(0).integers(0, len(results), size=8 * count).tolist()
    rows = dict.fromkeys([*probe_indices(len(results)), *drawn])
    there = (row for row in rows if not any(start <= row < stop for start, stop in missing))
    finite = (row for row in there if int(results["status"][row]) == STATUS["ok"])
    return sorted(row for row, _ in zip(finite, range(count), strict=False))
