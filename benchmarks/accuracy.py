"""Errors of derivatives against 50 digits: python -m benchmarks.accuracy writes docs/accuracy.md.

Every function of one variable that torch offers, at points spread over its domain, orders 1 to 3,
in float64 and float32. The reference is mpmath's numerical derivative of the value at 60 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import torch
from torch import special
from torch.nn import functional

from pipeline.autograd.reference import derivatives

ORDERS = (1, 2, 3)
POINTS = 17
mpmath.mp.dps = 60


@dataclass(frozen=True)
class Row:
    f: Callable[[Any], Any]
    formula: Callable[[Any], Any]
    low: float = -3.0
    high: float = 3.0


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


ROWS = {
    "exp": Row(torch.exp, mpmath.exp),
    "exp2": Row(torch.exp2, lambda x: mpmath.mpf(2) ** x),
    "expm1": Row(torch.expm1, mpmath.expm1),
    "log": Row(torch.log, mpmath.log, 0.1, 9),
    "log2": Row(torch.log2, lambda x: mpmath.log(x, 2), 0.1, 9),
    "log10": Row(torch.log10, mpmath.log10, 0.1, 9),
    "log1p": Row(torch.log1p, mpmath.log1p, -0.9, 3),
    "sqrt": Row(torch.sqrt, mpmath.sqrt, 0.1, 9),
    "rsqrt": Row(torch.rsqrt, lambda x: 1 / mpmath.sqrt(x), 0.1, 9),
    "reciprocal": Row(torch.reciprocal, lambda x: 1 / x, 0.1, 9),
    "pow 2.5": Row(lambda x: x**2.5, lambda x: x ** mpmath.mpf(2.5), 0.1, 9),
    "sin": Row(torch.sin, mpmath.sin),
    "cos": Row(torch.cos, mpmath.cos),
    "tan": Row(torch.tan, mpmath.tan, -1.4, 1.4),
    "asin": Row(torch.asin, mpmath.asin, -0.95, 0.95),
    "acos": Row(torch.acos, mpmath.acos, -0.95, 0.95),
    "atan": Row(torch.atan, mpmath.atan),
    "sinh": Row(torch.sinh, mpmath.sinh),
    "cosh": Row(torch.cosh, mpmath.cosh),
    "tanh": Row(torch.tanh, mpmath.tanh),
    "asinh": Row(torch.asinh, mpmath.asinh),
    "acosh": Row(torch.acosh, mpmath.acosh, 1.1, 9),
    "atanh": Row(torch.atanh, mpmath.atanh, -0.95, 0.95),
    "sinc": Row(torch.sinc, mpmath.sincpi, 0.1, 3),
    "sigmoid": Row(torch.sigmoid, sigmoid),
    "logsigmoid": Row(functional.logsigmoid, lambda x: -mpmath.log1p(mpmath.exp(-x))),
    "softplus": Row(functional.softplus, lambda x: mpmath.log1p(mpmath.exp(x))),
    "silu": Row(functional.silu, lambda x: x * sigmoid(x)),
    "gelu": Row(functional.gelu, lambda x: x * mpmath.ncdf(x)),
    "mish": Row(functional.mish, lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x)))),
    "logit": Row(torch.logit, lambda x: mpmath.log(x / (1 - x)), 0.05, 0.95),
    "erf": Row(torch.erf, mpmath.erf),
    "erfc": Row(torch.erfc, mpmath.erfc),
    "erfcx": Row(special.erfcx, lambda x: mpmath.exp(x * x) * mpmath.erfc(x)),
    "erfinv": Row(torch.erfinv, mpmath.erfinv, -0.95, 0.95),
    "ndtr": Row(special.ndtr, mpmath.ncdf),
    "log_ndtr": Row(special.log_ndtr, lambda x: mpmath.log(mpmath.ncdf(x))),
    "ndtri": Row(special.ndtri, lambda x: mpmath.sqrt(2) * mpmath.erfinv(2 * x - 1), 0.05, 0.95),
    "lgamma": Row(torch.lgamma, mpmath.loggamma, 0.1, 9),
    "digamma": Row(torch.digamma, mpmath.digamma, 0.1, 9),
    "polygamma 2": Row(lambda x: torch.polygamma(2, x), lambda x: mpmath.psi(2, x), 0.5, 9),
    "i0": Row(special.i0, lambda x: mpmath.besseli(0, x), 0.5, 3),
    "i1": Row(special.i1, lambda x: mpmath.besseli(1, x), 0.5, 3),
    "i0e": Row(special.i0e, lambda x: mpmath.exp(-x) * mpmath.besseli(0, x), 0.5, 3),
    "i1e": Row(special.i1e, lambda x: mpmath.exp(-x) * mpmath.besseli(1, x), 0.5, 3),
    "entr": Row(special.entr, lambda x: -x * mpmath.log(x), 0.1, 9),
    "xlogy": Row(lambda x: torch.xlogy(x, x), lambda x: x * mpmath.log(x), 0.1, 9),
    "hypot": Row(lambda x: torch.hypot(x, x * 0 + 1), lambda x: mpmath.sqrt(1 + x * x)),
    "atan2": Row(lambda x: torch.atan2(x, x * 0 + 1), mpmath.atan),
    "logaddexp": Row(
        lambda x: torch.logaddexp(x, -x), lambda x: mpmath.log(mpmath.exp(x) + mpmath.exp(-x))
    ),
}


def errors(row: Row, dtype: torch.dtype, points: int = POINTS) -> dict[int, tuple[float, float]]:
    """Per order the largest normwise error, max|A - R| / max|R|, and the largest in ulps."""
    places = torch.linspace(row.low, row.high, points, dtype=torch.float64).to(dtype)
    seen = [derivatives(lambda x: row.f(x[0]), place[None], ORDERS[-1]) for place in places]
    found = {}
    for order in ORDERS:
        true = [
            mpmath.diff(row.formula, mpmath.mpf(float(place)), order, h=mpmath.mpf("1e-15"))
            for place in places
        ]
        pairs = [
            (mpmath.mpf(float(levels[order])), t) for levels, t in zip(seen, true, strict=True)
        ]
        size = max(abs(t) for t in true)
        worst = max(abs(a - t) for a, t in pairs)
        found[order] = (float(worst / size), max(_ulps(a, t, dtype) for a, t in pairs))
    return found


def _ulps(seen: Any, true: Any, dtype: torch.dtype) -> float:
    unit = torch.finfo(dtype).eps * 2.0 ** (math.frexp(float(abs(true)) or 1.0)[1] - 1)
    return float(abs(seen - true)) / unit


HEAD = """# Accuracy

