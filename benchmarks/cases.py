"""The functions that are measured, each written once for torch and for jax.numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Points = np.ndarray


@dataclass(frozen=True)
class Library:
    """What a function needs from torch or from JAX: names that both have, and a few that differ.

    Attributes:
        xp: torch or jax.numpy.
        array: numpy array -> array of the precision measured.
        erfc: Complementary error function.
        softmax: Softmax over the last axis.
        convolve: (1, c, h, w) by (d, c, 3, 3), no padding.
        pairs: n -> row and column indices above the diagonal.
    """

    xp: Any
    array: Callable[[np.ndarray], Array]
    erfc: Callable[[Array], Array]
    softmax: Callable[[Array], Array]
    convolve: Callable[[Array, Array], Array]
    pairs: Callable[[int], tuple[Array, Array]]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: What it is.
        operators: What is evaluated.
        n: Number of inputs.
        build: Library -> function of one point.
        low: Lower ends of the points, one or n.
        high: Upper ends.
        order: Order of the operator `derivative`.
    """

    name: str
    operators: tuple[str, ...]
    n: int
    build: Callable[[Library], Callable[[Array], Array]]
    low: Any = -1.0
    high: Any = 1.0
    order: int | None = None

    def points(self, count: int) -> Points:
        """Random points, the same for every peer."""
        uniform = np.random.default_rng(0).random((count, self.n))
        low, high = np.broadcast_to(self.low, self.n), np.broadcast_to(self.high, self.n)
        return low + (high - low) * uniform


def rosenbrock(lib: Library) -> Callable[[Array], Array]:
    return lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def ackley(lib: Library) -> Callable[[Array], Array]:
    xp = lib.xp

    def f(x: Array) -> Array:
        radius = xp.sqrt((x * x).mean())
        return -20 * xp.exp(-0.2 * radius) - xp.exp(xp.cos(2 * math.pi * x).mean()) + 20 + math.e

    return f


def griewank(lib: Library) -> Callable[[Array], Array]:
    scale = lib.array(1 / np.sqrt(np.arange(1, 7)))
    return lambda x: (x * x).sum() / 4000 - lib.xp.cos(x * scale).prod() + 1


def lennard_jones(lib: Library) -> Callable[[Array], Array]:
    i, j = lib.pairs(13)

    def f(x: Array) -> Array:
        atoms = x.reshape(13, 3)
        squared = ((atoms[i] - atoms[j]) ** 2).sum(-1)
        attraction = 1 / (squared * squared * squared)
        return (4 * (attraction * attraction - attraction)).sum()

    return f


def black_scholes(lib: Library) -> Callable[[Array], Array]:
    xp = lib.xp

    def normal(d: Array) -> Array:
        return lib.erfc(d * -math.sqrt(0.5)) / 2

    def f(x: Array) -> Array:
        spot, strike, maturity, rate, volatility = (x[i] for i in range(5))
        spread = volatility * xp.sqrt(maturity)
        d1 = (xp.log(spot / strike) + rate * maturity) / spread + spread / 2
        return spot * normal(d1) - strike * xp.exp(-rate * maturity) * normal(d1 - spread)

    return f


def double_pendulum(lib: Library) -> Callable[[Array], Array]:
    xp = lib.xp

    def f(x: Array) -> Array:
        theta1, theta2, omega1, omega2 = (x[i] for i in range(4))
        s, c = xp.sin(theta1 - theta2), xp.cos(theta1 - theta2)
        upper = -(omega2**2) * s - 2 * 9.81 * xp.sin(theta1)
        lower = omega1**2 * s - 9.81 * xp.sin(theta2)
        inertia = 1 + s**2
        return xp.stack(
            [omega1, omega2, (upper - c * lower) / inertia, (2 * lower - c * upper) / inertia]
        )

    return f


LINKS = (
    (0.0, 0, 0.333),
    (0.0, -1, 0.0),
    (0.0, 1, 0.316),
    (0.0825, 1, 0.0),
    (-0.0825, -1, 0.384),
    (0.0, 1, 0.0),
    (0.088, 1, 0.0),
)


