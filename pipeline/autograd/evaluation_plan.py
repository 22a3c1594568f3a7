"""How an evaluator works, and what else was considered."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.autograd.cost import Cost
from pipeline.display import aligned, card, table


@dataclass(frozen=True)
class Candidate:
    """A route and mode that was considered.

    Attributes:
        route: Name of the route.
        mode: E.g. fwd_over_rev, outermost first.
        verdict: Used, or why not.
        cost: What it takes, where it was counted.
        seconds: Predicted time of the whole job.
        error: Worst error against the reference, where it was compared.
    """

    route: str
    mode: str
    verdict: str
    cost: Cost | None = None
    seconds: float | None = None
    error: float | None = None

    def row(self) -> tuple[str, ...]:
        """The candidate in words, as a line of the plan's explanation."""
        memory = "-" if self.cost is None else f"{self.cost.point_bytes}"
        numbers = (
            "-" if number is None else f"{number:.2g}" for number in (self.seconds, self.error)
        )
        seconds, error = numbers
        return self.route, self.mode, seconds, memory, error, self.verdict


HEADS = ("route", "mode", "predicted s", "bytes/point", "error", "verdict")


@dataclass(frozen=True)
class Plan:
    """How an evaluator works: chosen once, the same for every call.

    Attributes:
        route: Name of the route.
        mode: E.g. fwd_over_rev, outermost first.
        batch: Points evaluated in one call.
        dtype: Precision of points and derivatives.
        device: Where it runs.
        cost: What it takes.
        considered: All candidates, the one that is used last.
    """

    route: str
    mode: str
    batch: int
    dtype: torch.dtype
    device: torch.device
    cost: Cost
    considered: tuple[Candidate, ...] = ()

    @property
    def chunk(self) -> int:
        """Directions evaluated together."""
        return self.cost.chunk

    @property
    def point_seconds(self) -> float:
        """Predicted time per point in a full batch."""
        return self.cost.point_seconds + self.cost.batch_seconds / self.batch

    @property
    def refused(self) -> dict[str, str]:
        """Route and mode -> why it is not used."""
        return {f"{item.route} {item.mode}": item.verdict for item in self.considered[:-1]}

    def explain(self) -> str:
        """Say what was considered and why this is used, as a table.

        Returns:
            A line per candidate: route, mode, predicted seconds, bytes per point, agreement, verdict.
        """
        rows = [HEADS, *(item.row() for item in reversed(self.considered))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        more = ["", self.explain()] if len(self.considered) > 1 else []
        return "\n".join(["plan", *aligned(list(self._facts().items())), *more])

    def _repr_html_(self) -> str:
        rows = [item.row() for item in reversed(self.considered)]
        return card("Plan", self._facts()) + (table(HEADS, rows) if len(rows) > 1 else "")

    def _facts(self) -> dict[str, str]:
        return {
            "route": f"{self.route} {self.mode}",
            "batch": f"{self.batch} points, {self.chunk} directions at once",
            "numbers": f"{str(self.dtype).removeprefix('torch.')} on {self.device}",
            "predicted": f"{self.point_seconds:.2g} s per point",
        }
