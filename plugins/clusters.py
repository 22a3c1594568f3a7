"""Energies of atomic clusters with pair potentials; their Hessians give vibrational modes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline import Function, Scenario, hookimpl

Slopes = tuple[Tensor, Tensor]

HOARE_PAL = "M. R. Hoare & P. Pal, Adv. Phys. 20 (1971) 161-196"
WALES_DOYE = "D. J. Wales & J. P. K. Doye, J. Phys. Chem. A 101 (1997) 5111-5116"
DOYE_WALES = "J. P. K. Doye & D. J. Wales, J. Chem. Soc., Faraday Trans. 93 (1997) 4233-4243"

MORSE_13_RADIUS = 0.9647027502285754


def build_lennard_jones(
    atoms: int = 13, epsilon: float = 1.0, sigma: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Build the Lennard-Jones energy, the sum of 4 ε ((σ/r)^12 - (σ/r)^6) over all pairs.

    Args:
        atoms: Number of atoms, N.
        epsilon: Depth of the pair potential.
        sigma: Distance at which the pair potential is zero.

    Returns:
        Maps the coordinates x1, y1, z1, x2, … (3 N,) of distinct places to the energy ().
    """
    squared_distances = _squared_distances(atoms)
    # a = 2 √ε (σ/r)^6 makes every pair a (a - 2 √ε), with no further factor
    strength = 2 * math.sqrt(epsilon)
    scale = math.cbrt(strength) * sigma**2

    def energy(x: Tensor) -> Tensor:
        ratio = scale / squared_distances(x)
        attraction = ratio * ratio * ratio
        return (attraction * (attraction - strength)).sum()

    return energy


def build_morse(atoms: int = 13, rho: float = 6.0) -> Callable[[Tensor], Tensor]:
    """Build the Morse energy, the sum of e^{ρ(1-r)} (e^{ρ(1-r)} - 2) over all pairs.

    Args:
        atoms: Number of atoms, N.
        rho: Inverse range of the pair potential; its depth and equilibrium distance are 1.

    Returns:
        Maps the coordinates x1, y1, z1, x2, … (3 N,) of distinct places to the energy ().
    """
    squared_distances = _squared_distances(atoms)

    def energy(x: Tensor) -> Tensor:
        bond = torch.exp(rho * (1 - squared_distances(x).sqrt()))
        return (bond * (bond - 2)).sum()

    return energy


def _squared_distances(atoms: int) -> Callable[[Tensor], Tensor]:
    if atoms < 2:
        raise ValueError(f"atoms: expected at least 2, got {atoms}")
    pairs = torch.triu_indices(atoms, atoms, offset=1)

    def squared_distances(x: Tensor) -> Tensor:
        # coordinates first, so that all that follows runs along the pairs in memory;
        # plain indexing, because the derivative of index_select is not reproducible on CUDA
        first, second = pairs.to(x.device)
        place = x.reshape(atoms, 3).T
        apart = place[:, first] - place[:, second]
        return (apart * apart).sum(0)

    return squared_distances


def lennard_jones_gradient(
    x: Tensor, atoms: int = 13, epsilon: float = 1.0, sigma: float = 1.0
) -> Tensor:
    """Gradient of the Lennard-Jones energy by hand, (3 N,)."""
    return _gradient(x, atoms, lambda q: _lennard_jones_slopes(q, epsilon, sigma))


def lennard_jones_hessian(
    x: Tensor, atoms: int = 13, epsilon: float = 1.0, sigma: float = 1.0
) -> Tensor:
    """Hessian of the Lennard-Jones energy by hand, (3 N, 3 N)."""
    return _hessian(x, atoms, lambda q: _lennard_jones_slopes(q, epsilon, sigma))


def morse_gradient(x: Tensor, atoms: int = 13, rho: float = 6.0) -> Tensor:
    """Gradient of the Morse energy by hand, (3 N,)."""
    return _gradient(x, atoms, lambda q: _morse_slopes(q, rho))


def morse_hessian(x: Tensor, atoms: int = 13, rho: float = 6.0) -> Tensor:
    """Hessian of the Morse energy by hand, (3 N, 3 N)."""
    return _hessian(x, atoms, lambda q: _morse_slopes(q, rho))


def _lennard_jones_slopes(q: Tensor, epsilon: float, sigma: float) -> Slopes:
    """First and second derivative of the pair potential by the squared distance q."""
    s = sigma**2 / q
    return 4 * epsilon * (3 * s**3 - 6 * s**6) / q, 4 * epsilon * (42 * s**6 - 12 * s**3) / q**2


def _morse_slopes(q: Tensor, rho: float) -> Slopes:
    """First and second derivative of the pair potential by the squared distance q."""
    r = q.sqrt()
    bond = torch.exp(rho * (1 - r))
    by_r = -2 * rho * bond * (bond - 1)
    by_r_twice = 2 * rho**2 * bond * (2 * bond - 1)
    return by_r / (2 * r), (by_r_twice - by_r / r) / (4 * q)


