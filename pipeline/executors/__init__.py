"""Existing engines that run shards of one job in other processes: one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError, nearest
from pipeline.executors.base import Executor
from pipeline.functions.parameters import bind, parameters_of

ENGINES = ("dask", "local", "slurm")


def build_executor(name: str, options: Mapping[str, Any], folder: Path) -> Executor:
    """Find an engine and give it its options; nothing is started yet.

    Args:
        name: One of `ENGINES`.
        options: What the user gave; the signature of the engine's ``build`` is their schema.
        folder: Where the engine may keep its own files.

    Returns:
        The executor, to be entered.

    Raises:
        ConfigurationError: The engine or an option is unknown; lists every fault.
    """
    build = _engine(name)
    bound, faults = bind(parameters_of(build, f"executor {name!r}"), options, "executor")
    if faults:
        raise ConfigurationError(faults)
    executor: Executor = build(folder, **bound)
    return executor


def _engine(name: str) -> Callable[..., Executor]:
    if name not in ENGINES:
        known = ("none", *ENGINES)
        raise ConfigurationError([f"executor {name!r} is unknown. {nearest(name, known)}"])
    build: Callable[..., Executor] = import_module(f"pipeline.executors.{name}").build
    return build
