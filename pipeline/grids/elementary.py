"""Elementary functions that give the same bits on every machine.

The libraries choose a kernel by the instruction set of the CPU, with or without fused
multiply-add, and their last bits differ; a grid has to be the same on every node of a cluster.
These use only operations that IEEE 754 rounds correctly: + - * / sqrt and scaling by 2^k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# ln 2 in two parts; the first has 20 trailing zero bits, so that k * LN2_HIGH is exact for any
# exponent k of a float64.
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
ATANH_SERIES = tuple(1.0 / (2 * k + 1) for k in range(11))
EXP_SERIES = tuple(1.0 / math.factorial(k) for k in range(15))

# Wichura (1988), Algorithm AS 241, Applied Statistics 37(3), 477-484, routine PPND16:
# numerator and denominator, ascending powers, relative error about 1e-16.
CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def log(x: Floats) -> Floats:
    """Natural logarithm of positive numbers, by the series of 2 atanh((m - 1)/(m + 1)).

    Args:
        x: Positive finite numbers of any shape.

    Returns:
        log x, in the shape of x.
    """
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa, power = np.where(small, 2.0 * mantissa, mantissa), (exponent - small).astype(float)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    small_part: Floats = 2.0 * s * _polynomial(ATANH_SERIES, s * s) + power * LN2_LOW
    return power * LN2_HIGH + small_part


def scaled_exp(base: Floats, t: Floats) -> Floats:
    """The product base * exp(t), which is exactly base where t = 0.

    Args:
        base: Factors, in the shape of t.
        t: Numbers of any shape, |t| < 1500.

    Returns:
        base * exp(t), in the shape of t.
    """
    power = np.rint(t / (LN2_HIGH + LN2_LOW))
    remainder = (t - power * LN2_HIGH) - power * LN2_LOW
    product: Floats = base * _polynomial(EXP_SERIES, remainder)
    scaled: Floats = np.ldexp(product, power.astype(np.int32))
    return scaled


def normal_quantile(u: Floats) -> Floats:
    """Quantile of the standard normal distribution, by Wichura's AS 241.

    Args:
        u: Probabilities strictly between 0 and 1, any shape.

    Returns:
        z with Phi(z) = u, in the shape of u.
    """
    q = u - 0.5
    z = q * _rational(CENTRE, 0.180625 - q * q)
    outer = np.abs(q) > 0.425
    r = np.sqrt(-log(np.minimum(u, 1.0 - u)[outer]))
    tail = np.where(r <= 5.0, _rational(TAIL, r - 1.6), _rational(FAR_TAIL, r - 5.0))
    z[outer] = np.copysign(tail, q[outer])
    return z


def _rational(coefficients: tuple[Sequence[float], Sequence[float]], x: Floats) -> Floats:
    return _polynomial(coefficients[0], x) / _polynomial(coefficients[1], x)


def _polynomial(coefficients: Sequence[float], x: Floats) -> Floats:
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