def _pair_table(x: Tensor, atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Differences (N, N, 3), squared distances (N, N) with 1 on the diagonal, 1 off it."""
    place = x.reshape(atoms, 3)
    apart = place[:, None] - place
    same = torch.eye(atoms, dtype=x.dtype, device=x.device)
    return apart, (apart * apart).sum(-1) + same, 1 - same


def _gradient(x: Tensor, atoms: int, slopes: Callable[[Tensor], Slopes]) -> Tensor:
    apart, q, others = _pair_table(x, atoms)
    slope = others * slopes(q)[0]
    return (2 * slope[..., None] * apart).sum(1).reshape(-1)


def _hessian(x: Tensor, atoms: int, slopes: Callable[[Tensor], Slopes]) -> Tensor:
    apart, q, others = _pair_table(x, atoms)
    slope, bend = (others * part for part in slopes(q))
    identity = torch.eye(3, dtype=x.dtype, device=x.device)
    outer = apart[..., :, None] * apart[..., None, :]
    stiffness = 4 * bend[..., None, None] * outer + 2 * slope[..., None, None] * identity
    own = (1 - others)[..., None, None] * stiffness.sum(1)[:, None]
    return (own - stiffness).permute(0, 2, 1, 3).reshape(3 * atoms, 3 * atoms)


def icosahedron(radius: float) -> tuple[float, ...]:
    """Coordinates of the centre and the 12 corners of an icosahedron.

    Args:
        radius: Distance of the corners from the centre, which lies at the origin.

    Returns:
        x1, y1, z1, …, z13; the centre is the first atom.
    """
    golden = (1 + math.sqrt(5)) / 2
    short = radius / math.hypot(1, golden)
    corners = [
        (0.0, a * short, b * short * golden) for a, b in itertools.product((1.0, -1.0), repeat=2)
    ]
    turned = [corner[k:] + corner[:k] for k in range(3) for corner in corners]
    return (0.0, 0.0, 0.0, *itertools.chain.from_iterable(turned))


def lennard_jones_13() -> tuple[float, float]:
    """Give the radius and the energy of the relaxed icosahedron for ε = σ = 1, in closed form.

    Symmetry leaves one unknown, the radius R. Its 78 pairs have four distances, so that
    E = 4 (A R^-12 - B R^-6), with its minimum -B² / A at R^6 = 2 A / B.

    Returns:
        Radius and energy.
    """
    golden = (1 + math.sqrt(5)) / 2
    edge = 4 / (1 + golden**2)
    shells = ((12, 1.0), (30, edge), (30, edge * golden**2), (6, 4.0))
    repulsion = math.fsum(count / q**6 for count, q in shells)
    attraction = math.fsum(count / q**3 for count, q in shells)
    return (2 * repulsion / attraction) ** (1 / 6), -(attraction**2) / repulsion


def _dimer(distance: float) -> tuple[float, ...]:
    return (0.0, 0.0, 0.0, distance, 0.0, 0.0)


def _trimer(side: float) -> tuple[float, ...]:
    return (0.0, 0.0, 0.0, side, 0.0, 0.0, side / 2, side * math.sqrt(0.75), 0.0)


def _stretch(curvature: float) -> list[list[float]]:
    """Hessian of a dimer along x at its minimum, (6, 6): only stretching costs energy."""
    ends = (1.0, 0.0, 0.0, -1.0, 0.0, 0.0)
    return [[curvature * a * b for b in ends] for a in ends]


def _lennard_jones_scenarios() -> list[Scenario]:
    at_rest = 2 ** (1 / 6)
    radius, energy = lennard_jones_13()
    unit = {"epsilon": 1.0, "sigma": 1.0}
    two, three, thirteen = ({"atoms": atoms, **unit} for atoms in (2, 3, 13))
    bond: dict[str, Any] = {
        "value": -1.0,
        "gradient": [0.0] * 6,
        "hessian": _stretch(72 / 2 ** (1 / 3)),
    }
    return [
        Scenario(_dimer(at_rest), bond, two),
        Scenario(_trimer(at_rest), {"value": -3.0, "gradient": [0.0] * 9}, three),
        Scenario(icosahedron(radius), {"value": energy, "gradient": [0.0] * 39}, thirteen),
        Scenario(
            icosahedron(radius),
            {"value": -44.326801},
            thirteen,
            source=f"{HOARE_PAL}; {WALES_DOYE}, table 1",
            tolerance=0.5e-6 / 44,
        ),
    ]


def _morse_scenarios() -> list[Scenario]:
    bond: dict[str, Any] = {"value": -1.0, "gradient": [0.0] * 6, "hessian": _stretch(2 * 6.0**2)}
    return [
        Scenario(_dimer(1.0), bond, {"atoms": 2, "rho": 6.0}),
        Scenario(_trimer(1.0), {"value": -3.0, "gradient": [0.0] * 9}, {"atoms": 3, "rho": 6.0}),
        Scenario(
            icosahedron(MORSE_13_RADIUS),
            {"value": -42.439863, "gradient": [0.0] * 39},
            {"atoms": 13, "rho": 6.0},
            source=DOYE_WALES,
            tolerance=0.5e-6 / 42,
        ),
    ]


def _coordinates(atoms: int, **_: Any) -> int:
    return 3 * atoms


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the pair potentials."""
    return [
        Function(
            "lennard_jones",
            build_lennard_jones,
            n=_coordinates,
            domain=(-3.0, 3.0),
            source="J. E. Jones, Proc. R. Soc. Lond. A 106 (1924) 463-477",
            summary="Energy of a cluster of atoms that attract each other by dispersion",
            input_units="unit of sigma",
            output_units="unit of epsilon",
            closed_form={"gradient": lennard_jones_gradient, "hessian": lennard_jones_hessian},
            scenarios=_lennard_jones_scenarios(),
        ),
        Function(
            "morse",
            build_morse,
            n=_coordinates,
            domain=(-3.0, 3.0),
            source=f"P. M. Morse, Phys. Rev. 34 (1929) 57-64; {DOYE_WALES}",
            summary="Energy of a cluster of atoms with bonds of adjustable range",
            closed_form={"gradient": morse_gradient, "hessian": morse_hessian},
            scenarios=_morse_scenarios(),
        ),
    ]
