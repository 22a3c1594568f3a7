"""Derivatives of which only a sum is wanted: along a direction, the diagonal, the trace.

Each is evaluated without the whole derivative where that is cheaper, in three ways that share
nothing: by transforms of torch.func, by plain reverse mode, and from the whole derivative, which is
the definition that the others are checked against.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.definitions.differentiation import basis, differentiate
from pipeline.autograd.definitions.passes import own_entries, pull_back, push, reverse

OnPoint = Callable[[Tensor], Tensor]
Modes = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction that is the same at every point, or stands in the row of each.

    Attributes:
        vector: The same at every point; None where each has its own.
        columns: Where it stands in a row: first column, and the one after the last.
    """

    vector: Tensor | None = None
    columns: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """Number of its entries."""
        first, after = self.columns
        return after - first if self.vector is None else len(self.vector)

    def at(self, row: Tensor) -> Tensor:
        """The direction that belongs to rows (…, d): (…, size), or (size,) for all of them."""
        return row[..., slice(*self.columns)] if self.vector is None else self.vector.to(row)


class Contraction(ABC):
    """A sum over entries of the derivative of some order; every subclass is final.

    Laws: `of` is the definition, linear in the derivative. `transformed` and `reversed` equal it to
    rounding.
    """

    order: int

    @abstractmethod
    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape at one point, for n variables and outputs of this shape."""

    @abstractmethod
    def sweeps(self, n: int, m: int, modes: Modes) -> int:
        """How many directions `transformed` goes through, for n variables and m outputs."""

    @abstractmethod
    def of(self, level: Tensor, row: Tensor) -> Tensor:
        """Contract the whole derivative.

        Args:
            level: output_shape + (n,) * order.
            row: What belongs to the point, (d,).

        Returns:
            The contraction.
        """

    @abstractmethod
    def transformed(self, g: OnPoint, z: Tensor, row: Tensor, modes: Modes, chunk: int) -> Tensor:
        """Evaluate at one point by torch.func.

        Args:
            g: Maps (n,) to output_shape.
            z: (n,).
            row: What belongs to the point, (d,).
            modes: fwd or rev for each level, innermost first.
            chunk: Directions evaluated together.

        Returns:
            The contraction.
        """

    @abstractmethod
    def reversed(self, y: Tensor, z: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """Evaluate at a batch of points by plain reverse mode.

        Args:
            y: The values, (B, *output_shape), with the graph that leads to them.
            z: (B, n), of which every row has led to its own row of y alone.
            rows: What belongs to the points, (B, d).
            chunk: Rows of a level that are differentiated together.

        Returns:
            (B, …).
        """

    @property
    def judge(self) -> Contraction:
        """What the reference gives in its place, where the result itself is not unique."""
        return self

    def judged(self, result: Tensor, reference: Tensor) -> Tensor:
        """What of a result is compared with what its judge gives at the same point, of that shape."""
        return result

    def __str__(self) -> str:
        return f"a contraction of order {self.order}"

    def magnitude(self, level: Tensor, row: Tensor) -> Tensor:
        """Sum of the sizes of the terms: what rounding is relative to."""
        return self.of(level.abs(), row.abs())


@dataclass(frozen=True, eq=False)
class Along(Contraction):
    """``D^k f[v]``, the last index contracted with a direction: jvp for k = 1, hvp for k = 2.

    Attributes:
        order: k.
        direction: v, (n,).
    """

    order: int
    direction: Direction

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """One index less than the whole."""
        return output_shape + (n,) * (self.order - 1)

    def sweeps(self, n: int, m: int, modes: Modes) -> int:
        """One along v; below it, those of the first derivative."""
        inner = (n if modes[0] == "fwd" else m) if self.order == 2 else 1
        return inner * (1 if modes[self.order - 1] == "fwd" else m)

    def of(self, level: Tensor, row: Tensor) -> Tensor:
        """Contract the last index."""
        return level @ self.direction.at(row)

    def transformed(self, g: OnPoint, z: Tensor, row: Tensor, modes: Modes, chunk: int) -> Tensor:
        """Forward mode along v outermost, or the gradient of the derivative along v."""
        return along(g, z, self.direction.at(row), modes[: self.order], chunk)

    def reversed(self, y: Tensor, z: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """The derivative along v by two reverse passes, then its gradient."""
        v = self.direction.at(rows).expand_as(z)
        if self.order == 1:
            return push(y, z, v, create_graph=False)
        return reverse(push(y, z, v, create_graph=True), z, chunk)


@dataclass(frozen=True, eq=False)
class Across(Contraction):
    """``w · Df``, the outputs contracted with a cotangent: vjp.

    Attributes:
        direction: w, of the shape of the output.
    """

    direction: Direction
    order: int = 1

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The variables are left."""
        return (n,)

    def sweeps(self, n: int, m: int, modes: Modes) -> int:
        """One backward; forward, all of the Jacobian."""
        return 1 if modes[0] == "rev" else n

    def of(self, level: Tensor, row: Tensor) -> Tensor:
        """Contract the outputs."""
        w = self.direction.at(row)
        return w @ level if level.ndim == 2 else w[0] * level

    def transformed(self, g: OnPoint, z: Tensor, row: Tensor, modes: Modes, chunk: int) -> Tensor:
        """One reverse pass; in forward mode the whole Jacobian."""
        if modes[0] == "fwd":
            return self.of(differentiate(g, modes[:1], chunk)(z)[1], row)
        y, pull = torch.func.vjp(g, z)  # type: ignore[misc]
        result: Tensor = pull(self.direction.at(row).reshape(y.shape))[0]
        return result

    def reversed(self, y: Tensor, z: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """One reverse pass."""
        w = self.direction.at(rows).expand(len(z), -1).reshape(y.shape)
        return pull_back(y, z, w, create_graph=False)


@dataclass(frozen=True)
class Diagonal(Contraction):
    """``∂²f/∂z_i²`` for every i, or their sum, the Laplacian.

    Attributes:
        summed: Whether they are added.
    """

    summed: bool
    order: int = 2

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The outputs, and the variables unless they are summed over."""
        return output_shape if self.summed else (*output_shape, n)

    def sweeps(self, n: int, m: int, modes: Modes) -> int:
        """Taylor mode goes once through the variables; others differentiate m outputs for each."""
        return n if modes[:2] == ("fwd", "fwd") else n * m

    def of(self, level: Tensor, row: Tensor) -> Tensor:
        """The diagonal of the Hessian, or the trace."""
        return self.finish(level.diagonal(dim1=-2, dim2=-1))

    def transformed(self, g: OnPoint, z: Tensor, row: Tensor, modes: Modes, chunk: int) -> Tensor:
        """``e_i · (Hessian e_i)``, a chunk of i at a time."""

        def entry(e: Tensor) -> Tensor:
            return along(g, z, e, modes[:2], chunk) @ e

        parts = [torch.func.vmap(entry)(block) for block in basis(len(z), chunk, z)]
        return self.finish(torch.cat(parts).movedim(0, -1))

    def reversed(self, y: Tensor, z: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """Row i of the Hessian, of which entry i is kept."""
        first = reverse(y, z, chunk, create_graph=True)
        return self.finish(own_entries(first, z, chunk))

    def finish(self, diagonal: Tensor) -> Tensor:
        """Add up the diagonal (…, n) where that is asked for."""
        return diagonal.sum(-1) if self.summed else diagonal


@dataclass(frozen=True)
class Divergence(Contraction):
    """``Σ_i ∂f_i/∂z_i`` of a function with as many outputs as variables."""

    order: int = 1

    def shape(self, n: int, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """A number."""
        return ()

    def sweeps(self, n: int, m: int, modes: Modes) -> int:
        """Each column or row once."""
        return n

    def of(self, level: Tensor, row: Tensor) -> Tensor:
        """The trace of the Jacobian."""
        return level.diagonal(dim1=-2, dim2=-1).sum(-1)

    def transformed(self, g: OnPoint, z: Tensor, row: Tensor, modes: Modes, chunk: int) -> Tensor:
        """``e_i · (Jacobian e_i)``, by columns or by rows, a chunk of i at a time."""
        sweep = _column(g, z) if modes[0] == "fwd" else torch.func.vjp(g, z)[1]
        total = z.new_zeros(())
        for block in basis(len(z), chunk, z):
            total = total + torch.func.vmap(lambda e: _first(sweep(e)) @ e)(block).sum()
        return total

    def reversed(self, y: Tensor, z: Tensor, rows: Tensor, chunk: int) -> Tensor:
        """Row i of the Jacobian, of which entry i is kept."""
        return own_entries(y, z, chunk).sum(-1)


def alone(item: Contraction, g: OnPoint, z: Tensor, row: Tensor) -> Tensor:
    """Evaluate a contraction at one point by plain reverse passes, one after the other.

    Args:
        item: Which.
        g: Maps (n,) to output_shape; it may do whatever a backward pass allows.
        z: (n,).
        row: What belongs to the point, (d,).

    Returns:
        The contraction.
    """
    with torch.enable_grad():
        batch = z.detach()[None].requires_grad_()
        return item.reversed(g(batch[0])[None], batch, row[None], chunk=1)[0].detach()


def _column(g: OnPoint, z: Tensor) -> OnPoint:
    def column(v: Tensor) -> Tensor:
        result: Tensor = torch.func.jvp(g, (z,), (v,))[1]
        return result

    return column


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]


def along(g: OnPoint, z: Tensor, v: Tensor, modes: Modes, chunk: int) -> Tensor:
    """``D^k g(z)[v]`` by torch.func: the last index contracted with a direction.

    Args:
        g: Maps (n,) to output_shape.
        z: (n,).
        v: (n,).
        modes: fwd or rev for each of k = 1 or 2 levels, innermost first.
        chunk: Directions evaluated together.

    Returns:
        output_shape + (n,) * (k - 1).
    """
    *inner, outer = modes
    if outer == "fwd":
        lower = differentiate(g, inner, chunk)
        return _column(lambda x: lower(x)[-1], z)(v)
    if not inner:
        return differentiate(g, ("rev",), chunk)(z)[1] @ v
    return differentiate(lambda x: along(g, x, v, modes[:1], chunk), ("rev",), chunk)(z)[1]
