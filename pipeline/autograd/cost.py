"""What an evaluation takes: counted, so that the same job is planned in the same way everywhere.

The seconds are predictions for one core of an ordinary machine (docs/performance.md). They rank
the candidates; nothing else depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pipeline.autograd.memory import Meter, OverBudgetError
from pipeline.errors import MemoryBudgetError

FUNC_SECONDS = 16e-6  # of one torch operation under transforms of torch.func, whatever its size
BATCHED_SECONDS = 6e-6  # of one torch operation in a batched backward pass
PLAIN_SECONDS = 4e-6  # of one torch operation in a plain backward pass
FLOP_SECONDS = 0.06e-9  # of one operation of a matrix product or a convolution
FORWARD_SECONDS = (
    1.5  # of the first use of forward mode: torch loads decompositions and its compiler
)
BYTE_SECONDS = 0.3e-9  # of writing one byte of an intermediate result


@dataclass(frozen=True)
class Cost:
    """What an evaluation takes.

    Attributes:
        chunk: Directions evaluated together.
        point_bytes: Memory that one more point of a batch takes.
        fixed_bytes: Memory that a batch takes whatever its size.
        operations: Calls of torch, or nodes of a graph, that a batch takes.
        setup_seconds: Predicted time until the first call, compilers included.
        batch_seconds: Predicted time that a batch takes whatever its size.
        point_seconds: Predicted time that one more point takes.
        product_seconds: That part of it which matrix products and convolutions take, compiled or not.
    """

    chunk: int
    point_bytes: int
    fixed_bytes: int
    operations: int
    setup_seconds: float
    batch_seconds: float
    point_seconds: float
    product_seconds: float = 0.0

    def seconds(self, count: int, batch: int) -> float:
        """Predicted time of a whole job.

        Args:
            count: Number of points.
            batch: Points per call.

        Returns:
            Seconds, setup included.
        """
        batches = -(-count // batch)
        return self.setup_seconds + batches * self.batch_seconds + count * self.point_seconds


@dataclass(frozen=True)
class Pass:
    """What is carried out once, operation by operation.

    Attributes:
        seconds: Predicted time.
        peak: Bytes that it holds at most.
    """

    seconds: float
    peak: int


def count_pass(evaluate: Callable[[], object]) -> Pass:
    """Count what is carried out operation by operation.

    Args:
        evaluate: What is carried out, once.

    Returns:
        What it takes.
    """
    with Meter() as meter:
        evaluate()
    seconds: float = meter.operations * PLAIN_SECONDS + meter.traffic * BYTE_SECONDS
    return Pass(seconds + float(meter.flops) * FLOP_SECONDS, meter.peak)


def count_eager(
    prepare: Callable[[int], Callable[[Tensor], object]],
    point: Tensor,
    chunks: tuple[int, int],
    budget: int,
    operation_seconds: float,
) -> Cost:
    """Evaluate one and two points and count what torch does.

    Args:
        prepare: Chunk -> evaluation.
        point: One point, (1, n).
        chunks: The first chunk to try, and the least: it is halved while one point does not fit.
        budget: Most bytes that one point may hold.
        operation_seconds: Time that an operation takes whatever its size.

    Returns:
        The cost at the largest chunk that fits.

    Raises:
        MemoryBudgetError: One point does not fit.
    """
    point = point.clone()  # of a view, the meter would count the whole storage
    chunk, least = chunks
    while True:
        evaluate = prepare(chunk)
        try:
            with Meter(budget) as one:
                evaluate(point)
        except OverBudgetError:
            if chunk <= least:
                raise MemoryBudgetError(
                    f"one point with chunk={chunk} needs more than the memory budget of "
                    f"{budget / 2**20:.0f} MiB; set memory= higher or ask for less per point"
                ) from None
            chunk = -(-chunk // 2)
            continue
        with Meter() as two:
            evaluate(point.repeat(2, 1))
        fixed = max(2 * one.traffic - two.traffic, 0)
        return Cost(
            chunk=chunk,
            point_bytes=max(two.peak - one.peak, 1),
            fixed_bytes=max(2 * one.peak - two.peak, 0),
            operations=one.operations,
            setup_seconds=0.0,
            batch_seconds=one.operations * operation_seconds + fixed * BYTE_SECONDS,
            point_seconds=max(two.traffic - one.traffic, 0) * BYTE_SECONDS
            + two.flops / 2 * FLOP_SECONDS,
            product_seconds=two.flops / 2 * FLOP_SECONDS,
        )


def count_loop(
    evaluate: Callable[[Tensor], object], point: Tensor, chunk: int, budget: int
) -> Cost:
    """Evaluate one point, where every point is evaluated on its own, and count what torch does.

    Args:
        evaluate: The evaluation.
        point: One point, (1, n).
        chunk: Directions evaluated together.
        budget: Most bytes that one point may hold.

    Returns:
        The cost.

    Raises:
        MemoryBudgetError: One point does not fit.
    """
    try:
        with Meter(budget) as one:
            evaluate(point)
    except OverBudgetError:
        raise MemoryBudgetError(
            f"one point needs more than the memory budget of {budget / 2**20:.0f} MiB; "
            "set memory= higher or ask for less per point"
        ) from None
    seconds = one.operations * PLAIN_SECONDS + one.traffic * BYTE_SECONDS
    return Cost(
        chunk=chunk,
        point_bytes=one.peak,
        fixed_bytes=0,
        operations=one.operations,
        setup_seconds=0.0,
        batch_seconds=0.0,
        point_seconds=seconds,
    )
