"""Route `vmap`: eager torch, vectorised over points and directions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.autograd.cost import BATCHED_SECONDS, FORWARD_SECONDS, FUNC_SECONDS, Cost, count_eager
from pipeline.autograd.methods.reverse import reverse_batch
from pipeline.autograd.request import Evaluate, Request
from pipeline.autograd.routes.base import BOTH, Route, one_point, parse_mode, spell_mode

FAR_MORE = 16  # times as many sweeps


class VmapRoute(Route):
    """Pure reverse mode over the batch, or the one-point operator of torch.func under vmap."""

    name: ClassVar[str] = "vmap"
    widest: ClassVar[int] = 1 << 16
    pointwise: ClassVar[bool] = False

    def modes(self, request: Request) -> tuple[str, ...]:
        """Columns where there are fewer inputs than outputs, else rows; outer levels by columns."""
        k = request.order
        if k == 0:
            return ("none",)
        inner = (
            ("fwd", "rev") if request.n <= request.m and request.output_shape else ("rev", "fwd")
        )
        candidates = [(first,) + ("fwd",) * (k - 1) for first in inner] + [("rev",) * k]
        return tuple(dict.fromkeys(spell_mode(candidate) for candidate in candidates))

    def least_seconds(self, request: Request, mode: str) -> float:
        """Forward mode loads decompositions, and with these torch's compiler, when first used."""
        return FORWARD_SECONDS if "fwd" in mode else 0.0

    def rank(self, request: Request, mode: str) -> int:
        """Later where a mode takes far more sweeps than the best; even to count these takes long."""
        if request.pattern is not None:
            return 1
        least = min(_sweeps(request, each) for each in self.modes(request))
        return int(_sweeps(request, mode) > FAR_MORE * least)

    def takes(self, mode: str, request: Request) -> bool:
        """Any mode, also one that is not worth trying by itself."""
        return mode != BOTH

    def cost(self, request: Request, mode: str, chunk: int | None, budget: int) -> Cost:
        """Count operations and bytes of one and of two points.

        Returns:
            The cost at the largest chunk that fits.
        """
        return count_eager(
            lambda size: self.prepare(request, mode, size, 1),
            request.example[None],
            (chunk or request.directions, chunk or 1),
            budget,
            FUNC_SECONDS if "fwd" in mode else BATCHED_SECONDS,
        )

    def prepare(self, request: Request, mode: str, chunk: int, batch: int) -> Evaluate:
        """Compose the operator; torch.func keeps nothing between calls.

        Returns:
            The batch evaluation.
        """
        directions = parse_mode(mode, request.order)
        batched = (
            torch.func.vmap(one_point(request, directions, chunk))
            if "fwd" in directions
            else reverse_batch(request, chunk)
        )

        def evaluate(points: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                levels = batched(points)
            # forward mode under vmap promotes float32 to float64 at some operations
            return tuple(level.to(points.dtype) for level in levels)

        return evaluate


def _sweeps(request: Request, mode: str) -> int:
    """Most directions that a mode goes through for anything that is asked for."""
    modes = parse_mode(mode, request.order)
    own = [item for item in request.contractions if not request.has_whole(item)]
    return max(
        _whole_sweeps(request, modes[: request.whole_order]),
        *(item.sweeps(request.n, request.m, modes) for item in own),
        1,
    )


def _whole_sweeps(request: Request, modes: tuple[str, ...]) -> int:
    """Inputs forward, outputs of the level below backward."""
    sweeps, outputs = 1, request.m
    for direction in modes:
        sweeps *= request.n if direction == "fwd" else outputs
        outputs *= request.n
    return sweeps
