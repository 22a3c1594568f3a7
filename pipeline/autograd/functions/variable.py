"""What a function is differentiated with respect to: the point, some of its columns, or parameters.

A function maps one row of the points, (d,), to its value. What it is differentiated at is a
tensor z of n entries that belongs to the row: the row itself, some of its columns while the others
are held, or the parameters of a module while the whole row is held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.functions.module_function import ModuleFunction
from pipeline.errors import ConfigurationError, nearest
from pipeline.functions.structure import Structure

OnPoint = Callable[[Tensor], Tensor]
Wrt = str | int | Sequence[str | int]


class Variable(ABC):
    """What a function is differentiated with respect to; every subclass is final.

    Laws: with ``g, z = variable.at(f, point)``

        - ``z`` has shape (``size(d)``,), and the dtype and device of the point, (d,);
        - ``g(z)`` equals ``f(point)``;
        - both can be taken under `torch.func.vmap` over points.
    """

    @abstractmethod
    def size(self, columns: int) -> int:
        """Number n of variables for points of so many columns."""

    @abstractmethod
    def at(self, f: OnPoint, point: Tensor) -> tuple[OnPoint, Tensor]:
        """Give the function of z and the z that belong to a point.

        Args:
            f: Maps one point (d,) to any shape.
            point: (d,).

        Returns:
            g, which maps (n,) to what f returns, and z, (n,).
        """

    @abstractmethod
    def spec(self) -> list[str | int] | None:
        """What `resolve_variable` makes this of again: part of the identity of a run."""

    def structure(self, inputs: Structure | None) -> Structure | None:
        """How the variables are taken apart, where they are not the whole point and not flat.

        Args:
            inputs: How a point is taken apart; None where it is flat.

        Returns:
            Tensors whose entries they are; None where they are no whole tensors.
        """
        return None

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Name of every variable, where there are names.

        Args:
            columns: Name of every column of the points, or nothing.

        Returns:
            n names, or nothing.
        """
        return tuple(columns)


class WholePoint(Variable):
    """All columns of the point."""

    def size(self, columns: int) -> int:
        """All of them."""
        return columns

    def at(self, f: OnPoint, point: Tensor) -> tuple[OnPoint, Tensor]:
        """The function and the point as they are."""
        return f, point

    def spec(self) -> None:
        """Nothing: this is what is differentiated unless something else is said."""


WHOLE = WholePoint()


@dataclass(frozen=True)
class Columns(Variable):
    """Some columns of the point; the others are held.

    Attributes:
        indices: Which, in the order of the derivatives; each once.
    """

    indices: tuple[int, ...]

    def size(self, columns: int) -> int:
        """As many as were chosen."""
        return len(self.indices)

    def at(self, f: OnPoint, point: Tensor) -> tuple[OnPoint, Tensor]:
        """Put z in the place of the chosen columns."""
        n, d = len(self.indices), len(point)
        place = {column: entry for entry, column in enumerate(self.indices)}
        source = [place.get(column, n + column) for column in range(d)]
        chosen, order = (torch.tensor(each, device=point.device) for each in (self.indices, source))
        return (lambda z: f(torch.cat([z, point])[order])), point[chosen]

    def spec(self) -> list[str | int]:
        """The indices."""
        return list(self.indices)

    def structure(self, inputs: Structure | None) -> Structure | None:
        """Those tensors of the point that were chosen, if each was chosen whole."""
        if inputs is None:
            return None
        index = list(range(inputs.size))
        columns = {name: index[place] for name, place in inputs.places().items()}
        chosen = {name: min(map(self._place, part)) for name, part in columns.items() if part}
        order = sorted((place, name) for name, place in chosen.items() if place < len(self.indices))
        parts = tuple((name, dict(inputs.parts)[name]) for _, name in order)
        flat = tuple(column for _, name in order for column in columns[name])
        return Structure(parts) if flat == self.indices else None

    def _place(self, column: int) -> int:
        return self.indices.index(column) if column in self.indices else len(self.indices)

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Those of the chosen columns; ``x[2]`` where they have none."""
        return tuple(columns[index] if columns else f"x[{index}]" for index in self.indices)


@dataclass(frozen=True)
class Beside(Variable):
    """A variable of a point that has further columns behind it, which are no part of it.

    Attributes:
        inner: The variable.
        columns: d, the number of columns of the point itself.
    """

    inner: Variable
    columns: int

    def size(self, columns: int) -> int:
        """That of the variable, whatever stands behind the point."""
        return self.inner.size(self.columns)

    def at(self, f: OnPoint, point: Tensor) -> tuple[OnPoint, Tensor]:
        """Leave out what stands behind the point."""
        return self.inner.at(f, point[: self.columns])

    def spec(self) -> list[str | int] | None:
        """That of the variable."""
        return self.inner.spec()

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Those of the variable."""
        return self.inner.names(columns)


