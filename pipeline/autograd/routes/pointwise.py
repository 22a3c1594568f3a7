"""What routes have in common that take one point after the other."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.autograd.cost import Cost, count_loop
from pipeline.autograd.request import Evaluate, Request
from pipeline.autograd.routes.base import Route


class PointwiseRoute(Route):
    """One point after the other: the batch has no influence on anything."""

    widest: ClassVar[int] = 16
    pointwise: ClassVar[bool] = True

    @abstractmethod
    def at(self, request: Request, mode: str, point: Tensor) -> tuple[Tensor, ...]:
        """Evaluate at one point.

        Args:
            request: What to evaluate.
            mode: One that the route takes.
            point: (d,).

        Returns:
            What `Request.keys` says.
        """

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations and bytes of one point.

        Returns:
            The cost.
        """
        evaluate = self.prepare(request, mode, 1, 1)
        return count_loop(evaluate, request.example[None], chunk or request.directions, budget)

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Nothing to prepare: each point is differentiated on its own.

        Returns:
            The batch evaluation.
        """

        def evaluate(points: Tensor) -> tuple[Tensor, ...]:
            rows = [self.at(request, mode, point) for point in points]
            return tuple(torch.stack(column) for column in zip(*rows, strict=True))

        return evaluate
