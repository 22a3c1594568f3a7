"""Finds the pattern of a derivative, exact for all inputs, from one call of the function."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.autograd.functions.following import reads
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.request import RefusedError
from pipeline.autograd.scalar.plain import require_own_derivatives
from pipeline.autograd.sparsity.higher import lifted
from pipeline.autograd.sparsity.propagation import Propagation, nothing
from pipeline.autograd.sparsity.sets import TooManyError
from pipeline.autograd.sparsity.tracker import Tracker
from pipeline.errors import told

LARGEST = 1 << 62  # entries, zeros included, whose positions are whole numbers of 64 bits


def detect(
    f: Callable[[Tensor], Tensor], point: Tensor, order: int, held: Tensor | None = None
) -> Pattern:
    """Find which entries of a derivative can be other than zero at any input.

    No number of the function takes part: an entry is left out only where the operations that
    torch carries out cannot make it, whatever the input. Entries may be kept that are always zero.

    Args:
        f: Maps one point (n,) to () or (m,).
        point: An example, (n,).
        order: 1 for the Jacobian (m, n), where a scalar has m = 1; above it of the shape of the
            derivative, (n,) * order of a scalar and (m,) + (n,) * order of a vector.
        held: What f refers to that is another at every point, though nothing is differentiated
            with respect to it; all else that f refers to is constant.

    Returns:
        The pattern; its notes say what was taken for dense.

    Raises:
        RefusedError: What the function does depends on values, its backward pass is not torch's
            own, torch cannot follow it, or the pattern is too large to pay.
    """
    known = () if held is None else (held,)
    try:
        require_own_derivatives(f, point)
        if name := reads(f, point.detach().clone(), *known):
            raise RefusedError(f"what it does depends on values: Tensor.{name}")
        return _follow(f, point, order, known)
    except TooManyError:
        raise RefusedError("its pattern has too many entries to pay") from None
    except RefusedError:
        raise
    except Exception as error:  # torch cannot follow some operations, by any kind of error
        raise RefusedError(f"it cannot be followed: {told(error)}") from error


def _follow(
    f: Callable[[Tensor], Tensor], point: Tensor, order: int, held: tuple[Tensor, ...]
) -> Pattern:
    n = len(point)
    sets = Propagation(n, min(order, 2))
    tracker = Tracker(sets)
    x = point.detach().clone()
    functional = torch.func.functionalize(f, remove="mutations")
    with torch.no_grad(), tracker:
        for each in held:
            tracker.remember(each, nothing(each.shape))
        tracker.remember(x, sets.start)
        y = functional(x)
    outputs = tracker.of(y)
    shape = (y.numel(), n) if order == 1 else (*y.shape, *(n,) * order)
    if math.prod(shape) > LARGEST:
        raise TooManyError
    if outputs is None:
        flat = torch.zeros(0, dtype=torch.int64)
    elif order == 1:
        flat = sets.entries_of_jacobian(outputs, n)
    else:
        flat = lifted(torch.unique(sets.entries_of_hessians(outputs, n)), n, order)
    notes = [f"{name} is taken for dense" for name in dict.fromkeys(tracker.notes)]
    return Pattern.of_flat(flat, shape, notes)
