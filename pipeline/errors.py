"""Every error that the project raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class PipelineError(Exception):
    """Base of all errors raised on purpose: what was expected, what came, what to do."""


class ConfigurationError(PipelineError):
    """A setting that cannot be used; carries every fault found, not only the first."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            super().__init__(self.faults[0])
        else:
            listed = "\n".join(f"  - {fault}" for fault in self.faults)
            super().__init__(f"{len(self.faults)} settings cannot be used:\n{listed}")


class PluginError(PipelineError):
    """A plugin that cannot be loaded or breaks the contract of `pipeline.hookspecs`."""


class FunctionError(PipelineError):
    """A user's function that raises or returns something that has no derivative."""


class GridError(PipelineError):
    """A grid that cannot be built from its options or its file."""


class DisagreementError(PipelineError):
    """Derivatives that do not agree with an independent oracle."""


class MemoryBudgetError(PipelineError):
    """Not even one point fits into the memory budget."""


class StoreError(PipelineError):
    """A result that cannot be written or read."""


class ExecutorError(PipelineError):
    """Other processes could not be started, or did not do their shards."""


class MissingShardsError(StoreError):
    """A result some of whose shards are gone."""


def one_line(error: BaseException) -> str:
    """Give the text of an error as a part of a sentence: HDF5 puts the time of day on a line of its own.

    Args:
        error: Anything that was raised.

    Returns:
        One line, without a full stop at its end.
    """
    return " ".join(str(error).split()).rstrip(".")


def told(error: BaseException) -> str:
    """Say what was raised, also by an error that cannot be turned into text.

    Args:
        error: Anything that was raised.

    Returns:
        Its type and its text.

    Examples:
        >>> told(ValueError("negative mass"))
        'ValueError: negative mass'
    """
    try:
        text = str(error)
    except Exception:  # of an error's own making
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the known words closest to `word`, as the end of an error message.

    Returns:
        A sentence such as ``Did you mean 'rosenbrock'? Known: ackley, rosenbrock.``
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3)
    hint = f"Did you mean {' or '.join(repr(name) for name in close)}? " if close else ""
    return f"{hint}Known: {', '.join(names) if names else 'none'}."
