"""What a plugin contributes: a kind of grid, and what a grid has to cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.functions.parameters import Parameter, parameters_of
from pipeline.functions.record import AnySize, Bound

if TYPE_CHECKING:
    from pipeline.grids.base import Grid


@dataclass(frozen=True)
class Space:
    """What a grid has to cover: the inputs of one function.

    Attributes:
        n: Number of inputs, or `AnySize` while the grid may still choose it.
        lower: Lower end of the function's domain.
        upper: Upper end of the function's domain.
        seed: Seed of everything random in the run.
    """

    n: int | AnySize
    lower: Bound = -1.0
    upper: Bound = 1.0
    seed: int = 0


@dataclass(frozen=True)
class GridKind:
    """A kind of grid that can be asked for: what a plugin contributes.

    Attributes:
        name: What the user types: ``grid=<name>`` or ``grid.name=<name>``.
        build: ``build(space, /, **options) -> Grid``; its signature is the schema of ``grid.*``.
        summary: One line for listings.
    """

    name: str
    build: Callable[..., Grid]
    summary: str = ""

    @property
    def options(self) -> dict[str, Parameter]:
        """The typed options, read from the signature of `build`."""
        return parameters_of(self.build, f"grid {self.name!r}")

    def check(self) -> None:
        """Read everything that can be wrong in the record itself: the types of its options."""
        _ = self.options
