"""Where tensors of any shape become a row, and what a function returns becomes a row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.functions.module_function import Call, ModuleFunction, as_function
from pipeline.errors import FunctionError, GridError
from pipeline.functions.bound import BoundFunction
from pipeline.functions.outputs import Chosen
from pipeline.functions.structure import Structure


def going_on(f: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """Call a function that may end the program, as old code does where an input makes no sense.

    Args:
        f: The function.
        *inputs: What it takes.
        **named: What it takes by keyword.

    Returns:
        Whatever it returns.

    Raises:
        FunctionError: It asked for the end of the program.
    """
    try:
        return f(*inputs, **named)
    except SystemExit as stop:
        raise FunctionError(
            f"the function ends the program, sys.exit({stop.code!r}); let it raise ValueError or the like"
        ) from stop


@dataclass(frozen=True)
class Border:
    """How a function is called with a row.

    Attributes:
        inputs: How the row is taken apart: one tensor is given as it is, several by keyword. None:
            the function takes the row itself.
        call: How a module is called, ``call(module, …)``; None: like a function.
        chosen: Which entries of the result are kept; None for all.
    """

    inputs: Structure | None
    call: Call | None = None
    chosen: Chosen | None = None

    def raw(self, f: Callable[..., Any], row: Tensor) -> Any:
        """Call it.

        Args:
            f: The function, or the module.
            row: (d,).

        Returns:
            Whatever it returns.
        """
        f = f if self.call is None else functools.partial(self.call, f)
        if self.inputs is None:
            return going_on(f, row)
        parts = self.inputs.split(row)
        return going_on(f, parts[""]) if list(parts) == [""] else going_on(f, **parts)

    def __call__(self, f: Callable[..., Any], row: Tensor) -> Tensor:
        """Call it, and put everything that it returns into a row, () or (m,)."""
        value = flatten(self.raw(f, row))
        return value if self.chosen is None else self.chosen.of(value)


def at_border(
    f: Callable[..., Any], inputs: Structure | None, chosen: Chosen | None = None
) -> Callable[[Tensor], Tensor]:
    """Take any callable as a function of rows; a module stays one, with its parameters.

    Args:
        f: Takes one tensor or several by keyword; returns a tensor, or a mapping, sequence or dataclass of these.
        inputs: How a row is taken apart; None where f takes the row itself.
        chosen: Which entries of the result are kept; None for all.

    Returns:
        A function from (d,) to () or (m,).
    """
    if isinstance(f, ModuleFunction):
        return ModuleFunction(f.module, Border(inputs, f.call_by, chosen))
    if isinstance(f, torch.nn.Module) and not isinstance(f, torch.jit.ScriptModule):
        return ModuleFunction(f, Border(inputs, None, chosen))
    return functools.partial(Border(inputs, None, chosen), f)


def callable_of(function: BoundFunction) -> Callable[[Tensor], Tensor]:
    """Build the function of rows that a record stands for.

    Args:
        function: The record, with its parameters.

    Returns:
        A function from (d,) to () or (m,).
    """
    if function.inputs is None and function.outputs is None and function.chosen is None:
        f = as_function(function.f)
        return f if isinstance(f, ModuleFunction) else functools.partial(going_on, f)
    return at_border(function.f, function.inputs, function.chosen)


def flat_points(points: Any) -> tuple[Any, Structure | None]:
    """Put points of any shape into rows.

    Args:
        points: (N, …) of more than two dimensions, or a mapping of tensors or arrays (N, …).

    Returns:
        Points (N, d), and how a row is taken apart; everything else as it is, and None.

    Raises:
        GridError: The tensors have different numbers of points, or no names.
    """
    if isinstance(points, (tuple, list)) and any(getattr(part, "ndim", 0) > 1 for part in points):
        raise GridError(
            "points: several inputs are given by name, as {'a': (N, …), 'b': (N, …)}, got a "
            f"{type(points).__name__} of {len(points)} arrays; the points of one input are stacked"
        )
    if isinstance(points, Mapping):
        tensors = {str(name): torch.as_tensor(part) for name, part in points.items()}
        counts = {name: tuple(part.shape[:1]) for name, part in tensors.items()}
        if len(set(counts.values())) != 1 or () in counts.values():
            raise GridError(
                f"points: expected tensors (N, …) with the same N, got {_shapes(tensors)}"
            )
        rows = torch.cat([part.reshape(len(part), -1) for part in tensors.values()], dim=1)
        return rows, Structure.of({name: part.shape[1:] for name, part in tensors.items()})
    if getattr(points, "ndim", 2) > 2:
        return points.reshape(len(points), -1), Structure.of(tuple(points.shape[1:]))
    return points, None


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name}: {tuple(part.shape)}" for name, part in tensors.items())


def returned(f: Callable[..., Any], points: Tensor, inputs: Structure | None) -> Structure | None:
    """Find out what a function returns, at the first point where it can be evaluated.

    Args:
        f: The function.
        points: (P, d).
        inputs: How a row is taken apart.

    Returns:
        How a row of results is taken apart; None where that is what it returns, or nothing is known.
    """
    border = Border(inputs, f.call_by if isinstance(f, ModuleFunction) else None)
    for point in points:
        target = f.at(point) if isinstance(f, ModuleFunction) else f
        try:
            with torch.no_grad():
                value = border.raw(target, point.clone())
        except Exception:  # it may raise at some points; those who probe it say so
            continue
        return structure_of(value)
    return None


def structure_of(value: Any) -> Structure | None:
    """Say what a function returned.

    Args:
        value: Whatever it returned.

    Returns:
        How a row is taken apart to be that again; None where a row is that.
    """
    if isinstance(value, Tensor):
        return Structure.of(tuple(value.shape)) if value.ndim > 1 else None
    shapes = {name: tuple(part.shape) for name, part in _parts(value).items()}
    return Structure.of(shapes) if shapes else None


def flatten(value: Any) -> Tensor:
    """Put everything that a function returned into a row.

    Args:
        value: A tensor, or a mapping, a sequence or a dataclass of tensors.

    Returns:
        () or (m,); what is no tensor comes back as it is, for others to refuse.
    """
    if isinstance(value, Tensor):
        return value.reshape(-1) if value.ndim > 1 else value
    parts = [part.reshape(-1) for part in _parts(value).values()]
    result: Tensor = torch.cat(parts) if parts else value
    return result


def _parts(value: Any) -> dict[str, Tensor]:
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()  # a named tuple
    if isinstance(value, Mapping):
        parts = {str(name): part for name, part in value.items()}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = {str(index): part for index, part in enumerate(value)}
    else:
        parts = {}
    if not all(isinstance(part, Tensor) for part in parts.values()):
        kinds = ", ".join(f"{name}: {type(part).__name__}" for name, part in parts.items())
        raise FunctionError(
            f"the function has to return a tensor, or a mapping, sequence or dataclass of tensors, got {kinds}"
        )
    return parts
