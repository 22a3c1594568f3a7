"""Half precision: a function is evaluated in float16 or bfloat16, and what comes out is kept wider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pipeline.autograd.functions.variable import OnPoint, Parameters, Variable
from pipeline.errors import ConfigurationError
from pipeline.functions.structure import Structure


@dataclass(frozen=True)
class Precision:
    """In which precision a function is evaluated, and in which points and derivatives are kept.

    Attributes:
        evaluated: Of the evaluation.
        kept: The same, or float32 where the evaluation is in half precision, which few readers know.
        tolerance: Largest normwise error that is no disagreement.
        roundings: Units of rounding that a derivative may be off by, relative to its condition.
    """

    evaluated: torch.dtype
    kept: torch.dtype
    tolerance: float
    roundings: int = 64

    @property
    def is_half(self) -> bool:
        """Whether less is evaluated than is kept."""
        return self.evaluated != self.kept

    @property
    def epsilon(self) -> float:
        """Unit of rounding of the evaluation."""
        return torch.finfo(self.evaluated).eps

    @property
    def name(self) -> str:
        """As the user says it."""
        return str(self.evaluated).removeprefix("torch.")

    @property
    def kept_name(self) -> str:
        """As a file says it."""
        return str(self.kept).removeprefix("torch.")

    def points(self, rows: Tensor, device: torch.device) -> Tensor:
        """Give points on a device: exactly those at which the function will be evaluated.

        Args:
            rows: (B, d), of any precision.
            device: Where.

        Returns:
            (B, d) in the precision that is kept.
        """
        return self.rounded(rows).to(device, self.kept)

    def rounded(self, rows: Tensor) -> Tensor:
        """Round points to what half precision can represent, (B, d), of the same dtype; others stay."""
        return rows.to(self.evaluated).to(rows.dtype) if self.is_half else rows

    def function(self, f: OnPoint) -> OnPoint:
        """Give a function that takes and returns what is kept, and is evaluated as it should be.

        Args:
            f: Maps one point (d,) to a tensor.

        Returns:
            The same for points of the precision that is kept. At points that are more precise, which
            the oracles ask about, it is evaluated as precisely as these.
        """
        return partial(_narrowly, f, self) if self.is_half else f

    def variable(self, variable: Variable) -> Variable:
        """Give what is differentiated: parameters in half precision as well, kept wider."""
        narrow = self.is_half and isinstance(variable, Parameters)
        return NarrowParameters(variable, self) if narrow else variable


PRECISIONS = {
    each.name: each
    for each in (
        Precision(torch.float64, torch.float64, 1e-9),
        Precision(torch.float32, torch.float32, 1e-4),
        # torch sums in float32: a few roundings, which are a tenth of the number in bfloat16
        Precision(torch.float16, torch.float32, 2.0**-6, 8),
        Precision(torch.bfloat16, torch.float32, 2.0**-4, 8),
    )
}
FLOAT64 = PRECISIONS["float64"]


def resolve_precision(name: str) -> Precision:
    """Find the precision that a user names.

    Args:
        name: float64, float32, float16 or bfloat16.

    Returns:
        The precision.

    Raises:
        ConfigurationError: It is another one.
    """
    if name not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ConfigurationError([f"dtype {name!r} cannot be used: expected one of {known}"])
    return PRECISIONS[name]


def precision_of(points: Tensor) -> Precision:
    """The precision in which points are evaluated unless another is asked for."""
    return resolve_precision(str(points.dtype).removeprefix("torch."))


@dataclass(frozen=True, eq=False)
class NarrowParameters(Variable):
    """Parameters of a module that is evaluated in half precision.

    Attributes:
        inner: The parameters.
        precision: Of the evaluation.
    """

    inner: Variable
    precision: Precision

    def size(self, columns: int) -> int:
        """Number of their entries."""
        return self.inner.size(columns)

    def at(self, f: OnPoint, point: Tensor) -> tuple[OnPoint, Tensor]:
        """The module in half precision, its parameters rounded to it; at a more precise point, in that."""
        if point.dtype != self.precision.kept:
            return self.inner.at(f, point)
        g, z = self.inner.at(f, point.to(self.precision.evaluated))
        return self.precision.function(g), z.to(point.dtype)

    def structure(self, inputs: Structure | None) -> Structure | None:
        """The parameters."""
        return self.inner.structure(inputs)

    def spec(self) -> list[str | int] | None:
        """The names."""
        return self.inner.spec()

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Name of every entry."""
        return self.inner.names(columns)


def _narrowly(f: Callable[[Tensor], Tensor], precision: Precision, x: Tensor) -> Tensor:
    if x.dtype != precision.kept:
        return f(x)
    y = f(x.to(precision.evaluated))
    if isinstance(y, Tensor) and y.dtype == precision.evaluated:
        return y.to(precision.kept)
    return y  # what is wrong with it is said by the probe
