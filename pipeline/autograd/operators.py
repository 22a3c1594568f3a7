"""What can be asked for at every point: names, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.autograd.definitions.contractions import (
    Across,
    Along,
    Contraction,
    Diagonal,
    Direction,
    Divergence,
)
from pipeline.autograd.definitions.spectra import Eigenvectors, Spectrum, spread
from pipeline.autograd.request import Key, Request
from pipeline.errors import ConfigurationError, nearest

WHOLE = {"value": 0, "gradient": 1, "jacobian": 1, "hessian": 2}
CONTRACTED = {
    "jvp": 1, "vjp": 1, "hvp": 2, "hessian_diagonal": 2, "laplacian": 2, "divergence": 1,
    "eigenvalues": 2, "eigenvectors": 2,
}  # fmt: skip
OPERATORS = {**WHOLE, **CONTRACTED}
MODES = ("eigenvalues", "eigenvectors")
ALONG = ("jvp", "vjp", "hvp")  # what is taken along a direction
HIGHEST_ORDER = 8
SYMMETRIC = ("full", "packed")


@dataclass(frozen=True)
class Operator:
    """What is asked per point.

    Attributes:
        name: One of `OPERATORS`, or derivative_k.
        order: Number of times f is differentiated.
        packed: Only the distinct entries are kept: `pipeline.autograd.packing`.
        contraction: Which sum of entries it is; None for the whole derivative.
        sparse: Only the entries of a pattern are kept: `pipeline.autograd.pattern`.
    """

    name: str
    order: int
    packed: bool = False
    contraction: Contraction | None = None
    sparse: bool = False

    @property
    def key(self) -> Key:
        """What a request calls it."""
        return self.order if self.contraction is None else self.contraction

    @property
    def dataset(self) -> str:
        """Name of what is kept."""
        return f"{self.name}{'_sparse' if self.sparse else '_packed' if self.packed else ''}"


def resolve_operators(
    names: Sequence[str],
    order: int | None,
    output_shape: tuple[int, ...],
    symmetric: str = "full",
) -> tuple[Operator, ...]:
    """Turn the names that a user gives into operators.

    Args:
        names: Names of operators; ``all`` stands for value, first derivative and hessian.
        order: Order of the operator `derivative`.
        output_shape: () or (m,).
        symmetric: full, or packed: orders from 2 on without their repetitions.

    Returns:
        The operators, in the order of the names, each once.

    Raises:
        ConfigurationError: Something cannot be asked; lists every fault.
    """
    if symmetric not in SYMMETRIC:
        raise ConfigurationError(
            [f"symmetric: expected {' or '.join(SYMMETRIC)}, got {symmetric!r}"]
        )
    first = "jacobian" if output_shape else "gradient"
    wanted = [
        name
        for asked in names
        for name in (("value", first, "hessian") if asked == "all" else (asked,))
    ]
    faults = [] if wanted else ["no operator was asked for; " + nearest("", _known())]
    for name in wanted:
        faults += _faults(name, order, output_shape)
    if not faults and order not in (None, *(OPERATORS.get(name, order) for name in wanted)):
        faults.append(
            f"order={order} is the order of derivative, and {', '.join(wanted)} is asked for; leave it out, or ask "
            "for derivative"
        )
    if faults:
        raise ConfigurationError(faults)
    named = [
        (f"derivative_{order}", order)
        if name == "derivative" and order is not None
        else (name, OPERATORS[name])
        for name in wanted
    ]
    packed = symmetric == "packed"
    chosen = [
        Operator(name, order, packed and order > 1 and name not in CONTRACTED)
        for name, order in named
    ]
    return tuple(dict.fromkeys(chosen))


def contract(
    operators: Sequence[Operator],
    direction: Direction | None,
    n: int,
    output_shape: tuple[int, ...],
    masses: Sequence[float] = (),
) -> tuple[Operator, ...]:
    """Say of those operators that are sums of entries which sums they are.

    Args:
        operators: As `resolve_operators` gives them.
        direction: Along which jvp, hvp (n entries) and vjp (m entries) are taken.
        n: Number of variables.
        output_shape: () or (m,).
        masses: What weights the Hessian of eigenvalues: `pipeline.autograd.definitions.spectra.spread`.

    Returns:
        The same operators.

    Raises:
        ConfigurationError: A direction is missing, masses do not fit, or the function has no divergence.
    """
    names = [operator.name for operator in operators]
    faults = _direction_faults(names, direction, n, output_shape)
    if "divergence" in names and output_shape != (n,):
        faults.append(
            f"divergence needs as many outputs as variables: expected shape ({n},), got {output_shape}"
        )
    if masses and not set(names) & set(MODES):
        faults.append(
            f"masses weight the Hessian of eigenvalues, and only {', '.join(names)} is asked for; "
            "leave masses out, or ask for eigenvalues (job=modes)"
        )
    if faults:
        raise ConfigurationError(faults)
    given, weights = direction or Direction(), spread(masses, n)
    build: dict[str, Callable[[Direction], Contraction]]
    build = {
        **_BUILD,
        "eigenvalues": lambda given: Spectrum(weights),
        "eigenvectors": lambda given: Eigenvectors(weights),
    }
    return tuple(
        replace(operator, contraction=build[operator.name](given))
        if operator.name in CONTRACTED
        else operator
        for operator in operators
    )


def _direction_faults(
    names: Sequence[str], direction: Direction | None, n: int, output_shape: tuple[int, ...]
) -> list[str]:
    along = [name for name in names if name in ALONG]
    if direction is None:
        return [
            f"{name} is taken along a direction, and none is given; give directions=random, "
            "directions=file, directions=points, or in Python directions=v"
            for name in along
        ]
    if not along:
        return [f"directions are given, and {', '.join(names)} takes none; leave them out"]
    if "vjp" in along and not output_shape:
        return ["vjp needs a function with several outputs; ask for the gradient"]
    sizes = {name: output_shape[0] if name == "vjp" else n for name in along}
    return [
        f"{name} needs directions of {size} entries, one for each "
        f"{'output' if name == 'vjp' else 'variable'}, got {direction.size}"
        for name, size in sizes.items()
        if size != direction.size
    ]


_BUILD: dict[str, Callable[[Direction], Contraction]] = {
    "jvp": lambda given: Along(1, given),
    "hvp": lambda given: Along(2, given),
    "vjp": Across,
    "hessian_diagonal": lambda given: Diagonal(summed=False),
    "laplacian": lambda given: Diagonal(summed=True),
    "divergence": lambda given: Divergence(),
}


def asking(request: Request, operators: Sequence[Operator]) -> Request:
    """Ask for these operators of the same function.

    Args:
        request: What is differentiated.
        operators: With their contractions.

    Returns:
        The request; its keys are those of the operators.
    """
    keys = dict.fromkeys(operator.key for operator in operators)
    wholes = sorted(key for key in keys if isinstance(key, int))
    contractions = tuple(key for key in keys if isinstance(key, Contraction))
    return replace(request, orders=tuple(wholes), contractions=contractions)


def _known() -> list[str]:
    return [*OPERATORS, "derivative", "all"]


def _faults(name: str, order: int | None, output_shape: tuple[int, ...]) -> list[str]:
    if name not in _known():
        return [f"operator {name!r} is unknown. {nearest(name, _known())}"]
    if name == "gradient" and output_shape:
        return [
            f"gradient needs a scalar function, this one returns shape {output_shape}; ask for the jacobian"
        ]
    if name in MODES and output_shape:
        return [
            f"{name} are those of the Hessian of a scalar function, this one returns shape {output_shape}"
        ]
    if name == "derivative" and (order is None or not 1 <= order <= HIGHEST_ORDER):
        return [
            f"derivative needs an order from 1 to {HIGHEST_ORDER}, got {order}; give order=3, for example"
        ]
    return []
