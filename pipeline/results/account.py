"""A readable account of a result: what is inside, from whom, how sure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pipeline.display import aligned, evidence, spell_bytes, spell_value
from pipeline.store.files.trust import readable
from pipeline.store.layout import SPARSE
from pipeline.store.parts.own_shard import CIRCUMSTANCES, MOST_READ
from pipeline.store.reading.reader import Results, open_results
from pipeline.store.reading.summary import decoded

MOST_LISTED = 5  # failures or gaps
NOT_COUNTED = (
    "status, failures and evidence of so many shards are put together at the end of the run"
)
Facts = dict[str, dict[str, Any]]
Sections = Sequence[tuple[str, Sequence[tuple[str, ...]]]]


def facts(results: Results) -> Facts:
    """Collect what a result says of itself.

    Args:
        results: Open results, finished or not.

    Returns:
        Section -> name -> value, all of it JSON values. Of an unfinished run of very many shards, only
        the first one is read: the status of the points is None.
    """
    with readable(results.account), ExitStack() as stack:
        speaking = results
        if not results.finished and len(results.present()) > MOST_READ:
            speaking = stack.enter_context(open_results(results.account, edited=results.edited))
        provenance, certificate = decoded(speaking.provenance), decoded(speaking.certificate)
        return {
            "result": _result(results, speaking),
            "datasets": {name: _dataset(results, name) for name in results.names},
            "origin": _origin(results, provenance),
            "certificate": certificate,
            "failures": provenance["failures"],
        }


def render(account: Facts) -> str:
    """Write an account for people.

    Args:
        account: As `facts` gives it.

    Returns:
        A few dozen lines.
    """
    blocks = [
        "\n".join(([head] if head else []) + aligned(rows)) for head, rows in sections(account)
    ]
    return "\n\n".join([f"{account['result']['title']}\n{blocks[0]}", *blocks[1:]])


def sections(account: Facts) -> Sections:
    """Put an account into words, section by section.

    Args:
        account: As `facts` gives it.

    Returns:
        Heading and rows of cells; the first section has no heading, none is empty.
    """
    datasets = [
        (name, f"{tuple(entry['shape'])} {entry['dtype']}", _unit(entry["units"]), entry["about"])
        for name, entry in account["datasets"].items()
    ]
    origin = account["origin"] | {"grid": _grid_in_short(account["origin"]["grid"])}
    origins = [(key, spell_value(value)) for key, value in origin.items() if value]
    every: Sections = [
        ("", list(_summary(account["result"]))),
        ("datasets", datasets),
        ("origin", origins),
        ("evidence", list(evidence(account["certificate"]))),
        ("failures", list(_failures(account["failures"]))),
    ]
    return [(head, rows) for head, rows in every if rows]


def _grid_in_short(spec: Any) -> Any:
    """What a grid is: its kind first, and once what is the same for all inputs."""
    if not isinstance(spec, dict):  # of a stranger's file
        return spec
    named = {"name": spec.get("name", ""), **spec}
    return {
        name: f"{spell_value(value[0])} each" if _is_same(value) else value
        for name, value in named.items()
    }


def _is_same(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(one == value[0] for one in value)


def _result(results: Results, speaking: Results) -> dict[str, Any]:
    missing, files = results.missing(), len(results.present())
    size = speaking.provenance.get("shard_bytes") if files > 1 and not results.edited else None
    lost = sum(stop - start for start, stop in missing)
    return {
        "title": str(results.attrs["title"]),
        "path": str(results.path),
        "run": str(results.attrs["run_id"]),
        "files": files,
        "bytes": sum(path.stat().st_size for path in results.files) if size is None else size,
        "points": results.points,
        "computed": results.points - lost,
        "missing": [f"{start} to {stop - 1}" for start, stop in missing],
        "status": {name: count for name, count in results.counts().items() if count}
        if speaking is results
        else None,
    }


def _dataset(results: Results, name: str) -> dict[str, Any]:
    array = results[name]
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "units": str(array.attrs.get("units", "")),
        "about": str(array.attrs.get("long_name", "")) + _how_stored(results, name),
    }


def _how_stored(results: Results, name: str) -> str:
    if name.endswith(SPARSE):
        shape = results[name.removesuffix(SPARSE)].shape[1:]
        what = "matrices" if len(shape) == 2 else "arrays"
        return f" (entries of {' × '.join(map(str, shape))} {what})"
    return "" if name in results.stored else " (stored packed)"


def _origin(results: Results, provenance: Mapping[str, Any]) -> dict[str, Any]:
    identity = provenance["identity"]
    alone = {name: provenance[name] for name in CIRCUMSTANCES}
    return {
        "function": identity["function"],
        "parameters": identity["parameters"],
        "source": provenance["function_source"],
        "digest": identity["source"],
        "grid": identity["grid"],
        "command": str(results.attrs["history"]).partition(" ")[2],
        "started": provenance["started"],
        "finished": provenance["finished"],
        "circumstances": provenance.get("circumstances") or [alone],
        "pipeline": provenance["packages"].get("pipeline-derivatives", ""),
    }


def _failures(failures: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    listed = sorted(failures.items(), key=lambda entry: int(entry[0]))
    listed = [(index, " ".join(reason.split())) for index, reason in listed]  # a line for each
    yield from ((f"point {index}", reason) for index, reason in listed[:MOST_LISTED])
    if len(listed) > MOST_LISTED:
        yield "…", f"{len(listed) - MOST_LISTED} more"


def _summary(result: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    files = "1 file" if result["files"] == 1 else f"{result['files']} files"
    yield "path", f"{result['path']} ({files}, {spell_bytes(result['bytes'])})"
    yield "run", result["run"]
    status = spell_value(result["status"]) if result["status"] is not None else NOT_COUNTED
    yield "points", f"{result['computed']} of {result['points']}: {status}"
    yield from (("missing", gap) for gap in result["missing"][:MOST_LISTED])
    if len(result["missing"]) > MOST_LISTED:
        yield "…", f"{len(result['missing']) - MOST_LISTED} more gaps"


def _unit(units: str) -> str:
    return "" if units == "1" else units
