"""A function with its parameters: what a run differentiates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigurationError, FunctionError
from pipeline.functions.files_read import files_read
from pipeline.functions.record import AnySize, Function
from pipeline.functions.structure import Shape, Structure

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.functions.outputs import Chosen


@dataclass(frozen=True)
class BoundFunction:
    """A function with its parameters: what a run differentiates.

    Attributes:
        function: The record of the plugin.
        parameters: All of its parameters.
        n: Number of inputs.
        output_shape: () or (m,).
        source_digest: SHA-256 of what defines it.
        loadable: A plugin contributes it under its name, so that a result can be checked later.
        chosen: Which outputs are kept, `pipeline.functions.outputs`; None for all.
    """

    function: Function
    parameters: Mapping[str, Any]
    n: int
    output_shape: Shape
    source_digest: str
    loadable: bool = True
    chosen: Chosen | None = None

    @property
    def inputs(self) -> Structure | None:
        """How a point is taken apart; None where f takes the point itself."""
        shapes = self.function.inputs
        return None if shapes is None else Structure.of(shapes)

    @property
    def outputs(self) -> Structure | None:
        """How a value is taken apart; None where f returns () or (m,)."""
        return (
            self._all_outputs if self.chosen is None else self.chosen.structure(self._all_outputs)
        )

    @property
    def _all_outputs(self) -> Structure | None:
        structure = self.function.outputs(self.n, **self.parameters)
        return None if structure.is_flat else structure

    @property
    def structure(self) -> dict[str, Any]:
        """Both, as plain values; nothing of what is flat."""
        both = {"inputs": self.inputs, "outputs": self.outputs}
        return {kind: structure.record() for kind, structure in both.items() if structure}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Name of each input: those of the record, or of the entries of its tensors."""
        if self.inputs is None or self.function.input_names:
            return tuple(self.function.input_names)
        return self.inputs.labels("x")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each output, likewise."""
        names, structure = tuple(self.function.output_names), self._all_outputs
        if structure is not None and not names:
            names = structure.labels("y")
        return names if self.chosen is None else self.chosen.labels(names)

    @cached_property
    def f(self) -> Callable[[Tensor], Tensor]:
        """The callable itself, built once.

        Raises:
            FunctionError: The builder refuses the parameters.
        """
        with self.function.explained("build", self.parameters):
            return self.function.build(**self.parameters)


def bind_function(
    function: Function, parameters: Mapping[str, Any], n: int, loadable: bool = True
) -> BoundFunction:
    """Fix the parameters and the size of a function, and build it.

    Args:
        function: The record of the plugin.
        parameters: All of its parameters, checked.
        n: Number of inputs.
        loadable: A plugin contributes it under its name.

    Returns:
        What a run differentiates.

    Raises:
        ConfigurationError: The function does not take n inputs.
        FunctionError: Its builder raises, or builds no function.
    """
    with files_read() as read:
        _require_size(function, function.sizes(**parameters), n)
        shape = function.shape(n, **parameters)
        with function.explained("build", parameters):
            f = function.build(**parameters)
    if not callable(f):
        raise FunctionError(
            f"function {function.name!r}: its build has to return the function of one point, got {f!r}"
        )
    bound = BoundFunction(function, parameters, n, shape, function.source_digest(read), loadable)
    bound.__dict__["f"] = f  # what has been built already
    return bound


def _require_size(function: Function, sizes: int | AnySize, n: int) -> None:
    if isinstance(sizes, AnySize) and not sizes.fits(n):
        raise ConfigurationError(
            [f"function {function.name!r} needs {sizes}; the points have n = {n}"]
        )
    if isinstance(sizes, int) and sizes != n:
        raise ConfigurationError(
            [f"function {function.name!r} takes n = {sizes} inputs; the points have n = {n}"]
        )
