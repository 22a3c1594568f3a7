"""Points at which a function is evaluated exactly where it may not be smooth.

There torch gives one of several one-sided derivatives by its own conventions (|x|' = 0 at 0, a tie
of a maximum is shared, a branch is taken as if the other did not exist), and all oracles that use
torch agree on it. The function is watched while it is evaluated, call by call: wherever a call
that depends on the inputs meets its kink exactly, the point is flagged. Where both sides happen to
join smoothly it is flagged as well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.autograd.checks.both_sides import SMOOTH, jumps, whole_jumps
from pipeline.autograd.checks.discrete import DISCRETE
from pipeline.autograd.checks.ordering import ORDERING
from pipeline.autograd.checks.spectral import SPECTRAL
from pipeline.autograd.functions.following import Follow, unseen
from pipeline.autograd.functions.variable import WHOLE
from pipeline.autograd.methods.nearby import beside
from pipeline.autograd.request import Request

Condition = Callable[..., Tensor]
# of the order as well: a formula can be right up to some order
Ordered = Callable[..., Tensor | None]
NEVER = 1 << 20  # an order that is never asked for


def _at_zero(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return x == 0


def _at(*places: float) -> Condition:
    return lambda x, *args, **options: torch.isin(
        x, torch.tensor(places, dtype=x.dtype, device=x.device)
    )


def _equal(a: Any, b: Any, *args: Any, **options: Any) -> Tensor:
    return torch.as_tensor(a == b)


def _at_parameter(name: str, default: float) -> Condition:
    """Kinks at both signs of a parameter, the second argument."""

    def condition(x: Tensor, *args: Any, **options: Any) -> Tensor:
        place = args[0] if args and isinstance(args[0], float | int) else options.get(name, default)
        return x.abs() == place

    return condition


def _at_bounds(x: Tensor, *args: Any, **options: Any) -> Tensor:
    named = [options.get(name) for name in ("min", "max", "min_val", "max_val", "threshold")]
    bounds = [bound for bound in (*args[:2], *named) if isinstance(bound, Tensor | float | int)]
    met = torch.zeros_like(x, dtype=torch.bool)
    for bound in bounds:
        met = met | (x == bound)
    return met


def _sign_of_second(x: Any, y: Any, *args: Any, **options: Any) -> Tensor:
    return torch.as_tensor(y == 0)


def _at_loss(delta: str) -> Condition:
    def condition(x: Tensor, target: Tensor, *args: Any, **options: Any) -> Tensor:
        size: float = options.get(delta, 1.0 if delta else 0.0)
        return (x - target).abs() == size

    return condition


def _integer(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return x == x.round()


def _multiple(x: Tensor, divisor: Any, *args: Any, **options: Any) -> Tensor:
    return _integer(torch.div(x, divisor))


def _norm(x: Tensor, *args: Any, **options: Any) -> Tensor:
    dim = options.get("dim", args[1] if len(args) > 1 else None)
    return (x * x).sum() == 0 if dim is None else (x * x).sum(dim) == 0


def _all_equal(x: Tensor, *args: Any, **options: Any) -> Tensor:
    return (x - x.mean()).square().sum() == 0


def _length(x: Tensor, p: float = 2.0, dim: Any = 1, **options: Any) -> Tensor:
    return (x * x).sum(dim) == 0


def _either_length(x: Tensor, y: Tensor, dim: int = 1, *args: Any, **options: Any) -> Tensor:
    return _length(x, dim=dim) | _length(y, dim=dim)


def _half(x: Tensor, *args: Any, decimals: int = 0, **options: Any) -> Tensor:
    scaled = x * 10.0**decimals
    return scaled - scaled.floor() == 0.5


def _distance(a: Tensor, b: Tensor, *args: Any, **options: Any) -> Tensor:
    return torch.cdist(a, b) == 0 if a.ndim > 1 else ((a - b) ** 2).sum() == 0


def _cut(y: Tensor, x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Where an angle jumps by a whole turn."""
    met: Tensor = (y == 0) & (x <= 0)
    return met


def _no_square(y: Any, order: int, x: Any = None, **options: Any) -> Tensor | None:
    """Torch divides by the sum of the squares, which may be too small to be a number."""
    both = isinstance(x, Tensor) and isinstance(y, Tensor)
    return x * x + y * y == 0 if both else None


def _both_zero(x: Tensor, y: Tensor, *args: Any, **options: Any) -> Tensor:
    return (x == 0) & (y == 0)


