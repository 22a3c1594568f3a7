"""Evidence: what the numbers were compared with, and how well they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.display import aligned, card, evidence


@dataclass(frozen=True)
class Certificate:
    """The evidence for the numbers of one evaluator.

    Errors are normwise per point, max|A - R| / max|R|, the worst over the points checked; where R
    is itself only rounding (a gradient at a minimum), they are relative to how R changes with x.

    Attributes:
        route: Route that was certified.
        mode: Its mode.
        points_checked: Points of the job's own grid that were compared with the reference.
        widths_checked: Batch sizes at which they were compared.
        reference: What the reference is.
        reference_error: Dataset -> error against the reference.
        rounding_error: Error of the reference itself at the job's precision.
        symmetry_residual: max|H - H^T| / max|H| over pairs of inputs; None below order 2.
        forward_reverse_residual: Difference of forward and reverse mode, pure at every level, near
            the points; None where there is no forward mode.
        finite_difference_residual: Difference of automatic derivatives and extrapolated central
            differences along random directions near the points; None where none converged.
        finite_difference_checks: How many of these could be made.
        unchecked: What could not be checked, and why.
        disagreements: What was found and let pass by on_disagreement=warn.
        rows_checked: Rows that were compared with the reference after they had been computed.
        rows_error: Dataset -> their worst error, along random directions.
        estimated_error: Dataset -> error that finite differences estimate of themselves, relative to
            the largest entry, where derivatives are evaluated by these.
    """

    route: str
    mode: str
    points_checked: int
    widths_checked: tuple[int, ...]
    reference: str
    reference_error: Mapping[str, float]
    rounding_error: float | None
    symmetry_residual: float | None
    forward_reverse_residual: float | None
    finite_difference_residual: float | None
    finite_difference_checks: int
    unchecked: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()
    rows_checked: int = 0
    rows_error: Mapping[str, float] = field(default_factory=dict)
    estimated_error: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The certificate as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(["certificate", *aligned(list(evidence(self.record())))])

    def _repr_html_(self) -> str:
        return card("Certificate", evidence(self.record()))
