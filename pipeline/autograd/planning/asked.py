"""What is asked: a function and what is wanted of it, up to the request that routes are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from pipeline.autograd.definitions.contractions import Direction
from pipeline.autograd.functions.border import callable_of
from pipeline.autograd.functions.half_precision import FLOAT64, Precision
from pipeline.autograd.functions.variable import WHOLE, Beside, Variable, Wrt, resolve_variable
from pipeline.autograd.operators import Operator, asking, contract, resolve_operators
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.planning.formats import DENSE, Form, choose_pattern, mark_sparse
from pipeline.autograd.request import Request
from pipeline.functions.bound import BoundFunction
from pipeline.functions.structure import Structure


@dataclass(frozen=True)
class Wanted:
    """What a user wants of a function.

    Attributes:
        operators: Names of operators.
        order: Order of the operator `derivative`.
        wrt: With respect to what: see `resolve_variable`.
        symmetric: full, or packed: only the distinct entries of symmetric results are kept.
        form: dense, sparse or auto: see `pipeline.autograd.planning.formats.Form`.
        direction: What jvp, vjp and hvp are taken along; where every point has its own, it stands
            behind the point in the rows that are evaluated.
        masses: What weights the Hessian of eigenvalues.
        pattern: Entries that can be other than zero, where the user gives them.
        precision: In which the function is evaluated; None for that of the points.
    """

    operators: tuple[str, ...]
    order: int | None = None
    wrt: Wrt | None = None
    symmetric: str = "full"
    form: str = "dense"
    direction: Direction | None = None
    masses: tuple[float, ...] = ()
    pattern: Pattern | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Asked:
    """A function made ready, and what is wanted of it.

    Attributes:
        f: Maps one point (d,) to () or (m,), in the precision that is kept.
        name: Its name, for messages.
        wanted: What is wanted of it.
        output_shape: Output shape that f has to have; None if any will do.
        variable: What f is differentiated with respect to.
        form: Whether only the entries of a pattern are kept.
        structures: input, output or variable -> the tensors along it, where these are not flat.
        judged: Points are judged: f is evaluated beside its derivatives, which may be finite where
            it has no value.
    """

    f: Callable[[Tensor], Tensor]
    name: str
    wanted: Wanted
    output_shape: tuple[int, ...] | None = None
    variable: Variable = WHOLE
    form: Form = DENSE
    structures: Mapping[str, Structure] = field(default_factory=dict)
    judged: bool = True


def ask(function: BoundFunction, wanted: Wanted) -> Asked:
    """Say what is to be differentiated.

    Args:
        function: The function; where it is a module, a copy of it is what is evaluated.
        wanted: What is wanted of it.

    Returns:
        What `prepare` takes.
    """
    f, record, d = callable_of(function), function.function, function.n
    variable = resolve_variable(wanted.wrt, f, d, function.input_names)
    known, precision = structures(function, variable), wanted.precision or FLOAT64
    f, variable = precision.function(f), precision.variable(variable)
    own = record.sparsity if function.chosen is None else {}  # a pattern is that of all outputs
    given = {name: partial(make, **function.parameters) for name, make in own.items()}
    if wanted.direction is not None and wanted.direction.vector is None:
        f, variable = partial(without_direction, f, d), Beside(variable, d)
    form = Form(wanted.form, given, user=wanted.pattern)
    return Asked(f, record.name, wanted, function.output_shape, variable, form, known)


def without_direction(f: Callable[[Tensor], Tensor], columns: int, row: Tensor) -> Tensor:
    """Evaluate at the point alone that a row (d + size,) begins with."""
    return f(row[:columns])


def resolve(
    asked: Asked, example: Tensor, output_shape: tuple[int, ...]
) -> tuple[Request, tuple[Operator, ...]]:
    """Say what is evaluated, and of which operators only the entries of a pattern are kept.

    Args:
        asked: What is to be differentiated.
        example: One point, (d,), of the job's dtype and device.
        output_shape: () or (m,).

    Returns:
        The request and the operators.
    """
    wanted, n = asked.wanted, asked.variable.size(len(example))
    named = resolve_operators(wanted.operators, wanted.order, output_shape, wanted.symmetric)
    operators = contract(named, wanted.direction, n, output_shape, wanted.masses)
    packed = wanted.symmetric == "packed"
    request = Request(asked.f, example, output_shape, (), asked.variable, packed)
    request = replace(request, evaluated_in=wanted.precision)
    request = asking(request, operators)
    if request.orders and asked.judged:
        request = replace(request, orders=tuple(sorted({0, *request.orders})))
    pattern = choose_pattern(asked.form, request, operators)
    return replace(request, pattern=pattern), mark_sparse(operators, pattern)


def structures(function: BoundFunction, variable: Variable) -> dict[str, Structure]:
    """Say which dimensions of the results hold tensors that are not flat.

    Args:
        function: The function.
        variable: What it is differentiated with respect to.

    Returns:
        input, output or variable -> the tensors whose entries lie along it.
    """
    found = {
        "input": function.inputs,
        "output": function.outputs,
        "variable": variable.structure(function.inputs),
    }
    return {name: structure for name, structure in found.items() if structure is not None}
