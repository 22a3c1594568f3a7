"""Route `loop`: the reference, point by point; works wherever a plain backward pass works."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.autograd.cost import Cost, count_loop
from pipeline.autograd.request import Evaluate, Request
from pipeline.autograd.reverse import plain
from pipeline.autograd.routes.base import Route, spell_mode


class LoopRoute(Route):
    """Evaluate the reference at one point after the other."""

    name: ClassVar[str] = "loop"
    widest: ClassVar[int] = 16
    pointwise: ClassVar[bool] = True

    def modes(self, request: Request) -> tuple[str, ...]:
        """Reverse mode at every level: one backward pass per element."""
        return (spell_mode(("rev",) * request.order),)

    def takes(self, mode: str, request: Request) -> bool:
        """Only its own."""
        return mode in self.modes(request)

    def rank(self, request: Request, mode: str) -> int:
        """After everything else."""
        return 2

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
            rows = [plain(request, point) for point in points]
            return tuple(torch.stack(column) for column in zip(*rows, strict=True))

        return evaluate
