"""Results in a few words: for a prompt, for a notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.display import card, spell_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.store.arrays.row_array import RowArray
    from pipeline.store.reading.results import Results

MOST_GAPS = 5  # that are named
CHECKS = ("route", "mode", "points_checked", "reference_error", "rows_checked")


def summary(results: Results, arrays: Iterable[RowArray]) -> str:
    """Name what there is.

    Args:
        results: Open results, of which nothing is read.
        arrays: Their datasets.

    Returns:
        A line for each dataset.
    """
    title = results.attrs.get("title", "derivatives")
    lines = [f"{title}: {results.path}"]
    lines += [f"  {array!r}" for array in arrays]
    gaps = _gaps(results)
    return "\n".join(lines + ([f"  missing: {gaps}"] if gaps else []))


def summary_card(results: Results, arrays: Iterable[RowArray]) -> str:
    """Name what there is, and how sure it is.

    Args:
        results: Open results; of unfinished ones, which may lie in very many files, nothing is read.
        arrays: Their datasets.

    Returns:
        HTML.
    """
    gaps = _gaps(results)
    certificate = results.certificate if results.finished else {}
    known = {name: certificate[name] for name in CHECKS if name in certificate}
    facts = {
        "points": results.points,
        "path": results.path,
        **{array.name: f"{array.shape} {array.dtype}" for array in arrays},
        **({"missing": gaps} if gaps else {}),
        **{name.replace("_", " "): spell_value(value) for name, value in decoded(known).items()},
    }
    return card(str(results.attrs.get("title", "derivatives")), facts)


def decoded(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Give values as they were before HDF5.

    Args:
        entries: Values of a file; what is JSON is read, ``_json`` in a name means that it is.

    Returns:
        Name -> value.
    """
    found = {}
    for name, value in entries.items():
        if name.endswith("_json"):
            found[name.removesuffix("_json")] = json.loads(value)
        elif isinstance(value, str) and value[:1] in ("[", "{", "n"):
            found[name] = _maybe_json(value)
        else:
            found[name] = value
    return found


def _maybe_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _gaps(results: Results) -> str:
    gaps = results.missing()
    words = [f"{start} to {stop - 1}" for start, stop in gaps[:MOST_GAPS]]
    return ", ".join(
        words + ([f"{len(gaps) - MOST_GAPS} more gaps"] if len(gaps) > MOST_GAPS else [])
    )
