"""Whether results are kept dense, or only the entries of a pattern."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.operators import Operator
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.request import RefusedError, Request
from pipeline.autograd.sparsity.compression import known_pattern
from pipeline.errors import ConfigurationError, nearest

log = logging.getLogger(__name__)
FORMATS = ("dense", "sparse", "auto")
FEWEST = 10_000  # entries of a matrix for which zeros are worth looking for unasked
DENSEST = 1 / 8  # part of a matrix that is kept sparse unasked
AUTHORS = "the pattern is the function author's"
USERS = "the pattern is the user's"
WHERE = {AUTHORS: "Function(sparsity=…)", USERS: "pattern="}

Given = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Form:
    """How results are kept.

    Attributes:
        format: dense, sparse (only entries that can be other than zero), or auto: sparse where that
            is much smaller.
        given: Patterns that the function's author gives, by operator: ``g(n) -> mask (m, n)`` or
            (rows, columns); the others are found.
        known: The pattern, where it has been found already.
        user: The pattern that the user gives.
    """

    format: str = "dense"
    given: Given = field(default_factory=dict)
    known: Pattern | None = None
    user: Pattern | None = None

    def faults(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        if self.format in FORMATS:
            return []
        return [f"format {self.format!r} is unknown. {nearest(self.format, FORMATS)}"]


DENSE = Form()


def choose_pattern(form: Form, request: Request, operators: tuple[Operator, ...]) -> Pattern | None:
    """Find the pattern of what is kept sparse.

    Args:
        form: What the user asked for.
        request: What is evaluated.
        operators: What was asked for.

    Returns:
        The pattern; None where results are kept dense.

    Raises:
        ConfigurationError: Sparse results are asked for that cannot be had.
    """
    if form.known is not None:
        return form.known
    rows = request.m if request.output_shape else request.n
    if not may_pay(form.format, (rows, request.n)):
        return None
    if request.keys[-1] != request.sparse_order:
        if form.format == "auto":
            return None
        names = ", ".join(operator.name for operator in operators)
        raise ConfigurationError(
            [
                "format=sparse keeps the highest derivative, if it has two indices or more, and no sums of "
                f"entries; got {names} of a function with output shape "
                f"{request.output_shape}; ask for the others in a job of their own, or for format=dense"
            ]
        )
    try:
        pattern = _given(form, request, operators) or known_pattern(request)
    except RefusedError as reason:
        if form.format == "auto":
            log.info("results are kept dense: %s", reason)
            return None
        raise ConfigurationError(
            [
                f"format=sparse: no pattern is found: {reason}; give one as pattern= or "
                "Function(sparsity=…), or format=dense"
            ]
        ) from None
    if form.format == "auto" and pattern.density > DENSEST:
        return None
    log.info("sparse: %d of %s entries are kept", pattern.nnz, spell_shape(pattern.shape))
    return pattern


def mark_sparse(operators: tuple[Operator, ...], pattern: Pattern | None) -> tuple[Operator, ...]:
    """Say of which operators only the entries of a pattern are kept: those of the highest order.

    Args:
        operators: What was asked for.
        pattern: The pattern, or None.

    Returns:
        The operators.
    """
    if pattern is None:
        return operators
    highest = max(operator.order for operator in operators)
    return tuple(
        Operator(operator.name, operator.order, sparse=True)
        if operator.key == highest
        else operator
        for operator in operators
    )


def confirm_pattern(request: Request) -> tuple[Pattern | None, tuple[str, ...]]:
    """Compare a pattern that the user or the function's author gives with that of the operations.

    Args:
        request: What is evaluated.

    Returns:
        The pattern of the request, with a note where nothing confirms it, and what is wrong with it.
    """
    given = request.pattern
    said = [] if given is None else [note for note in given.notes if note in WHERE]
    if given is None or not said:
        return given, ()
    try:
        found = known_pattern(replace(request, pattern=None))
        unknown = "; ".join(found.notes)
    except RefusedError as reason:
        unknown = str(reason)
    if unknown:
        return replace(given, notes=(f"given, not confirmed: {unknown}",)), ()
    missing = found.flat[~torch.isin(found.flat, given.flat)]
    if len(missing) == 0:
        return replace(given, notes=("given, and confirmed by the operations of the function",)), ()
    lacking = Pattern.of_flat(missing[:1], given.shape).coordinates[:, 0].tolist()
    return given, (
        f"the given pattern leaves out {len(missing)} entries that the operations of the function can "
        f"make, such as {spell_entry(lacking)}: add them to {WHERE[said[0]]}, or leave it "
        "out for the pattern to be found",
    )


def may_pay(form: str, shape: tuple[int, int]) -> bool:
    """Tell whether zeros are worth looking for.

    Args:
        form: dense, sparse or auto.
        shape: (m, n) of the matrix.

    Returns:
        Whether to look for a pattern.
    """
    return form == "sparse" or (form == "auto" and shape[0] * shape[1] >= FEWEST)


def _given(form: Form, request: Request, operators: tuple[Operator, ...]) -> Pattern | None:
    shape = request.sparse_shape
    names = [operator.name for operator in operators if operator.order == request.order]
    if form.user is not None:
        return _of_user(form.user, request)
    known = [form.given[name] for name in names if name in form.given]
    if not known or request.variable.spec() is not None:
        return None
    pattern = Pattern.of_flat(_flat(known[0](request.n), shape), shape, (AUTHORS,))
    if not pattern.is_symmetric(request.sparse_order):
        raise ConfigurationError(["sparsity: the pattern of a Hessian has to be symmetric"])
    return pattern


def _of_user(pattern: Pattern, request: Request) -> Pattern:
    order, shape = request.sparse_order, request.sparse_shape
    what = {1: "the Jacobian", 2: "the Hessian"}.get(order, f"the derivative of order {order}")
    if tuple(pattern.shape) != shape:
        raise ConfigurationError(
            [
                f"pattern: expected {spell_shape(shape)}, the shape of {what}, got "
                f"{spell_shape(pattern.shape)}; give that of this function, or leave it out for the "
                "pattern to be found"
            ]
        )
    if not pattern.is_symmetric(order):
        raise ConfigurationError(
            ["pattern: that of a Hessian has to be symmetric; give both of its triangles"]
        )
    return replace(pattern, notes=(USERS,))


def spell_shape(shape: Sequence[int]) -> str:
    """A shape as ``3 x 4 x 4``."""
    return " x ".join(map(str, shape))


def spell_entry(place: Sequence[int]) -> str:
    """An entry in words."""
    if len(place) == 2:
        return f"row {place[0]}, column {place[1]}"
    return f"({', '.join(map(str, place))})"


def _flat(made: Any, shape: tuple[int, ...]) -> Tensor:
    if isinstance(made, tuple):
        places = [torch.as_tensor(each).to(torch.int64) for each in made]
    else:
        mask = torch.as_tensor(made)
        if tuple(mask.shape) != shape:
            raise ConfigurationError(
                [
                    f"sparsity: expected a mask of shape {shape} or (rows, columns), got shape {tuple(mask.shape)}"
                ]
            )
        places = list((mask != 0).nonzero().unbind(1))
    fits = len(places) == len(shape) and len({each.shape for each in places}) == 1
    if not fits or not all(
        bool(((each >= 0) & (each < size)).all()) for each, size in zip(places, shape, strict=True)
    ):
        raise ConfigurationError([f"sparsity: rows and columns have to lie within {shape}"])
    flat = places[0]
    for size, each in zip(shape[1:], places[1:], strict=True):
        flat = flat * size + each
    return flat
