"""Everything that can be asked for, read from the registry, the routes and the configuration."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module, resources
from typing import Any

from pipeline.autograd.operators import HIGHEST_ORDER, OPERATORS
from pipeline.autograd.routes import ROUTES
from pipeline.display import spell_points
from pipeline.errors import ConfigurationError, nearest
from pipeline.executors import ENGINES
from pipeline.functions.parameters import Parameter, parameters_of, spell_type
from pipeline.functions.record import AnySize, Function
from pipeline.grids.kind import GridKind
from pipeline.registry import Registry

KINDS = ("functions", "grids", "jobs", "operators", "routes", "executors", "experiments")

RESULTS = {  # of one point, for a scalar function or one of m outputs
    "value": "() or (m,)",
    "gradient": "(n,)",
    "jacobian": "(n,) or (m, n)",
    "hessian": "(n, n) or (m, n, n)",
    "jvp": "() or (m,)",
    "vjp": "(n,)",
    "hvp": "(n,) or (m, n)",
    "hessian_diagonal": "(n,) or (m, n)",
    "laplacian": "() or (m,)",
    "divergence": "()",
    "eigenvalues": "(n,)",
    "eigenvectors": "(n, n), in columns",
}


@dataclass(frozen=True)
class Entry:
    """One thing that can be asked for.

    Attributes:
        kind: Which kind it is: one of `KINDS`.
        name: What the user types.
        shape: What it maps to what, or how much of it.
        summary: One line.
        parameters: Name -> type and default.
        facts: What else is known of it.
    """

    kind: str
    name: str
    shape: str = ""
    summary: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The entry as plain values."""
        return asdict(self)


def entries(registry: Registry) -> list[Entry]:
    """List everything.

    Args:
        registry: What the plugins contribute.

    Returns:
        The entries, kind by kind.
    """
    return [
        *(_function(record, registry) for record in registry.functions.values()),
        *(_grid(kind, registry) for kind in registry.grids.values()),
        *_files("jobs", "job", _job),
        *_operators(),
        *(Entry("routes", name, summary=_of_module(route)) for name, route in ROUTES.items()),
        *_executors(),
        *_files("experiments", "experiment", _experiment),
    ]


def select(every: Sequence[Entry], words: Sequence[str]) -> list[Entry]:
    """Choose by kinds, names, or parts of names and summaries.

    Args:
        every: All entries.
        words: What the user types; nothing chooses all.

    Returns:
        Those that any of the words chooses.

    Raises:
        ConfigurationError: A word chooses nothing.
    """
    chosen: list[Entry] = []
    for word in words:
        chosen += [entry for entry in _chosen(every, word) if entry not in chosen]
    return chosen if words else list(every)


def _chosen(every: Sequence[Entry], word: str) -> list[Entry]:
    kind = difflib.get_close_matches(word, KINDS, n=1, cutoff=0.85)
    exact = [entry for entry in every if entry.name == word]
    part = [entry for entry in every if word.lower() in f"{entry.name} {entry.summary}".lower()]
    found = exact or ([entry for entry in every if entry.kind == kind[0]] if kind else part)
    if not found:
        names = {*KINDS, *(entry.name for entry in every)}
        raise ConfigurationError([f"there is no {word!r} in the catalog. {nearest(word, names)}"])
    return found


def render(chosen: Sequence[Entry], in_full: bool) -> str:
    """Write entries for people.

    Args:
        chosen: The entries.
        in_full: Whether to give everything that is known of them.

    Returns:
        The text.
    """
    blocks = []
    for kind in KINDS:
        rows = [entry for entry in chosen if entry.kind == kind]
        if rows:
            blocks.append("\n".join([kind, *_rows(rows, in_full)]))
    if not in_full:
        blocks.append(
            "python -m pipeline.catalog NAME   gives parameters, domain and source of one"
        )
    return "\n\n".join(blocks)


def _rows(rows: Sequence[Entry], in_full: bool) -> Iterator[str]:
    names = max(len(entry.name) for entry in rows)
    shapes = max(len(entry.shape) for entry in rows)
    for entry in rows:
        yield f"  {entry.name:{names}}  {entry.shape:{shapes}}  {entry.summary}".rstrip()
        if in_full:
            details = [*entry.parameters.items(), *entry.facts.items()]
            widths = max((len(name) for name, _ in details), default=0)
            yield from (f"      {name:{widths}}  {text}" for name, text in details)


