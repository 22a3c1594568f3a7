"""The evaluator: what `prepare` gives, and then only bare calls."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.autograd.checks.certificate import Certificate
from pipeline.autograd.checks.spot_check import UNCHECKED, SpotCheck, spot_check
from pipeline.autograd.checks.symmetry import check_symmetry, pack_symmetric
from pipeline.autograd.evaluated import FAILED, NONSMOOTH, OK, Evaluated, joined, status_of
from pipeline.autograd.evaluation_plan import Plan
from pipeline.autograd.methods.reverse import plain
from pipeline.autograd.operators import Operator
from pipeline.autograd.pattern import Pattern
from pipeline.autograd.precision import full_precision
from pipeline.autograd.request import Evaluate, Key, Request
from pipeline.autograd.surroundings import own_surroundings
from pipeline.display import card
from pipeline.errors import MemoryBudgetError, PipelineError, told

log = logging.getLogger(__name__)


class RowCheck(Protocol):
    """Compares one row that has been computed."""

    def spot_check(
        self, operators: Sequence[Operator], point: Tensor, row: Mapping[str, Tensor], seed: int
    ) -> SpotCheck:
        """See `pipeline.autograd.checks.spot_check.spot_check`."""


@dataclass(frozen=True)
class Calls:
    """What an evaluator calls for every batch.

    Attributes:
        evaluate: The bare evaluation.
        most: Most points that it may be given at once; None for any number.
        kinks: Tells at which points the function meets a kink; None if it has none.
        own: Checks rows in place of the reference, where torch has no derivative to compare with.
    """

    evaluate: Evaluate
    most: int | None = None
    kinks: Callable[[Tensor], Tensor] | None = None
    own: RowCheck | None = None


class Evaluator:
    """Derivatives at any number of points, evaluated batch by batch.

    Attributes:
        plan: How it works.
        certificate: Why its numbers can be trusted.
        operators: What it evaluates, in this order.
    """

    def __init__(
        self,
        calls: Calls,
        request: Request,
        operators: tuple[Operator, ...],
        plan: Plan,
        certificate: Certificate,
    ) -> None:
        self._calls, self._request = calls, request
        self._fits = sys.maxsize  # points at once, as far as memory has not run out
        self.operators, self.plan, self.certificate = operators, plan, certificate

    def __repr__(self) -> str:
        lines = [f"  {name}  {shape}" for name, shape in self._facts().items()]
        how = f"by route {self.plan.route} {self.plan.mode}; .certificate, .plan: why, and how"
        return "\n".join([f"Evaluator {how}", *lines])

    def _repr_html_(self) -> str:
        title = card("Evaluator", self._facts())
        return title + self.plan._repr_html_() + self.certificate._repr_html_()

    def _facts(self) -> dict[str, str]:
        return {
            f"evaluator(points)[{name!r}]": f"(B{''.join(f', {size}' for size in shape)})"
            for name, shape in self._shapes().items()
        }

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the function's value at one point: () or (m,)."""
        return self._request.output_shape

    @property
    def pattern(self) -> Pattern | None:
        """Entries that are kept of the highest order; None where all are."""
        return self._request.pattern

    @property
    def row_bytes(self) -> int:
        """Bytes of the result at one point."""
        entries = sum(math.prod(shape) for shape in self._shapes().values())
        return entries * self.plan.dtype.itemsize

    @own_surroundings()
    def __call__(self, points: Tensor) -> Tensor | dict[str, Tensor]:
        """Evaluate at points; whatever the function raises comes through.

        Args:
            points: (B, n) of the plan's dtype and device; not changed.

        Returns:
            (B, …) for one operator; a dict by dataset name for several.

        Raises:
            PipelineError: The points do not fit.
        """
        points = self._check(points)
        datasets = self._whole(points)
        return datasets if len(self.operators) > 1 else datasets[self.operators[0].dataset]

    def _whole(self, points: Tensor) -> dict[str, Tensor]:
        most = self._calls.most
        if most is None or len(points) <= most:
            return self._kept(points)
        datasets = self.empty(len(points))
        for start in range(0, len(points), most):
            rows = slice(start, start + most)
            for name, part in self._kept(points[rows]).items():
                datasets[name][rows] = part
        return datasets

    def empty(self, count: int) -> dict[str, Tensor]:
        """Make room for the results at so many points.

        Args:
            count: N.

        Returns:
            Dataset -> (N, …), of any values.
        """
        kind: Any = {"dtype": self.plan.dtype, "device": self.plan.device}
        return {name: torch.empty(count, *shape, **kind) for name, shape in self._shapes().items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one point's result in each dataset."""
        by_key = dict(zip(self._request.keys, self._request.shapes(), strict=True))
        return {operator.dataset: by_key[operator.key] for operator in self.operators}

    def _kept(self, points: Tensor) -> dict[str, Tensor]:
        """Evaluate, and leave out repetitions that are none but for rounding."""
        packed = pack_symmetric(self._request, self.operators, self._bare(points))
        for check in self._asymmetries(points, packed.suspects):
            check.settle("error", "at one of the points")
        return packed.datasets

    def guarded(self, points: Tensor) -> Evaluated:
        """Evaluate one batch so that a bad point fails alone.

        Where a batch raises it is halved until the point that raises stands alone; where memory
        runs out it is halved until it fits, and so are those that follow.

        Args:
            points: (B, n) of the plan's dtype and device, B >= 1.

        Returns:
            The derivatives, NaN where the function raised.

        Raises:
            MemoryBudgetError: Not even one point fits into memory.
        """
        if len(points) > self._fits:
            return self._halved(points)
        levels, error = self._attempt(points)
        if error is not None and _out_of_memory(error):
            self._make_room(points)
        if error is not None and len(points) > 1:
            return self._halved(points)
        if error is not None and _out_of_memory(error):
            raise MemoryBudgetError(
                f"memory ran out at a single point with chunk={self.plan.chunk}; set a smaller chunk= or memory="
            ) from error
        if error is not None and self._calls.own is None:
            levels, error = self._by_reference(points)
        if error is not None:
            return self._failed(points, error)
        packed = pack_symmetric(self._request, self.operators, self._named(levels))
        # a formula can give a derivative where the function itself has no value: log at -1
        status = status_of({"x": points, **packed.datasets, "value": levels.get(0, points)})
        if self._calls.kinks is not None:
            met = self._calls.kinks(points) & (status == OK)
            status = status.masked_fill(met, NONSMOOTH)  # no index, which a GPU would have to count
        smooth = {row: full for row, full in packed.suspects.items() if int(status[row]) == OK}
        return Evaluated(packed.datasets, status, {}, smooth)

    def _halved(self, points: Tensor) -> Evaluated:
        middle = len(points) // 2
        return joined(self.guarded(points[:middle]), self.guarded(points[middle:]), middle)

    def _make_room(self, points: Tensor) -> None:
        self._fits = (len(points) + 1) // 2
        log.warning(
            "memory ran out with %d points at once: going on with %d", len(points), self._fits
        )
        if points.is_cuda:
            torch.cuda.empty_cache()

    def checks(self, points: Tensor, found: Evaluated, row: int | None) -> Iterator[SpotCheck]:
        """Compare computed rows with the reference: one that was chosen, and what is suspect.

        Args:
            points: (B, n) that were evaluated.
            found: What came out.
            row: The chosen one; None for none.

        Yields:
            The outcomes.
        """
        if row is not None:
            yield self.spot_check(points, found, row)
        yield from self._asymmetries(points, found.suspects)

    def _asymmetries(
        self, points: Tensor, suspects: Mapping[int, Mapping[str, Tensor]]
    ) -> Iterator[SpotCheck]:
        for row, levels in suspects.items():
            yield check_symmetry(self._request, self.operators, points[row], levels)

    @full_precision()
    def spot_check(self, points: Tensor, found: Evaluated, row: int) -> SpotCheck:
        """Compare a computed row with the reference; the next one where it is not finite and smooth.

        Args:
            points: (B, n) that were evaluated.
            found: What came out.
            row: Which of them; also the seed of the directions that are compared.

        Returns:
            The outcome; empty where no row of the batch can be compared.
        """
        usable = (found.status == OK).nonzero().flatten()
        if len(usable) == 0:
            return UNCHECKED
        index = int(usable[min(int((usable < row).sum()), len(usable) - 1)])
        values = {name: tensor[index] for name, tensor in found.datasets.items()}
        if self._calls.own is not None:
            return self._calls.own.spot_check(self.operators, points[index], values, row)
        return spot_check(self._request, self.operators, points[index], values, seed=row)

    def _bare(self, points: Tensor) -> dict[str, Tensor]:
        return self._named(self._levels(points))

    def _named(self, levels: Mapping[Key, Tensor]) -> dict[str, Tensor]:
        return {operator.dataset: levels[operator.key] for operator in self.operators}

    @full_precision()
    def _levels(self, points: Tensor) -> dict[Key, Tensor]:
        """Everything that is evaluated: key -> (B, …)."""
        if len(points) == 0:
            levels = tuple(points.new_empty((0, *shape)) for shape in self._request.shapes())
        else:
            levels = self._calls.evaluate(points)
        return dict(zip(self._request.keys, levels, strict=True))

    def _attempt(self, points: Tensor) -> tuple[dict[Key, Tensor], Exception | None]:
        try:
            return self._levels(points), None
        except (
            Exception
        ) as error:  # the user's function may raise anything at a point of its own choice
            return {}, error.with_traceback(None)  # which would keep the tensors of the batch alive

    @full_precision()
    def _by_reference(self, points: Tensor) -> tuple[dict[Key, Tensor], Exception | None]:
        """Ask the reference about a point at which the route raised: it may be the route's own fault."""
        try:
            levels = plain(self._request, points[0])
        except Exception as error:  # the user's function may raise anything
            return {}, error.with_traceback(None)
        by_key = dict(zip(self._request.keys, levels, strict=True))
        log.warning("route %s raised at a point where the reference does not", self.plan.route)
        return {key: level[None] for key, level in by_key.items()}, None

    def _failed(self, points: Tensor, error: Exception) -> Evaluated:
        datasets = {
            name: points.new_full((1, *shape), float("nan"))
            for name, shape in self._shapes().items()
        }
        status = torch.full((1,), FAILED, dtype=torch.uint8, device=points.device)
        return Evaluated(datasets, status, {0: told(error)})

    def _check(self, points: Tensor) -> Tensor:
        """Points that fit; those of half precision as they are kept."""
        n, plan = len(self._request.example), self.plan
        if not isinstance(points, Tensor):
            raise PipelineError(
                f"points: expected a tensor of shape (B, {n}), got {type(points).__name__}"
            )
        if points.is_inference():
            points = points.clone()  # which torch can differentiate
        if points.dtype == self._request.precision.evaluated:
            points = points.to(plan.dtype)
        checks = (
            ("shape", f"(B, {n})", tuple(points.shape), points.ndim == 2 and points.shape[-1] == n),
            ("dtype", plan.dtype, points.dtype, points.dtype == plan.dtype),
            ("device", plan.device, points.device, points.device.type == plan.device.type),
        )
        faults = [
            f"{what}: prepared for {want}, got {got}"
            for what, want, got, fits in checks
            if not fits
        ]
        if faults:
            raise PipelineError("points do not fit this evaluator; " + "; ".join(faults))
        return points


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
