"""Derivatives at the points of a batch, with a verdict on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.errors import FunctionError

OK, NONFINITE, FAILED, NONSMOOTH = 1, 2, 3, 4


@dataclass(frozen=True)
class Evaluated:
    """Derivatives at B points, with a verdict on each.

    Attributes:
        datasets: Name of the dataset -> (B, …).
        status: uint8 (B,): 1 ok, 2 not finite, 3 the function raised, 4 at a kink of the function.
        failures: Index in the batch -> what the function said.
        suspects: Index in the batch -> its results with all their repetitions, where these differ
            by more than rounding usually does and are left out of the datasets.
    """

    datasets: Mapping[str, Tensor]
    status: Tensor
    failures: Mapping[int, str]
    suspects: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)

    def settle(self, on_point_error: str, start: int) -> None:
        """Stop where the function raised, or let the point be flagged.

        Args:
            on_point_error: flag or stop.
            start: Index of the first point of the batch.

        Raises:
            FunctionError: It raised, and that is not let pass.
        """
        if on_point_error == "stop" and self.failures:
            row, reason = next(iter(self.failures.items()))
            raise FunctionError(
                f"the function raised at point {start + row}: {reason}; finished shards are safe. "
                "on_point_error=flag flags such points and goes on"
            )


def status_of(datasets: Mapping[str, Tensor]) -> Tensor:
    """Tell whether every entry at a point is finite: dataset -> (B, …), uint8 (B,) comes back."""
    first = next(iter(datasets.values()))
    finite = torch.ones(len(first), dtype=torch.bool, device=first.device)
    for tensor in datasets.values():
        # a finite sum has finite terms only: one fast pass where, as nearly always, all is well
        if tensor.device.type == "cpu" and bool(tensor.sum().isfinite()):
            continue
        # no mask of the whole tensor: extremes of finite numbers are finite
        low, high = tensor.reshape(len(tensor), -1).aminmax(dim=1)
        finite &= low.isfinite() & high.isfinite()
    return torch.where(finite, OK, NONFINITE).to(torch.uint8)


def joined(first: Evaluated, second: Evaluated, middle: int) -> Evaluated:
    """Put two parts of a batch together, of which the second begins at row `middle`."""
    datasets = {
        name: torch.cat([part, second.datasets[name]]) for name, part in first.datasets.items()
    }
    failures = {index + middle: reason for index, reason in second.failures.items()}
    suspects = {index + middle: levels for index, levels in second.suspects.items()}
    return Evaluated(
        datasets,
        torch.cat([first.status, second.status]),
        {**first.failures, **failures},
        {**first.suspects, **suspects},
    )
