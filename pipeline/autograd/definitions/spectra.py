"""Eigenvalues and eigenvectors of the Hessian of a scalar function, or of the mass-weighted one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.definitions.contractions import Contraction, Modes, OnPoint
from pipeline.autograd.definitions.differentiation import differentiate
from pipeline.autograd.definitions.passes import reverse
from pipeline.errors import ConfigurationError

LARGE = (
    0.6  # of the largest entry: no ratio that symmetric molecules have, such as 1, 1/2 or 1/sqrt(2)
)


@dataclass(frozen=True)
class OfHessian(Contraction):
    """What follows from ``M^-1/2 H M^-1/2``, H the Hessian: no sum of its entries, but of it alone.

    Attributes:
        masses: Of M = diag(masses), one for each variable (Wilson, Decius, Cross, Molecular
            Vibrations, 1955, chapter 2); nothing for H itself.
    """

    masses: tuple[float, ...] = ()
    order: int = 2

    @abstractmethod
    def follow(self, matrix: Tensor) -> Tensor:
        """Say what follows from a symmetric matrix (n, n) whose entries are finite."""

    def sweeps(self, n: int, m: int, modes: Modes) -> int:
        """Those of the whole Hessian."""
        return math.prod(n if mode == "fwd" else n**level for level, mode in enumerate(modes[:2]))

    def of(self, level: Tensor, row: Tensor) -> Tensor:
        """What follows from the symmetric part; NaN where an entry is not finite."""
        level = self._weighted(level)
        finite = level.isfinite().all()
        symmetric = torch.where(finite, 0.5 * (level + level.mT), torch.zeros_like(level))
        result = self.follow(symmetric)
        return torch.where(finite, result, torch.full_like(result, float("nan")))

    def transformed(self, g: OnPoint, z: Tensor, row: Tensor, modes: Modes, chunk: int) -> Tensor:
        """From the whole Hessian."""
        return self.of(differentiate(g, modes[:2], chunk)(z)[2], row)

    def reversed(self, y: Tensor, z: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """From the whole Hessian."""
        hessian = reverse(reverse(y, z, chunk, create_graph=True), z, chunk)
        result: Tensor = torch.func.vmap(self.of)(hessian.detach(), rows)
        return result

    def magnitude(self, level: Tensor, row: Tensor) -> Tensor:
        """Rounding moves every eigenvalue by as much as the largest one is rounded."""
        return self._weighted(level).nan_to_num(0.0, 0.0, 0.0).square().sum().sqrt()

    def _weighted(self, level: Tensor) -> Tensor:
        if not self.masses:
            return level
        scale = torch.tensor(self.masses, dtype=level.dtype, device=level.device).rsqrt()
        return scale[:, None] * level * scale


@dataclass(frozen=True)
class Weighted(OfHessian):
    """The matrix itself."""

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Of a matrix."""
        return (n, n)

    def follow(self, matrix: Tensor) -> Tensor:
        """Itself."""
        return matrix


@dataclass(frozen=True)
class Spectrum(OfHessian):
    """Eigenvalues, ascending."""

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """As many as variables."""
        return (n,)

    def follow(self, matrix: Tensor) -> Tensor:
        """As LAPACK gives them."""
        values: Tensor = torch.linalg.eigvalsh(matrix)
        return values


@dataclass(frozen=True)
class Eigenvectors(OfHessian):
    """Eigenvectors in columns, in the order of the eigenvalues, orthonormal.

    Of each column the first entry that is at least 0.6 times as large as the largest is positive.
    In a space of equal eigenvalues any orthonormal basis is as good as another: results are
    therefore not compared themselves, but the matrix that they make with their Rayleigh quotients.
    """

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """A column for each mode."""
        return (n, n)

    def follow(self, matrix: Tensor) -> Tensor:
        """As LAPACK gives them, with signs."""
        vectors = torch.linalg.eigh(matrix)[1]
        size = vectors.abs()
        first = (size >= LARGE * size.amax(0)).to(torch.uint8).argmax(0)
        signed: Tensor = vectors * vectors.gather(0, first[None]).sign()
        return signed

    @property
    def judge(self) -> Contraction:
        """The matrix whose eigenvectors they are."""
        return Weighted(self.masses)

    def judged(self, result: Tensor, reference: Tensor) -> Tensor:
        """The matrix with these eigenvectors, and the reference's quotients in ascending order."""
        quotients = (result * (reference @ result)).sum(0).sort().values
        matrix: Tensor = result * quotients @ result.mT
        return matrix


def spread(masses: Sequence[float], n: int) -> tuple[float, ...]:
    """Give every variable its mass.

    Args:
        masses: One for each variable, or one for each group of as many variables that follow each
            other: 13 for the 39 coordinates x1, y1, z1, x2, ….
        n: Number of variables.

    Returns:
        n masses; nothing of nothing.

    Raises:
        ConfigurationError: They do not fit, or are no masses; lists every fault.
    """
    faults = [
        f"masses: expected positive numbers, got {mass} at index {place}"
        for place, mass in enumerate(masses)
        if not 0 < mass < math.inf
    ]
    if masses and n % len(masses):
        faults.append(
            f"masses: expected one for each of {n} variables, or one for each group of as many, got "
            f"{len(masses)}"
        )
    if faults:
        raise ConfigurationError(faults)
    return tuple(float(mass) for mass in masses for _ in range(n // len(masses)))
