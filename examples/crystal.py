"""Silicon by CHGNet, a potential for all elements: the energy of one cell by the places of its atoms.

python -m pipeline job=modes function=silicon 'plugins=[examples/crystal.py]' 'masses=[28.0855,28.0855]' \
    grid=points 'grid.values=[[0,0,0,0,0,0]]'

An eigenvalue w of the weighted Hessian, in eV/Å²/u, is the frequency 15.633302 sqrt(w) THz. The surface of this
potential is rough: at rest it is curved as its second derivative says, 11.5 THz, within 0.003 Å alone, and
differences of its forces over 0.01 to 0.03 Å, as phonon codes take, give 13 THz (measured: 15.5).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from chgnet.model import CHGNet
from pymatgen.core import Lattice, Structure
from torch import Tensor

from pipeline import Function, hookimpl, module_function

EDGE = 5.431 / 2**0.5  # Å, of the primitive cell
SILICON = Structure(
    Lattice.from_parameters(EDGE, EDGE, EDGE, 60, 60, 60), ["Si", "Si"], [[0, 0, 0], [0.25] * 3]
)


class Cell(torch.nn.Module):
    """The energy in eV, (), by displacements of the atoms in Å, (3 atoms,); neighbours stay those at rest."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.net = CHGNet.load(use_device="cpu", verbose=False).eval()
        self.net.composition_model = None  # a constant, and in float32 alone
        self.graph = self.net.graph_converter(structure)
        self.register_buffer("start", self.graph.atom_frac_coord.detach())
        self.register_buffer("lattice", self.graph.lattice.detach())
        self.register_buffer("image", self.graph.neighbor_image)
        self.graph.atom_frac_coord = self.graph.lattice = None  # the buffers take their places

    def forward(self, moved: Tensor) -> Tensor:
        """Evaluate."""
        graph = copy.copy(self.graph)
        graph.lattice, graph.neighbor_image = self.lattice, self.image
        graph.atom_frac_coord = self.start + moved.reshape(-1, 3) @ torch.linalg.inv(self.lattice)
        energy: Tensor = self.net([graph])["e"][0] * len(graph.atomic_number)  # e is per atom
        return energy


def build() -> Callable[[Tensor], Tensor]:
    """Build the energy of the primitive cell."""
    return module_function(Cell(SILICON))


@hookimpl
def pipeline_functions() -> list[Function]:
    """Contribute the crystal."""
    return [
        Function(
            "silicon",
            build,
            n=3 * len(SILICON),
            domain=(-0.05, 0.05),
            input_units="Å",
            output_units="eV",
            summary="Energy of the primitive cell of silicon, by CHGNet",
            source="B. Deng et al., Nat. Mach. Intell. 5 (2023) 1031-1041",
        )
    ]
