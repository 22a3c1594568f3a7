"""Consecutive points of a job, batch by batch: evaluated, settled, and compared with the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.autograd.checks.certificate import Certificate
from pipeline.autograd.evaluated import Evaluated
from pipeline.autograd.evaluator import Evaluator
from pipeline.job import Options


@dataclass
class Batches:
    """What comes up while points are evaluated batch by batch.

    Attributes:
        evaluator: How they are evaluated.
        options: What becomes of a disagreement, and of a point at which the function raises.
        failures: Index of a point -> what the function said there.
        certificate: That of the evaluator, with the evidence of the rows that were compared.
    """

    evaluator: Evaluator
    options: Options
    failures: dict[int, str] = field(default_factory=dict)
    certificate: Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.certificate = self.evaluator.certificate

    def over(
        self, points: Callable[[int, int], Tensor], start: int, stop: int, checked: int
    ) -> Iterator[tuple[slice, Tensor, Evaluated]]:
        """Evaluate the points start … stop - 1.

        Args:
            points: ``points(low, high)`` gives the points low … high - 1, (B, d), on the device.
            start: Index of the first one.
            stop: Index after the last one.
            checked: Which of them is compared with the reference, once its batch was taken.

        Yields:
            Which points, their rows (B, d), and what came out.
        """
        size = self.evaluator.plan.batch
        for low in range(start, stop, size):
            high = min(low + size, stop)
            rows = points(low, high)
            found = self.evaluator.guarded(rows)
            found.settle(self.options.on_point_error, low)
            self.failures.update({low + row: reason for row, reason in found.failures.items()})
            yield slice(low, high), rows, found
            row = checked - low if low <= checked < high else None
            for check in self.evaluator.checks(rows, found, row):
                check.settle(self.options.on_disagreement, f"points {low} to {high - 1}")
                self.certificate = check.added_to(self.certificate)
