"""Pure reverse mode: point by point, or over a whole batch with the function under vmap.

Nothing of torch.func but `vmap` is used: its transforms take twice as long per operation, and load
torch's compiler at their first call.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.autograd.definitions.contractions import alone
from pipeline.autograd.definitions.differentiation import Levels
from pipeline.autograd.definitions.passes import reverse
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import Request


def reverse_batch(request: Request, chunk: int) -> Callable[[Tensor], Levels]:
    """What is asked for at a batch of points, by reverse mode at every level.

    Args:
        request: What is evaluated.
        chunk: Rows of a level that are differentiated together.

    Returns:
        A function from points (B, d) to what `Request.keys` says, (B, …) each.
    """
    batched = torch.func.vmap(lambda z, point: request.at(point)[0](z))

    def evaluate(points: Tensor) -> Levels:
        with torch.enable_grad():
            z = request.variables(points).detach().requires_grad_()
            levels = [batched(z, points)]
            for level in range(1, request.whole_order + 1):
                create_graph = level < request.whole_order
                levels.append(reverse(levels[-1], z, chunk, create_graph))
            contracted = [
                torch.func.vmap(item.of)(levels[item.order].detach(), points)
                if request.has_whole(item)
                else item.reversed(levels[0], z, points, chunk)
                for item in request.contractions
            ]
        kept = [levels[order] for order in request.orders]
        return tuple(level.detach() for level in [*kept, *contracted])

    return evaluate


def plain(request: Request, point: Tensor) -> Levels:
    """What is asked for at one point, by plain backward passes, one after the other.

    Args:
        request: What is evaluated; its function may do whatever a backward pass allows.
        point: (d,).

    Returns:
        What `Request.keys` says.
    """
    g, z = request.at(point)
    levels = derivatives(g, z, request.whole_order) if request.orders else ()
    contracted = [
        item.of(levels[item.order], point) if request.has_whole(item) else alone(item, g, z, point)
        for item in request.contractions
    ]
    return (*(levels[order] for order in request.orders), *contracted)
