"""Some outputs of a vector function: which rows of its derivatives are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import ConfigurationError, FunctionError, nearest
from pipeline.functions.bound import BoundFunction
from pipeline.functions.structure import Structure

Asked = str | int | Sequence[str | int]


@dataclass(frozen=True)
class Chosen:
    """Some entries of what a function returns.

    Attributes:
        indices: Which, in the order of the results; each once.
        size: m, the number of all.
    """

    indices: tuple[int, ...]
    size: int

    def of(self, row: Any) -> Any:
        """Take them.

        Args:
            row: (m,).

        Returns:
            (len(indices),).

        Raises:
            FunctionError: It has another shape.
        """
        if tuple(row.shape) != (self.size,):
            raise FunctionError(
                f"outputs were chosen of {self.size}, and the function returns shape "
                f"{tuple(row.shape)}; correct its output_shape"
            )
        return row[list(self.indices)]

    def structure(self, outputs: Structure | None) -> Structure | None:
        """Say how the chosen entries are taken apart.

        Args:
            outputs: How all are; None where they are flat.

        Returns:
            Those tensors that were chosen, if each was chosen whole; else None.
        """
        if outputs is None:
            return None
        index, shapes = list(range(outputs.size)), dict(outputs.parts)
        whole = {name: index[place] for name, place in outputs.places().items()}
        found = [name for name, part in whole.items() if set(part) & set(self.indices)]
        found.sort(key=lambda name: min(map(self._place, whole[name])))
        flat = tuple(entry for name in found for entry in whole[name])
        if flat != self.indices:
            return None
        return Structure(tuple((name, shapes[name]) for name in found))

    def _place(self, entry: int) -> int:
        return self.indices.index(entry) if entry in self.indices else self.size

    def labels(self, names: Sequence[str]) -> tuple[str, ...]:
        """Name the chosen entries.

        Args:
            names: Names of all, or nothing: then they are called y[0], y[1], ….

        Returns:
            As many names as were chosen.
        """
        known = names or Structure.of((self.size,)).labels("y")
        return tuple(known[index] for index in self.indices)


def choose_outputs(function: BoundFunction, asked: Asked | None) -> BoundFunction:
    """Keep some outputs of a function, so that everything behind knows no others.

    Args:
        function: A function of (m,).
        asked: Indices from -m to m - 1, or names; the name of a tensor stands for all of its
            entries. None keeps everything.

    Returns:
        The function of these outputs, in the order in which they were asked for: (k,), and (1,)
        for a single one.

    Raises:
        ConfigurationError: There are no such outputs; lists every fault.
    """
    if asked is None:
        return function
    items = [asked] if isinstance(asked, str | int) else list(asked)
    if not function.output_shape:
        raise ConfigurationError(
            [f"outputs={items}: function {function.function.name!r} returns a scalar; leave it out"]
        )
    (size,), names, faults = function.output_shape, function.output_names, list[str]()
    indices = [index for item in items for index in _found(item, size, names, faults)]
    twice = sorted({index for index in indices if indices.count(index) > 1})
    faults += [f"outputs: expected each output once, got {index} again" for index in twice]
    if not items:
        faults.append("outputs: expected some outputs, got none; leave it out for all of them")
    if faults:
        raise ConfigurationError(faults)
    if indices == list(range(size)):
        return function
    chosen = replace(function, chosen=Chosen(tuple(indices), size), output_shape=(len(indices),))
    chosen.__dict__.update({name: f for name, f in vars(function).items() if name == "f"})
    return chosen


def _found(item: str | int, size: int, names: Sequence[str], faults: list[str]) -> list[int]:
    """The outputs of an index, of a name, or of the name of a tensor of which they are entries."""
    if isinstance(item, str):
        found = [i for i, name in enumerate(names) if name == item or name.startswith(f"{item}[")]
        if not found:
            hint = nearest(item, names) if names else "The function names none; give indices"
            faults.append(f"outputs: nothing is called {item!r}. {hint}")
        return found
    if not -size <= item < size:
        faults.append(f"outputs: expected the index of an output from 0 to {size - 1}, got {item}")
        return []
    return [item % size]
