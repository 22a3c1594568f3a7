"""What is compared of a derivative: every entry of a small one, a contraction of a large one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.autograd.definitions.contractions import Contraction, OnPoint, alone
from pipeline.autograd.methods.nearby import random_signs
from pipeline.autograd.reference import derivatives, directional
from pipeline.autograd.request import Key, Request, order_of


@dataclass(frozen=True)
class View:
    """What is compared: every entry of small results, a contraction of large ones.

    Attributes:
        request: What is evaluated.
        weights: w of `output_shape` that takes the place of the outputs; None entry by entry.
        vectors: v_1 … v_(k-1), (n,), that take the place of all inputs but the last.
    """

    request: Request
    weights: Tensor | None
    vectors: tuple[Tensor, ...]

    def of(self, row: Tensor, key: Key, expected: Tensor) -> Tensor:
        """Look at one point's derivative.

        Args:
            row: Shape ``output_shape + (n,) * order``, or that of a contraction.
            key: Its order, or the contraction.
            expected: What the reference has there.

        Returns:
            The derivative itself, or its contraction with random directions, of shape () at order 0
            and (n,) above; of what is a contraction already, what is judged of it.
        """
        if self.request.is_sparse(row[None], key):
            return self._of_entries(row, order_of(key))
        if isinstance(key, Contraction):
            return key.judged(row, expected)
        if self.weights is None:
            return row
        dims = self.weights.ndim
        row = torch.tensordot(self.weights.to(row), row, dims=dims) if dims else self.weights * row
        for vector in self.vectors[: max(key - 1, 0)]:
            row = torch.tensordot(vector.to(row), row, dims=1)
        return row

    def _of_entries(self, row: Tensor, order: int) -> Tensor:
        """The same of the entries of a pattern, (nnz,)."""
        pattern = self.request.pattern
        assert pattern is not None, "there are such entries"
        if self.weights is None:
            return pattern.to_dense(row)
        along = [*([self.weights] if self.weights.ndim else []), *self.vectors[: order - 1]]
        places = pattern.coordinates.to(row.device)
        terms = row if self.weights.ndim else row * self.weights.to(row)
        for vector, place in zip(along, places[:-1], strict=True):
            terms = terms * vector.to(row)[place]
        result = row.new_zeros(pattern.shape[-1])
        return result.index_add(0, pattern.columns.to(row.device), terms)

    def reference(self, point: Tensor, step: Tensor | None = None) -> list[Tensor]:
        """Evaluate the same by the reference.

        Args:
            point: (d,).
            step: (n,), how far beside the point the variables are; None: at the point.

        Returns:
            Per key asked for, in float64.
        """
        g, z = self.request.at(point)
        z = z if step is None else z + step
        found = self._entries(g, z, point) if self.weights is None else self._views(g, z, point)
        return [view.to(torch.float64) for view in found]

    def magnitudes(self, point: Tensor) -> list[float]:
        """Largest sum of the sizes of the terms, for each contraction; 0 where it is not known."""
        if self.weights is not None or not self.request.contractions:
            return [0.0 for _ in self.request.keys]
        g, z = self.request.at(point)
        levels = derivatives(g, z, self.request.order)
        sums = (item.magnitude(levels[item.order], point) for item in self.request.contractions)
        sizes = [float(each.max()) for each in sums]
        known = [size if size < float("inf") else 0.0 for size in sizes]
        return [*(0.0 for _ in self.request.orders), *known]

    def _entries(self, g: OnPoint, z: Tensor, point: Tensor) -> list[Tensor]:
        request = self.request
        levels = derivatives(g, z, request.order)
        contracted = [item.judge.of(levels[item.order], point) for item in request.contractions]
        return [*(levels[order] for order in request.orders), *contracted]

    def _views(self, g: OnPoint, z: Tensor, point: Tensor) -> list[Tensor]:
        assert self.weights is not None
        weights, views = self.weights.to(point), []
        for order in self.request.orders:
            vectors = [vector.to(point) for vector in self.vectors[: max(order - 1, 0)]]
            value, gradient = directional(g, z, weights, vectors)
            views.append(gradient if order else value)
        return [*views, *(alone(item.judge, g, z, point) for item in self.request.contractions)]


def contracted(request: Request, points: Tensor, seed: int) -> View:
    """Look along random directions.

    Args:
        request: What is evaluated.
        points: (P, d): where the directions are kept.
        seed: Of the directions.

    Returns:
        The view.
    """
    weights, *vectors = [each.to(points.device) for each in random_directions(request, seed)]
    return View(request, weights, tuple(vectors))


def random_directions(request: Request, seed: int) -> list[Tensor]:
    """Draw what takes the place of the outputs, and of all inputs but the last.

    Args:
        request: What is evaluated.
        seed: Of the directions.

    Returns:
        w of `output_shape` and v_1 … v_(k-1), (n,), of ones and minus ones.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = [request.output_shape] + [(request.n,)] * max(request.order - 1, 0)
    return [random_signs(shape, generator) for shape in shapes]