Largest error of derivatives of elementary functions against 60 digits (mpmath), at 17 points spread
over an interval: normwise, max|A − R| / max|R| over the points, and in units in the last place of
each. Written by `python -m benchmarks.accuracy`; torch {version}.

Many ulps beside a small normwise error are a derivative that passes through zero.

| function | interval | {heads} |
|---|---|{dashes}|
"""
TAIL = """
## What loses digits

* Near a removable singularity the formula of a derivative subtracts what is nearly the same: sinc
  below 1e-4 (first derivative), 3e-3 (second), 1e-2 (third). Such points have status 4.
* Near 0, `i1` and `i1e` from order 3 and `i0` and `i0e` from order 4 are wrong in torch (the value at 0 as well); one
  order below they lose digits as eps / |x|. Status 4, there below 1e-8.
* `atan2` of numbers whose squares underflow: 0 in place of a large derivative. Status 4.
* A power of a variable by a variable loses its dependence on the exponent where that is 0 (from order
  2), 1 (order 3), … Status 4.
* Far in a tail a derivative is a difference from 1 and underflows early: tanh, gelu, mish. Small in
  absolute terms, and not flagged.
* A length, an angle or a standard deviation of tiny differences (1e-6 where the others are 1): orders
  2 and 3 can cancel and lose some or all of their digits. Not flagged: only at 0 itself.
* Terms that cancel within a function, (1 - cos x)/x² or sin(x)/x beside 0, acos of nearly 1: the log warns, and
  `rounding_error` of the certificate says how much is lost, at the points that are checked.
* In the tails of `log_ndtr` (to the left, from order 2) and `erfcx` (to the right, from order 1) torch's formula of
  order k cancels as eps x^(2k): half of the digits are lost beyond eps^(-1/(4k)), in float64 at order 2 beyond 90,
  at order 3 beyond 20. Status 4.
* A product, also a cumulative one, beside a factor near zero, from order 2. Status 4.
* `logaddexp` of numbers that are 710 apart and `mish` above 710: NaN from order 2, which has status 2.
"""


def cell(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.0e} ({pair[1]:.0f})"


def main() -> None:
    kinds = (torch.float64, torch.float32)
    heads = " | ".join(
        f"{str(k).removeprefix('torch.')} order {order}" for k in kinds for order in ORDERS
    )
    lines = []
    for name, row in ROWS.items():
        cells = [cell(pair) for kind in kinds for pair in errors(row, kind).values()]
        lines.append(f"| {name} | {row.low:g} … {row.high:g} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    head = HEAD.format(
        version=torch.__version__.partition("+")[0], heads=heads, dashes="---|" * 5 + "---"
    )
    Path("docs/accuracy.md").write_text(head + "\n".join(lines) + "\n" + TAIL)


if __name__ == "__main__":
    main()
