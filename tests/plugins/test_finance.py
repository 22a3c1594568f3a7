"""Black-Scholes prices and Greeks against textbook numbers and formulas."""

import math
from typing import ClassVar

import pytest
import torch

from pipeline.testing import FunctionTests
from plugins.finance import black_scholes_hessian, build_black_scholes

SPOT, STRIKE, MATURITY, RATE, VOLATILITY = range(5)


class TestPut(FunctionTests):
    function = "black_scholes"
    parameters: ClassVar = {"kind": "put", "dividend": 0.03}


def point(*x):
    return torch.tensor(x, dtype=torch.float64)


def greeks(x, **parameters):
    f = build_black_scholes(**parameters)
    return torch.func.grad(f)(x), torch.func.hessian(f)(x)


def test_greeks_of_hull():
    # Hull, Options, Futures, and Other Derivatives, the Greek letters: 20 weeks, 100 000 calls sold
    gradient, hessian = greeks(point(49, 50, 0.3846, 0.05, 0.2))
    assert gradient[SPOT].item() == pytest.approx(0.522, abs=5e-4)
    assert gradient[MATURITY].item() == pytest.approx(4.31, abs=5e-3)
    assert gradient[RATE].item() == pytest.approx(8.91, abs=5e-3)
    assert gradient[VOLATILITY].item() == pytest.approx(12.1, abs=5e-2)
    assert hessian[SPOT, SPOT].item() == pytest.approx(0.066, abs=5e-4)


def test_greeks_of_haug():
    # Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., 2007, chapter 2
    _, gamma = greeks(point(55, 60, 0.75, 0.1, 0.3))
    vega, _ = greeks(point(55, 60, 0.75, 0.105, 0.3), dividend=0.0355)
    theta, _ = greeks(point(430, 405, 1 / 12, 0.07, 0.2), kind="put", dividend=0.05)
    rho, _ = greeks(point(72, 75, 1, 0.09, 0.19))
    assert gamma[SPOT, SPOT].item() == pytest.approx(0.0278, abs=5e-5)
    assert vega[VOLATILITY].item() == pytest.approx(18.5027, abs=5e-5)
    assert -theta[MATURITY].item() == pytest.approx(-31.1924, abs=5e-5)
    assert rho[RATE].item() == pytest.approx(38.7325, abs=5e-5)


def test_second_order_greeks_are_the_textbook_formulas():
    x, q = point(105, 98, 0.7, 0.04, 0.25), 0.02
    S, K, T, r, sigma = x.tolist()
    root = math.sqrt(T)
    d1 = (math.log(S / K) + (r - q + sigma**2 / 2) * T) / (sigma * root)
    d2 = d1 - sigma * root
    density = math.exp(-(d1**2) / 2) / math.sqrt(2 * math.pi)
    below = math.erfc(-d1 / math.sqrt(2)) / 2
    discount = math.exp(-q * T)
    hessian = black_scholes_hessian(x, dividend=q)
    vega = S * discount * density * root
    drift = density * ((r - q) / (sigma * root) - d2 / (2 * T))
    for i, j, expected in (
        (SPOT, SPOT, discount * density / (S * sigma * root)),
        (SPOT, VOLATILITY, -discount * density * d2 / sigma),
        (VOLATILITY, VOLATILITY, vega * d1 * d2 / sigma),
        (SPOT, MATURITY, discount * (drift - q * below)),
        (SPOT, STRIKE, -discount * density / (K * sigma * root)),
        (
            STRIKE,
            STRIKE,
            math.exp(-r * T)
            * K
            * density
            * S
            * discount
            / (K * math.exp(-r * T))
            / (K**2 * sigma * root),
        ),
    ):
        assert hessian[i, j].item() == pytest.approx(expected, rel=1e-12)


def test_prices_satisfy_the_black_scholes_equation():
    x, q = point(92, 101, 1.3, 0.06, 0.4), 0.01
    S, _, _, r, sigma = x.tolist()
    for kind in ("call", "put"):
        price = build_black_scholes(kind, q)(x)
        gradient, hessian = greeks(x, kind=kind, dividend=q)
        diffusion = sigma**2 * S**2 * hessian[SPOT, SPOT] / 2
        change = diffusion + (r - q) * S * gradient[SPOT] - r * price
        torch.testing.assert_close(gradient[MATURITY], change, rtol=1e-12, atol=1e-12)


def test_call_minus_put_is_the_forward():
    x, q = point(92, 101, 1.3, 0.06, 0.4), 0.01
    parity = build_black_scholes("call", q)(x) - build_black_scholes("put", q)(x)
    assert parity.item() == pytest.approx(92 * math.exp(-1.3 * q) - 101 * math.exp(-1.3 * 0.06))


def test_far_out_of_the_money_keeps_its_digits():
    x = point(80, 120, 0.1, 0.0, 0.1)
    assert 0 < build_black_scholes()(x).item() < 1e-30
    third = torch.func.jacfwd(torch.func.hessian(build_black_scholes()))(x)
    assert third.isfinite().all()