def _pole(x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Poles of the gamma function, near which torch gives finite numbers."""
    return (x <= 0) & (x == x.round())


def _cancels(x: Tensor, order: int) -> Tensor:
    """Where the formula of the derivative divides a difference of near numbers by x^(k+1)."""
    near: Tensor = x.abs() < torch.finfo(x.dtype).eps ** (0.5 / (order + 1))
    return near


def _sinc(x: Tensor, order: int) -> Tensor:
    return _cancels(x, order)


def _bessel(lost_from: int, kink_from: int) -> Ordered:
    """At and near 0 torch's formulas of high orders are wrong; exp(-|x|) as a factor is a kink."""

    def condition(x: Tensor, order: int) -> Tensor:
        kink = (x == 0) & (order >= kink_from)
        if order >= lost_from:
            return kink | _cancels(x, order)
        # one order below, they lose digits beside 0, as many as eps / |x| says
        beside = (x != 0) & (x.abs() < torch.finfo(x.dtype).eps ** 0.5)
        return kink | beside if order == lost_from - 1 else kink

    return condition


def _power(base: Any, order: int, exponent: Any = None, **options: Any) -> Tensor | None:
    """Where torch takes the power of an exponent that is a variable for that of a constant."""
    if not isinstance(exponent, Tensor):
        return None
    whole = (exponent >= 0) & (exponent <= order - 2) & (exponent == exponent.round())
    zero: Tensor = torch.as_tensor(base == 0)
    return whole | zero


def _tail(sign: int, lost_from: int) -> Ordered:
    """Far in a tail the terms of the derivative of order k, powers of x up to 2k, cancel."""

    def condition(x: Tensor, order: int) -> Tensor | None:
        far: Tensor = sign * x > torch.finfo(x.dtype).eps ** (-0.25 / order)
        return far if order >= lost_from else None

    return condition


def _product(x: Tensor, order: int, *args: Any, **options: Any) -> Tensor | None:
    """Beside zero torch's formula divides the product by its small factor, and the terms cancel."""
    if order < 2 or not x.is_floating_point():
        return None
    small = torch.finfo(x.dtype).eps ** (0.5 / (order - 1)) * x.abs().amax()
    near: Tensor = (x.abs() < small) & (x != 0)
    return near


NAMES = (
    (
        _at_zero,
        "bool nonzero abs absolute sign sgn relu leaky_relu prelu elu celu selu rrelu heaviside",
    ),
    (_equal, "lt le gt ge eq ne less less_equal greater greater_equal not_equal"),
    (_equal, "maximum minimum fmax fmin"),
    (_integer, "floor ceil trunc fix frac"),
    (_multiple, "fmod remainder floor_divide mod floordiv"),
    (_at_bounds, "clamp clip clamp_min clamp_max hardtanh threshold"),
    (_norm, "norm vector_norm"),
    (_distance, "dist cdist pairwise_distance"),
    (_at(0.0, 6.0), "relu6"),
    (_at(-3.0, 3.0), "hardswish hardsigmoid"),
    (_at_parameter("lambd", 0.5), "hardshrink softshrink"),
    (_at_loss(""), "l1_loss"),
    (_at_loss("delta"), "huber_loss"),
    (_at_loss("beta"), "smooth_l1_loss"),
    (_sign_of_second, "copysign"),
    (_cut, "atan2 arctan2"),
    (_both_zero, "hypot"),
    (_pole, "lgamma gammaln digamma psi polygamma"),
    (_all_equal, "std"),
    (_length, "normalize"),
    (_either_length, "cosine_similarity"),
    (_half, "round"),
)
LENGTHS = ["norm", "vector_norm", "matrix_norm", "dist", "cdist", "pdist", "pairwise_distance"]
ORDERED: dict[str, Ordered] = {
    "sinc": _sinc,
    "i1": _bessel(3, NEVER),
    "i0": _bessel(4, NEVER),
    "i0e": _bessel(4, 1),
    "i1e": _bessel(3, 2),
    "atan2": _no_square,
    "arctan2": _no_square,
    "pow": _power,
    "float_power": _power,
    "prod": _product,
    "cumprod": _product,
    "erfcx": _tail(1, 1),
    "log_ndtr": _tail(-1, 2),
}
CONDITIONS: dict[str, Condition] = {
    **{name: condition for condition, names in NAMES for name in names.split()},
    **DISCRETE,
    **ORDERING,
    **SPECTRAL,
}
KNOWN = SMOOTH | CONDITIONS.keys() | ORDERED.keys()


def _is_unknown(name: str, args: Any, options: Any) -> bool:
    """Whether nothing is known of a call; of a length, only where it has the usual order."""
    if name.removeprefix("special_") not in KNOWN:
        return True
    given = [*args[1:], options.get("p", 2), options.get("ord", 2)]
    orders = [order for order in given if isinstance(order, int | float | str)]
    is_matrix = name == "norm" and args[0].ndim > 1 and bool(args[1:] or options)
    return name in LENGTHS and (is_matrix or any(order != 2 for order in orders))


@dataclass(frozen=True)
class Met:
    """Where a call meets its kink, or loses its digits.

    Attributes:
        at: Truth values, of any shape.
        operands: What it depends on, where it loses digits: it does so all around as well.
    """

    at: Tensor
    operands: tuple[Tensor, ...] = ()

    def unlike(self, beside: Met) -> Tensor:
        """Whether it does so other than by construction.

        Args:
            beside: The same call at a random place.

        Returns:
            A truth value, ().
        """
        if not self.operands:
            return (self.at & ~beside.at).any()
        pairs = zip(self.operands, beside.operands, strict=True)
        moved = [here != there for here, there in pairs]  # a padded zero is no operand
        return torch.stack([(self.at & each).any() for each in moved]).any()


@dataclass(frozen=True)
class Watched:
    """What a function was seen to do at a point.

    Attributes:
        met: Where each call meets its kink, in the order of the calls.
        looks: Whether one of them was looked at from both sides.
    """

    met: list[Met]
    looks: bool


def kink_finder(request: Request, points: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Prepare to find the points at which a call of a function meets its kink exactly.

    What meets it at a random place as well does so by construction (a padded zero, the diagonal
    of a comparison with the transpose), and is no kink.

    Args:
        request: What is differentiated; only what depends on its variables can be a kink.
        points: Some points, (P, d).

    Returns:
        A function from points (B, d) to flags, bool (B,); None where no call has a kink.
    """
    seen = [_watched(*request.at(point), request.order) for point in points]
    is_opaque = bool(unseen_calls(request, points[0]))
    if not is_opaque and not any(each.met for each in seen):
        return None
    variables = request.variables(points)
    step = 64 * (beside(variables[0], variables, torch.Generator().manual_seed(0)) - variables[0])
    always = _beside(request, points[0], step)
    is_everywhere = request.variable is WHOLE and not any(each.looks for each in seen)

    def flag(point: Tensor) -> Tensor:
        met = _watched(*request.at(point), request.order).met
        # what is held meets a comparison at some points and not at others, and so does what is largest
        nearby = always if is_everywhere else _beside(request, point, step)
        same = [one.at.shape for one in met] == [one.at.shape for one in nearby]
        pairs = zip(met, nearby, strict=True) if same else ()
        flags = [one.unlike(other) for one, other in pairs] or [one.at.any() for one in met]
        # conditions may know no device
        none = torch.zeros((), dtype=torch.bool, device=point.device)
        if is_opaque:
            flags.append(whole_jumps(*request.at(point), request.order).any())
        return torch.stack([none, *(each.to(point.device) for each in flags)]).any()

    def find(points: Tensor) -> Tensor:
        try:
            return torch.func.vmap(flag)(points).to(points.device)
        except Exception:  # what branches on its input can only be watched point by point
            return torch.stack([flag(point) for point in points]).to(points.device)

    return find


def unseen_calls(request: Request, point: Tensor) -> tuple[str, ...]:
    """Find what cannot be followed, and is looked at from both sides with the whole function.

    Args:
        request: What is differentiated.
        point: (d,), where it can be evaluated.

    Returns:
        Names of the backward passes of what is in it.
    """
    try:
        return unseen(*request.at(point))
    except Exception:  # with a gradient the function may raise: then it has no derivative
        return ()


def _beside(request: Request, point: Tensor, step: Tensor) -> list[Met]:
    g, z = request.at(point)
    for beside_it in (z + step, z - step):
        with suppress(Exception):  # beside the grid the function may raise, on one side at least
            return _watched(g, beside_it, request.order).met
    return []


def _outside(tensor: Tensor, level: int) -> Tensor:
    """A tensor out of the transforms that the function makes by itself, which end before it is used."""
    functorch = torch._C._functorch
    while (
        functorch.is_functorch_wrapped_tensor(tensor) and functorch.maybe_get_level(tensor) > level
    ):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


def _watched(f: Callable[[Tensor], Tensor], z: Tensor, order: int) -> Watched:
    """Where each call that depends on the input meets its kink."""
    met: list[Met] = []
    looked: list[str] = []
    level = torch._C._functorch.maybe_current_level() or 0

    def keep(at: Tensor | None, *operands: Tensor) -> None:
        if at is not None:
            met.append(Met(_outside(at, level), tuple(_outside(each, level) for each in operands)))

    def notice(name: str, args: Any, options: Any) -> None:
        name = name.removeprefix("special_")
        if name in CONDITIONS:
            operands = args if isinstance(args[0], Tensor) else args[::-1]
            keep(CONDITIONS[name](*operands, **options))
        if name in ORDERED:
            others = [None if follow.is_held(value) else value for value in args[1:]]
            at = ORDERED[name](args[0], order, *others, **options)
            keep(at, *(each for each in (args[0], *others) if isinstance(each, Tensor)))
        if _is_unknown(name, args, options):
            looked.append(name)
            keep(jumps(follow.call, args, options, follow.is_held, order, strict=level > 0))

    with torch.no_grad():
        x = z.clone()
        follow = Follow((x,), notice)
        with follow:
            f(x)
    return Watched(met, bool(looked))