@dataclass(frozen=True, eq=False)
class Parameters(Variable):
    """Parameters of a module, flattened and concatenated; the whole point is held.

    Attributes:
        function: The module as a function.
        chosen: Names of the parameters, in the order of the derivatives.
    """

    function: ModuleFunction
    chosen: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter, in the order of the derivatives."""
        known = self.function.parameters
        return {name: tuple(known[name].shape) for name in self.chosen}

    def size(self, columns: int) -> int:
        """Number of their entries."""
        known = self.function.parameters
        return sum(known[name].numel() for name in self.chosen)

    def at(self, f: OnPoint, point: Tensor) -> tuple[OnPoint, Tensor]:
        """The module with z in the place of its parameters, which are z at every point."""
        here = self.function.tensors(point.dtype, point.device)
        z = torch.cat([here[name].reshape(-1) for name in self.chosen])
        return (lambda z: self.function.call(point, self._unflatten(z))), z

    def structure(self, inputs: Structure | None) -> Structure | None:
        """The parameters."""
        return Structure.of(self.shapes)

    def spec(self) -> list[str | int]:
        """The names."""
        return list(self.chosen)

    def _unflatten(self, z: Tensor) -> dict[str, Tensor]:
        shapes = self.shapes
        sizes = [self.function.parameters[name].numel() for name in shapes]
        parts = zip(shapes.items(), torch.split(z, sizes), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in parts}

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Name of every entry, e.g. ``0.weight[1,2]``."""
        return Structure.of(self.shapes).labels("")


def resolve_variable(
    wrt: Wrt | None, f: object, columns: int, names: Sequence[str] = ()
) -> Variable:
    """Find what a user wants to differentiate with respect to.

    Args:
        wrt: Nothing or ``inputs`` for all columns of the points; ``parameters`` for all parameters of
            a module; or some of these by name or, for columns, by index. The name of a part of a
            module stands for all parameters in it.
        f: The function.
        columns: d, the number of columns of the points.
        names: Name of every column, where they have names.

    Returns:
        The variable.

    Raises:
        ConfigurationError: There is nothing of this name.
    """
    if wrt is None or wrt == "inputs":
        return WHOLE
    asked = [wrt] if isinstance(wrt, str | int) else list(wrt)
    parameters = f.parameters if isinstance(f, ModuleFunction) else {}
    if asked == ["parameters"]:
        _require(parameters, "'parameters'", names)
        return Parameters(f, tuple(parameters))  # type: ignore[arg-type]
    found = [_found(item, columns, names) for item in asked]
    if all(found):
        return _columns([index for indices in found for index in indices], columns)
    chosen = [name for item in asked for name in _inside(item, parameters, names)]
    return Parameters(f, tuple(dict.fromkeys(chosen)))  # type: ignore[arg-type]


def _columns(indices: list[int], columns: int) -> Variable:
    if not indices or len(set(indices)) < len(indices):
        raise ConfigurationError(
            [f"wrt: expected some columns of the points, each once, got {indices}"]
        )
    return WHOLE if indices == list(range(columns)) else Columns(tuple(indices))


def _found(item: str | int, columns: int, names: Sequence[str]) -> list[int]:
    """The columns of an index, of a name, or of the name of a tensor of which they are entries."""
    if isinstance(item, str):
        return [i for i, name in enumerate(names) if name == item or name.startswith(f"{item}[")]
    if not -columns <= item < columns:
        raise ConfigurationError(
            [f"wrt: expected the index of a column from 0 to {columns - 1}, got {item}"]
        )
    return [item % columns]


def _inside(item: str | int, parameters: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    found = [name for name in parameters if name == item or name.startswith(f"{item}.")]
    if not found:
        known = ["inputs", *names, *(["parameters", *parameters] if parameters else [])]
        raise ConfigurationError([f"wrt: nothing is called {item!r}. {nearest(str(item), known)}"])
    return found


def _require(parameters: Mapping[str, Tensor], item: str, names: Sequence[str]) -> None:
    if not parameters:
        raise ConfigurationError(
            [
                f"wrt={item} needs a module with parameters; give the torch.nn.Module itself, or "
                "pipeline.module_function(module, call=...) where it is called in another way"
            ]
        )