def _function(record: Function, registry: Registry) -> Entry:
    lower, upper = record.domain
    facts = {
        "domain": f"{_number(lower)} … {_number(upper)}",
        "inputs": ", ".join(record.input_names),
        "outputs": ", ".join(record.output_names),
        "oracles": ", ".join([*record.closed_form, *_scenarios(record)]),
        "source": record.source,
        "plugin": registry.owners.get(f"function {record.name}", ""),
        "run": f"python -m pipeline job=all function={record.name} grid=random",
    }
    return Entry(
        "functions", record.name, _shape(record), record.summary,
        _parameters(record.parameters, "function_params."),
        {name: text for name, text in facts.items() if text},
    )  # fmt: skip


def _scenarios(record: Function) -> list[str]:
    count = len(record.scenarios)
    return [f"{spell_points(count)} with known derivatives"] if count else []


def _shape(record: Function) -> str:
    defaults = {name: option.default for name, option in record.parameters.items()}
    sizes = record.sizes(**defaults)
    n = sizes.default if isinstance(sizes, AnySize) else sizes
    shape = record.shape(n, **defaults)
    inputs = f"{sizes}" if isinstance(sizes, AnySize) else f"n = {n}"
    outputs = f"m = {math.prod(shape)}" if shape else "scalar"
    return f"{inputs} -> {outputs}"


def _grid(kind: GridKind, registry: Registry) -> Entry:
    plugin = registry.owners.get(f"gridkind {kind.name}", "")
    return Entry(
        "grids", kind.name, "", kind.summary, _parameters(kind.options, "grid."), {"plugin": plugin}
    )


def _operators() -> Iterator[Entry]:
    for name, order in OPERATORS.items():
        yield Entry("operators", name, RESULTS.get(name, ""), f"order {order}")
    highest = f"order=1 … {HIGHEST_ORDER}"
    yield Entry("operators", "derivative", "(n,)*k or (m,)+(n,)*k", highest)
    yield Entry("operators", "all", "", "value, first derivative and hessian")


def _executors() -> Iterator[Entry]:
    yield Entry("executors", "none", "", "this process alone")
    for name in ENGINES:
        module = import_module(f"pipeline.executors.{name}")
        summary = _of_module(module.build)
        options = parameters_of(module.build, f"executor {name!r}")
        yield Entry("executors", name, "", summary, _parameters(options, "executor."))


def _files(kind: str, group: str, read: Callable[[str, str], Entry]) -> Iterator[Entry]:
    folder = resources.files("conf") / group
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            yield read(file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8"))


def _job(name: str, text: str) -> Entry:
    operators = re.search(r"^operators: \[(.*)\]", text, flags=re.MULTILINE)
    return Entry("jobs", name, "", operators[1] if operators else "", {}, {"run": _command(text)})


def _experiment(name: str, text: str) -> Entry:
    comments = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    remarks = [line for line in comments if not line.startswith(("@package", "python"))]
    return Entry("experiments", name, "", " ".join(remarks), {}, {"run": _command(text)})


def _command(text: str) -> str:
    command = re.search(r"python -m pipeline .*", text)
    return command[0] if command else ""


def _parameters(options: Mapping[str, Parameter], prefix: str) -> dict[str, str]:
    return {
        f"{prefix}{name}": f"{spell_type(option.annotation)}, default {_default(option.default)}"
        for name, option in options.items()
    }


def _default(value: Any) -> str:
    return "null" if value is None else repr(value)


def _number(bound: Any) -> str:
    if isinstance(bound, Sequence):
        return "(" + ", ".join(f"{value:g}" for value in bound) + ")"
    return f"{bound:g}"


def _of_module(thing: Any) -> str:
    """What the module that defines something says of it after the colon of its first line."""
    module = inspect.getmodule(thing if callable(thing) else type(thing))
    return (inspect.getdoc(module) or "").split("\n")[0].partition(": ")[2].rstrip(".")
