"""Calls a user's function at a few points before anything is planned."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigurationError, FunctionError, told


@dataclass(frozen=True)
class Probe:
    """What a function did at a few points.

    Attributes:
        points: The points where it can be evaluated, (P, n), of the job's dtype and device.
        output_shape: () or (m,).
    """

    points: Tensor
    output_shape: tuple[int, ...]


def resolve_device(name: str) -> torch.device:
    """Find the device that a user names.

    Args:
        name: cpu, cuda, cuda:<index>, or auto (CUDA where there is one).

    Returns:
        The device.

    Raises:
        ConfigurationError: It is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(
            [f"device {name!r} is unknown: expected cpu, cuda, cuda:<index> or auto"]
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigurationError(
                [
                    f"device {name!r} is not there: torch {torch.__version__} sees {count} CUDA devices; "
                    "use device=cpu or device=auto"
                ]
            )
    return device


def probe_indices(count: int) -> list[int]:
    """Indices of the points of a grid that candidates are compared on.

    Args:
        count: N >= 1.

    Returns:
        Up to five indices: the ends, the middle, and two at no round fraction.

    Examples:
        >>> probe_indices(1000)
        [0, 381, 500, 723, 999]
    """
    return sorted({0, count - 1, count // 2, int(0.3819 * count), int(0.7236 * count)})


def probe(
    f: Callable[[Tensor], Tensor], points: Tensor, declared: tuple[int, ...] | None, name: str
) -> Probe:
    """Call a function at a few points and check what it returns.

    Args:
        f: Maps one point (n,) to () or (m,).
        points: (P, n), of the job's dtype and device.
        declared: The output shape it should have; None if any of these will do.
        name: Name of the function, for messages.

    Returns:
        The points where it can be evaluated, and its output shape.

    Raises:
        FunctionError: It raises at every point, returns something that cannot be differentiated, or
            something else at every call.
    """
    good, shapes, error = [], [], None
    for point in points:
        original = point.clone()
        try:
            with torch.no_grad():
                y, again = f(point), f(point)
        except Exception as caught:  # the user's function may raise anything
            error = caught
            continue
        _check_unchanged(point, original, name)
        _check_output(y, point, name)
        _check_repeats(y, again, point, name)
        good.append(point)
        shapes.append(tuple(y.shape))
    if not good:
        assert error is not None
        raise FunctionError(
            f"function {name!r} raised at all {len(points)} points tried, such as x = {_spell(points[0])}: "
            f"{told(error)}{_hint_of_batch(f, points[0]) or _hint_of_dtype(f, points[0])}"
        ) from error
    _check_shapes(shapes, declared, len(points[0]), name)
    return Probe(torch.stack(good), shapes[0])


def _hint_of_batch(f: Callable[[Tensor], Tensor], point: Tensor) -> str:
    """What to do where a function takes a batch of points and not one."""
    with suppress(Exception), torch.no_grad():  # it may raise there as well
        if len(f(point[None])) == 1:
            return (
                "; it takes a batch (N, n), and is asked about one point (n,): give lambda x: f(x[None])[0], or of a "
                "module module_function(module, lambda module, x: module(x[None])[0])"
            )
    return ""


def _hint_of_dtype(f: Callable[[Tensor], Tensor], point: Tensor) -> str:
    """What to do where a function takes no points but those of its own weights' precision."""
    for dtype in {torch.float32, torch.float64} - {point.dtype}:
        with suppress(Exception), torch.no_grad():  # it may raise there as well
            f(point.to(dtype))
            name = str(dtype).removeprefix("torch.")
            return f"; it takes points of {name}: dtype={name}, or convert what it holds to {point.dtype}"
    return ""


def _check_unchanged(point: Tensor, original: Tensor, name: str) -> None:
    if not torch.equal(point, original):
        raise FunctionError(
            f"function {name!r} changes its input in place; work on x.clone() or write x + … instead of x += …"
        )


def _check_repeats(y: Tensor, again: Tensor, point: Tensor, name: str) -> None:
    rounding = torch.finfo(y.dtype).eps ** 0.5  # sums on a GPU may be taken in any order
    if y.shape != again.shape or not torch.allclose(y, again, rounding, rounding, equal_nan=True):
        raise FunctionError(
            f"function {name!r} returns two values at one point: {_spell(y.reshape(-1))}, then "
            f"{_spell(again.reshape(-1))} at x = {_spell(point)}. It is random, or keeps something from call to "
            "call; draw from a torch.Generator that is seeded in the function, put modules into eval() mode"
        )


def _check_output(y: object, point: Tensor, name: str) -> None:
    expected = f"a {point.dtype} tensor of shape () or (m,) on {point.device}"
    if not isinstance(y, Tensor):
        todo = "use torch operations all the way (no float(), .item(), numpy)"
        raise FunctionError(
            f"function {name!r} has to return {expected}, got {type(y).__name__} {y!r}; "
            f"{'is its return missing?' if y is None else todo}"
        )
    got = f"a {y.dtype} tensor of shape {tuple(y.shape)} on {y.device}"
    if y.dtype != point.dtype or y.device != point.device:
        parts = "return its parts, torch.view_as_real(y).reshape(-1), or y.abs()"
        todo = "make its constants with dtype=x.dtype, device=x.device"
        raise FunctionError(
            f"function {name!r} has to return {expected}, got {got}; {parts if y.is_complex() else todo}"
        )
    if y.ndim > 1 or y.numel() == 0:
        raise FunctionError(
            f"function {name!r} has to return {expected}, got {got}; flatten it with .reshape(-1)"
        )


def _check_shapes(
    shapes: list[tuple[int, ...]], declared: tuple[int, ...] | None, n: int, name: str
) -> None:
    expected = shapes[0] if declared is None else declared
    for shape in shapes:
        if shape != expected:
            raise FunctionError(
                f"function {name!r} has to return shape {expected} for n = {n} inputs, got {shape}; "
                "correct the function or its output_shape"
            )


def _spell(point: Tensor) -> str:
    values = ", ".join(f"{value:.6g}" for value in point[:6].tolist())
    return f"({values}{', …' if len(point) > 6 else ''})"
