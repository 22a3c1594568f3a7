"""Route `loop`: the reference, point by point; works wherever a plain backward pass works."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from pipeline.autograd.methods.reverse import plain
from pipeline.autograd.request import Request
from pipeline.autograd.routes.base import spell_mode
from pipeline.autograd.routes.pointwise import PointwiseRoute


class LoopRoute(PointwiseRoute):
    """Evaluate the reference at one point after the other."""

    name: ClassVar[str] = "loop"

    def modes(self, request: Request) -> tuple[str, ...]:
        """Reverse mode at every level: one backward pass per element."""
        return (spell_mode(("rev",) * request.order),)

    def rank(self, request: Request, mode: str) -> int:
        """After everything else."""
        return 2

    def at(self, request: Request, mode: str, point: Tensor) -> tuple[Tensor, ...]:
        """By plain backward passes.

        Returns:
            What `Request.keys` says.
        """
        return plain(request, point)
