"""Water by dxtb, a differentiable extended tight binding: its energy by the places of its atoms.

python -m pipeline job=modes function=water 'plugins=[examples/xtb.py]' 'masses=[15.999,1.008,1.008]' \
    grid=points 'grid.values=[[0.075,0.02,0.142,-1.061,1.369,-0.306,0.66,-0.674,-1.436]]'

An eigenvalue w of the weighted Hessian, in Hartree/Bohr²/u, is the wave number 5140.48 sqrt(w) cm⁻¹: here
about 1470, 3620 and 3720.
"""

from __future__ import annotations

from collections.abc import Callable

import dxtb
import torch
from torch import Tensor

from pipeline import Function, hookimpl

WATER = (8, 1, 1)  # O, H, H
OPTIONS = {"verbosity": 0, "f_atol": 1e-11, "x_atol": 1e-11}


def build() -> Callable[[Tensor], Tensor]:
    """Build the energy of water, in Hartree, by the places of its atoms in Bohr, (9,)."""

    def energy(places: Tensor) -> Tensor:
        kind = {"dtype": places.dtype, "device": places.device}
        numbers = torch.tensor(WATER, device=places.device)
        calculator = dxtb.Calculator(numbers, dxtb.GFN1_XTB, opts=dict(OPTIONS), **kind)
        found: Tensor = calculator.get_energy(places.reshape(-1, 3))
        return found

    return energy


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the molecule."""
    return [
        Function(
            "water",
            build,
            n=3 * len(WATER),
            domain=(-2.0, 2.0),
            input_units="Bohr",
            output_units="Hartree",
            summary="Energy of a water molecule, by GFN1-xTB",
            source="M. Friede et al., J. Chem. Phys. 161 (2024) 062501",
        )
    ]
