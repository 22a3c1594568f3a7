"""Compares rows that have just been computed with the reference: evidence from every shard."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from pipeline.autograd.checks.certificate import Certificate
from pipeline.autograd.checks.oracle import build_oracle
from pipeline.autograd.operators import Operator, asking
from pipeline.autograd.request import Request
from pipeline.errors import DisagreementError, FunctionError

log = logging.getLogger(__name__)
SLACK = 10.0  # in units of the planner's tolerance: a row at random must not stop a job by rounding


@dataclass(frozen=True)
class SpotCheck:
    """How a computed row compares with the reference.

    Attributes:
        error: Dataset -> normwise error along random directions; empty where nothing was compared.
        disagreements: What is wrong, a sentence each.
    """

    error: Mapping[str, float]
    disagreements: tuple[str, ...]

    def settle(self, on_disagreement: str, where: str) -> None:
        """Stop at a disagreement, or say it and let it pass.

        Args:
            on_disagreement: error or warn.
            where: Which points, for the message.

        Raises:
            DisagreementError: There is one, and it does not pass.
        """
        for reason in self.disagreements:
            if on_disagreement == "error":
                raise DisagreementError(
                    f"{where}: {reason}; what was finished before is safe, this is not kept. Look for "
                    "randomness or state in the function; on_disagreement=warn goes on all the same"
                )
            log.warning("disagreement let pass: %s: %s", where, reason)

    def added_to(self, certificate: Certificate) -> Certificate:
        """Give the certificate with this evidence added."""
        if not self.error:
            return certificate
        known = certificate.rows_error
        return replace(
            certificate,
            rows_checked=certificate.rows_checked + 1,
            rows_error={
                name: max(error, known.get(name, 0.0)) for name, error in self.error.items()
            },
            disagreements=(*certificate.disagreements, *self.disagreements),
        )


UNCHECKED = SpotCheck({}, ())


def spot_check(
    request: Request,
    operators: tuple[Operator, ...],
    point: Tensor,
    row: Mapping[str, Tensor],
    seed: int,
) -> SpotCheck:
    """Compare one row with the reference along random directions.

    Args:
        request: What is evaluated.
        operators: What the row holds.
        point: (n,).
        row: Dataset -> its derivative there, without a batch dimension.
        seed: Of the directions.

    Returns:
        The outcome.
    """
    request = asking(request, operators)
    try:
        oracle = build_oracle(request, point[None], seed)
    except FunctionError as error:
        unknown = {operator.name: float("inf") for operator in operators}
        return SpotCheck(unknown, (str(error),))
    by_key = {item.key: request.comparable(row[item.dataset][None], item.key) for item in operators}
    deviations = oracle.compare([by_key[key] for key in request.keys])
    seen = {operator.name: deviations[operator.key] for operator in operators}
    wrong = tuple(
        f"{name} differs from the reference by {deviation.error:.1e} relative"
        for name, deviation in seen.items()
        if not deviation.excess <= SLACK
    )
    return SpotCheck({name: deviation.error for name, deviation in seen.items()}, wrong)
