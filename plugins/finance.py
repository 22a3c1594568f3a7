"""Prices of European options; their derivatives are the Greeks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline import Function, Scenario, hookimpl

Kind = Literal["call", "put"]

HULL = "J. C. Hull, Options, Futures, and Other Derivatives, Black-Scholes-Merton example"
HAUG = "E. G. Haug, The Complete Guide to Option Pricing Formulas, 2nd ed., 2007"


def build_black_scholes(
    kind: Literal["call", "put"] = "call", dividend: float = 0.0
) -> Callable[[Tensor], Tensor]:
    """Build the price ±(S e^{-qT} N(±d1) - K e^{-rT} N(±d2)) of a European call (+) or put (-).

    Args:
        kind: call or put.
        dividend: Continuous dividend yield q, per year.

    Returns:
        Maps spot S > 0, strike K > 0, maturity T > 0 in years, rate r per year and volatility
        σ > 0 per √year, (5,), to the price ().
    """
    sign = _sign(kind)

    def price(x: Tensor) -> Tensor:
        # vectors of one element: forward mode turns the tangent of number * scalar into float64
        spot, strike, maturity, rate, volatility = x.chunk(5)
        spread = volatility * maturity.sqrt()
        drift = (rate - dividend) * maturity
        d1 = ((spot / strike).log() + drift) / spread + spread / 2
        asset = spot * torch.exp(-dividend * maturity) * _normal(sign * d1)
        cash = strike * torch.exp(-rate * maturity) * _normal(sign * (d1 - spread))
        return (sign * (asset - cash)).squeeze(0)

    return price


def _sign(kind: Kind) -> int:
    return {"call": 1, "put": -1}[kind]


def _normal(d: Tensor) -> Tensor:
    """Standard normal distribution function; by erfc, so that its lower tail keeps its digits."""
    tail: Tensor = torch.special.erfc(d * -math.sqrt(0.5))
    return tail / 2


@dataclass(frozen=True)
class _Parts:
    """A price A - B and what its derivatives consist of; all gradients are (5,).

    Attributes:
        asset: A = ±S e^{-qT} N(±d1).
        asset_gradient: Its gradient.
        cash: B = ±K e^{-rT} N(±d2).
        cash_gradient: Its gradient.
        vega: S e^{-qT} n(d1) √T.
        vega_gradient: Its gradient.
    """

    asset: Tensor
    asset_gradient: Tensor
    cash: Tensor
    cash_gradient: Tensor
    vega: Tensor
    vega_gradient: Tensor


def _parts(x: Tensor, kind: Kind, dividend: float) -> _Parts:
    spot, strike, maturity, rate, volatility = x.unbind()
    zero, sign, root = torch.zeros_like(spot), _sign(kind), maturity.sqrt()
    spread = volatility * root
    carry = rate - dividend + volatility**2 / 2
    d1 = (torch.log(spot / strike) + carry * maturity) / spread
    d2 = d1 - spread
    d1_gradient = torch.stack(
        (
            1 / (spot * spread),
            -1 / (strike * spread),
            carry / spread - d1 / (2 * maturity),
            root / volatility,
            -d2 / volatility,
        )
    )
    d2_gradient = d1_gradient - torch.stack((zero, zero, volatility / (2 * root), zero, root))
    # A = ±F N(±d1) with F = S e^{-qT}, and B = ±G N(±d2) with G = K e^{-rT}
    log_F = torch.stack((1 / spot, zero, zero - dividend, zero, zero))
    log_G = torch.stack((zero, 1 / strike, -rate, -maturity, zero))
    log_root = torch.stack((zero, zero, 1 / (2 * maturity), zero, zero))
    F, G = spot * torch.exp(-dividend * maturity), strike * torch.exp(-rate * maturity)
    asset = sign * F * torch.special.ndtr(sign * d1)
    cash = sign * G * torch.special.ndtr(sign * d2)
    vega = F * _density(d1) * root
    return _Parts(
        asset,
        asset * log_F + F * _density(d1) * d1_gradient,
        cash,
        cash * log_G + G * _density(d2) * d2_gradient,
        vega,
        vega * (log_F + log_root - d1 * d1_gradient),
    )


def _density(d: Tensor) -> Tensor:
    return torch.exp(-(d**2) / 2) / math.sqrt(2 * math.pi)


def black_scholes_value(x: Tensor, kind: Kind = "call", dividend: float = 0.0) -> Tensor:
    """Price by the normal distribution function of torch, ()."""
    parts = _parts(x, kind, dividend)
    return parts.asset - parts.cash


def black_scholes_gradient(x: Tensor, kind: Kind = "call", dividend: float = 0.0) -> Tensor:
    """Delta, dual delta, minus theta, rho, vega by hand (Haug 2007, chapter 2), (5,)."""
    spot, strike, maturity, rate, volatility = x.unbind()
    parts = _parts(x, kind, dividend)
    decay = parts.vega * volatility / (2 * maturity)
    return torch.stack(
        (
            parts.asset / spot,
            -parts.cash / strike,
            decay - dividend * parts.asset + rate * parts.cash,
            maturity * parts.cash,
            parts.vega,
        )
    )


def black_scholes_hessian(x: Tensor, kind: Kind = "call", dividend: float = 0.0) -> Tensor:
    """Gamma, vanna, charm, volga, … by hand (Haug 2007, chapter 2), (5, 5)."""
    spot, strike, maturity, rate, volatility = x.unbind()
    parts = _parts(x, kind, dividend)
    by_spot, by_strike, by_maturity, by_rate, by_volatility = torch.eye(
        5, dtype=x.dtype, device=x.device
    )
    weight = volatility / (2 * maturity)
    weight_gradient = by_volatility / (2 * maturity) - weight / maturity * by_maturity
    return torch.stack(
        (
            (parts.asset_gradient - parts.asset / spot * by_spot) / spot,
            -(parts.cash_gradient - parts.cash / strike * by_strike) / strike,
            weight * parts.vega_gradient
            + parts.vega * weight_gradient
            - dividend * parts.asset_gradient
            + rate * parts.cash_gradient
            + parts.cash * by_rate,
            maturity * parts.cash_gradient + parts.cash * by_maturity,
            parts.vega_gradient,
        )
    )


def _price(
    x: Sequence[float], price: float, source: str, digits: int, kind: Kind = "call"
) -> Scenario:
    tolerance = 0.5 * 10**-digits / max(1.0, price)
    return Scenario(x, {"value": price}, {"kind": kind, "dividend": 0.0}, source, tolerance)


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the price of a European option."""
    return [
        Function(
            "black_scholes",
            build_black_scholes,
            n=5,
            domain=((80.0, 80.0, 0.1, 0.0, 0.1), (120.0, 120.0, 2.0, 0.1, 0.5)),
            source=(
                "F. Black & M. Scholes, J. Political Economy 81 (1973) 637-654; "
                "R. C. Merton, Bell J. Econ. Manage. Sci. 4 (1973) 141-183"
            ),
            summary="Price of a European call or put; its derivatives are the Greeks",
            input_names=("spot", "strike", "maturity", "rate", "volatility"),
            input_units="currency, currency, year, 1/year, 1/year^0.5",
            output_units="currency",
            closed_form={
                "value": black_scholes_value,
                "gradient": black_scholes_gradient,
                "hessian": black_scholes_hessian,
            },
            scenarios=[
                _price((42.0, 40.0, 0.5, 0.1, 0.2), 4.76, HULL, digits=2),
                _price((42.0, 40.0, 0.5, 0.1, 0.2), 0.81, HULL, digits=2, kind="put"),
                _price((60.0, 65.0, 0.25, 0.08, 0.3), 2.1334, f"{HAUG}, section 1.1.1", digits=4),
            ],
        )
    ]
