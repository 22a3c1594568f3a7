"""Keywords of the Python door: their types, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch

from pipeline.autograd.functions.variable import Wrt
from pipeline.autograd.pattern import Pattern
from pipeline.errors import ConfigurationError
from pipeline.job import Format, Storage, Workers
from pipeline.runs.patterns import read_pattern, sparse_format
from pipeline.store.files.compression import resolve_storage


class Keywords(TypedDict, total=False):
    """Keywords that the three verbs share; see `pipeline.job.Options` for their meaning."""

    order: int | None
    parameters: Mapping[str, Any]
    wrt: Wrt | None
    outputs: Wrt | None
    masses: Sequence[float]
    plugins: str | Path | Sequence[str | Path]
    dtype: str | torch.dtype | None
    device: str | torch.device | None
    route: str
    mode: str
    batch: int | None
    chunk: int | None
    memory: int | None
    on_disagreement: str
    on_point_error: str
    finite_differences: bool
    symmetric: str
    pattern: Any
    format: Format
    directions: Any


class RunKeywords(Keywords, total=False):
    """Further keywords of `run`.

    Attributes:
        store: See `pipeline.job.Storage`.
        progress: Whether a bar is shown on a terminal and in a notebook; True where it is left out.
    """

    store: Mapping[str, Any]
    progress: bool


def plugin_files(keywords: Keywords) -> tuple[str, ...]:
    """The user's own plugin files, as texts."""
    given = keywords.get("plugins", ())
    return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))


def workers(executor: str | Mapping[str, Any]) -> Workers:
    """Who computes, from a name or a mapping with options."""
    options: dict[str, Any] = {"name": executor} if isinstance(executor, str) else dict(executor)
    return Workers(options.pop("name", "none"), options.pop("retries", 2), options)


def storage(keywords: RunKeywords) -> Storage:
    """How results lie on disk."""
    given = keywords.get("store", {})
    for name in ("symmetric", "format"):
        if name in keywords:
            given = {**given, name: keywords[name]}
    kept = resolve_storage(given)
    return replace(kept, format=sparse_format(kept.format, keywords.get("pattern")))


def pattern(keywords: Keywords) -> Pattern | None:
    """The pattern of a sparse result, where one is given."""
    given = keywords.get("pattern")
    return None if given is None else read_pattern(given)


def masses(keywords: Keywords) -> tuple[float, ...]:
    """Masses of eigenvalues."""
    given = keywords.get("masses", ())
    try:
        return tuple(map(float, given))
    except (TypeError, ValueError):
        raise ConfigurationError([f"masses: expected a list of numbers, got {given!r}"]) from None


def plain(given: Wrt | None) -> str | int | tuple[str | int, ...] | None:
    """What wrt= and outputs= name, hashable."""
    return given if given is None or isinstance(given, str | int) else tuple(given)


def operator_names(operators: str | Sequence[str]) -> tuple[str, ...]:
    """Names of operators, one or several."""
    return (operators,) if isinstance(operators, str) else tuple(operators)
