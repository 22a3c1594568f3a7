"""Leaves out the repetitions of symmetric results, and looks first whether they are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pipeline.autograd.checks.spot_check import SpotCheck, spot_check
from pipeline.autograd.operators import Operator
from pipeline.autograd.packing import asymmetry
from pipeline.autograd.request import Request


@dataclass(frozen=True)
class Packed:
    """Results of a batch without their repetitions.

    Attributes:
        datasets: Dataset -> (B, …).
        suspects: Index in the batch -> dataset -> all entries of this row, (…): the least symmetric
            row of each dataset, where it is less so than rounding usually leaves it.
    """

    datasets: dict[str, Tensor]
    suspects: dict[int, dict[str, Tensor]]


def pack_symmetric(
    request: Request, operators: tuple[Operator, ...], datasets: Mapping[str, Tensor]
) -> Packed:
    """Leave out the repetitions of a batch.

    Args:
        request: What is evaluated.
        operators: What the datasets hold.
        datasets: Dataset -> (B, …), some of them without repetitions already.

    Returns:
        What is kept.
    """
    kept, suspects = dict[str, Tensor](), dict[int, dict[str, Tensor]]()
    for operator in operators:
        level = datasets[operator.dataset]
        kept[operator.dataset] = request.keep(level, operator.key)
        if operator.sparse:
            continue
        if kept[operator.dataset] is level or level.numel() == 0:
            continue
        residuals = asymmetry(level, operator.order).nan_to_num(0.0)
        worst = int(residuals.argmax())
        if float(residuals[worst]) > request.precision.tolerance:
            suspects.setdefault(worst, {})[operator.dataset] = level[worst].clone()
    return Packed(kept, suspects)


def check_symmetry(
    request: Request, operators: tuple[Operator, ...], point: Tensor, levels: Mapping[str, Tensor]
) -> SpotCheck:
    """Compare a row with the reference after its neighbouring indices have been exchanged.

    Rounding may leave much asymmetry in what cancels to nearly nothing; the reference knows how
    much there may be.

    Args:
        request: What is evaluated.
        operators: What was evaluated.
        point: (n,).
        levels: Dataset -> all entries there, (…).

    Returns:
        The outcome.
    """
    disagreements, errors = list[str](), dict[str, float]()
    for operator in operators:
        if operator.dataset not in levels:
            continue
        for axis in range(1, operator.order):
            turned = levels[operator.dataset].transpose(-axis, -axis - 1)
            check = spot_check(request, (operator,), point, {operator.dataset: turned}, seed=axis)
            errors[operator.name] = max(errors.get(operator.name, 0.0), *check.error.values())
            disagreements += [
                f"{operator.name} is not symmetric: exchanged, {reason}"
                for reason in check.disagreements
            ]
    return SpotCheck(errors, tuple(disagreements))