def robot_arm(lib: Library) -> Callable[[Array], Array]:
    xp = lib.xp

    def f(q: Array) -> Array:
        x: Any = 0.1
        y: Any = 0.2
        z: Any = 0.107
        for i, (a, quarter, d) in reversed(list(enumerate(LINKS))):
            c, s = xp.cos(q[i]), xp.sin(q[i])
            x, y, z = c * x - s * y + a, s * x + c * y, z + d
            y, z = ((y, z), (-z, y), (z, -y))[quarter]
        return xp.stack([x, y, z])

    return f


def robertson(lib: Library) -> Callable[[Array], Array]:
    def f(x: Array) -> Array:
        slow, very_fast, fast = 0.04 * x[0], 3e7 * x[1] * x[1], 1e4 * x[1] * x[2]
        return lib.xp.stack([fast - slow, slow - fast - very_fast, very_fast])

    return f


def mlp(n: int, hidden: int = 64) -> Callable[[Library], Callable[[Array], Array]]:
    def build(lib: Library) -> Callable[[Array], Array]:
        draw = np.random.default_rng(0).standard_normal
        w1 = lib.array(draw((hidden, n)) / n**0.5)
        w2 = lib.array(draw((hidden, hidden)) / hidden**0.5)
        w3 = lib.array(draw(hidden) / hidden**0.5)
        tanh = lib.xp.tanh
        return lambda x: (w3 * tanh(w2 @ tanh(w1 @ x))).sum()

    return build


def convolutional(lib: Library) -> Callable[[Array], Array]:
    draw = np.random.default_rng(0).standard_normal
    kernel, last = lib.array(draw((4, 1, 3, 3)) / 3), lib.array(draw((10, 144)) / 12)

    def f(x: Array) -> Array:
        return last @ lib.xp.tanh(lib.convolve(x.reshape(1, 1, 8, 8), kernel)).reshape(-1)

    return f


def attention(lib: Library) -> Callable[[Array], Array]:
    draw = np.random.default_rng(0).standard_normal
    query, key, value = (lib.array(draw((8, 8)) / 3) for _ in range(3))
    last = lib.array(draw((10, 64)) / 8)

    def f(x: Array) -> Array:
        tokens = x.reshape(8, 8)
        weights = lib.softmax((tokens @ query) @ (tokens @ key).T / 8**0.5)
        return last @ lib.xp.tanh(weights @ (tokens @ value)).reshape(-1)

    return f


SHELL = np.concatenate([np.eye(3), -np.eye(3), np.ones((1, 3)) / 2] * 2)[:13] * 1.2
SHELL = (SHELL + np.arange(13)[:, None] * np.array([0.3, 0.21, 0.13])).reshape(-1)
MARKET = np.array([50, 50, 0.1, 0.0, 0.1]), np.array([150, 150, 2.0, 0.1, 0.6])
HESSIAN, JACOBIAN = ("hessian",), ("jacobian",)

CASES = {
    case.name: case
    for case in (
        Case("Rosenbrock n=4", HESSIAN, 4, rosenbrock),
        Case("Rosenbrock n=32", HESSIAN, 32, rosenbrock),
        Case("Ackley n=10", HESSIAN, 10, ackley),
        Case("Lennard-Jones 13", HESSIAN, 39, lennard_jones, SHELL - 0.02, SHELL + 0.02),
        Case("Black-Scholes, grad + Hess", ("gradient", "hessian"), 5, black_scholes, *MARKET),
        Case("double pendulum, Jacobian", JACOBIAN, 4, double_pendulum),
        Case("double pendulum, Hessian", HESSIAN, 4, double_pendulum),
        Case("7-joint arm, Jacobian", JACOBIAN, 7, robot_arm),
        Case("Robertson, Jacobian", JACOBIAN, 3, robertson, 0.0, 1.0),
        Case("MLP n=8 h=64", HESSIAN, 8, mlp(8)),
        Case("MLP n=64 h=64", HESSIAN, 64, mlp(64)),
        Case("convolutional, Jacobian 10x64", JACOBIAN, 64, convolutional),
        Case("attention, Jacobian 10x64", JACOBIAN, 64, attention),
        Case("Griewank n=6, third order", ("derivative",), 6, griewank, -5.0, 5.0, 3),
    )
}
