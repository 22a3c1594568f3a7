"""Laws of a function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.api import evaluate, prepare
from pipeline.autograd.checks.finite_difference import compare_with_finite_differences
from pipeline.autograd.checks.oracle import Oracle, build_oracle
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
from pipeline.errors import nearest
from pipeline.functions.bound import BoundFunction, bind_function
from pipeline.functions.parameters import bind
from pipeline.functions.record import AnySize, Function, Scenario
from pipeline.registry import build_registry
from pipeline.testing.words import advise, spell

FEW_DIGITS = 1e-6  # of a deviation that rounding alone does not explain
ORDERS = {"value": 0, "gradient": 1, "jacobian": 1, "hessian": 2}


class FunctionTests:
    """Laws of one function; subclass it and say which.

    Attributes:
        function: Name of the function, or its record.
        plugins: Plugin files that contribute it, if it is not installed.
        parameters: Parameters to test it with.
        n: Number of inputs; None takes the function's own, or the default of a function of any n.
        routes: Routes that must be able to evaluate it.
        order: Highest order that is tested.
        tolerance: Largest normwise error, max|A - R| <= tolerance * max|R| per point.
    """

    function: ClassVar[str | Function] = ""
    plugins: ClassVar[Sequence[str]] = ()
    parameters: ClassVar[Mapping[str, Any]] = {}
    n: ClassVar[int | None] = None
    routes: ClassVar[Sequence[str]] = ("vmap", "loop")
    order: ClassVar[int] = 2
    tolerance: ClassVar[float] = 1e-10

    @cached_property
    def bound(self) -> BoundFunction:
        """The function with the parameters under test."""
        return self._bind(self.parameters, self.n)

    @cached_property
    def points(self) -> Tensor:
        """Seven random points of the domain, (7, n), float64, the same in every test."""
        record, n = self.bound.function, self.bound.n
        ends = [torch.tensor(bound, dtype=torch.float64) for bound in record.domain]
        fits = all(end.ndim == 0 or end.shape == (n,) for end in ends)
        assert fits, f"domain: expected a number or {n} numbers for each end, got {record.domain}"
        lower, upper = ends
        assert bool((lower <= upper).all()), f"domain: {record.domain} ends before it begins"
        generator = torch.Generator().manual_seed(20)
        uniform = torch.rand((7, n), generator=generator, dtype=torch.float64)
        return lower + (upper - lower) * (0.01 + 0.98 * uniform)

    def test_keeps_shape_dtype_and_input(self) -> None:
        """The value has the declared shape and the dtype of the point, which is not changed."""
        shape = self.bound.output_shape
        for dtype in (torch.float64, torch.float32):
            for point in self.points.to(dtype):
                before = point.clone()
                y = self.bound.f(point)
                assert isinstance(y, Tensor), (
                    f"expected a tensor of shape {shape}, got {type(y).__name__} {y!r}; use torch "
                    "operations all the way: no float(), .item(), math or numpy functions"
                )
                assert tuple(y.shape) == shape, (
                    f"expected shape {shape}, got {tuple(y.shape)} for n = {self.bound.n} inputs; correct "
                    "the function (.sum(), .reshape(-1)) or its output_shape="
                )
                assert y.dtype == dtype, (
                    f"expected {dtype} for a point of {dtype}, got {y.dtype}; make constants by "
                    "x.new_tensor(…), or with dtype=x.dtype, device=x.device"
                )
                assert torch.equal(point, before), (
                    "the function changes its input in place; write x + 1 instead of x += 1, and fill a "
                    "new tensor (x.clone(), torch.stack) instead of x[0] = …"
                )

    def test_gives_the_same_twice(self) -> None:
        """The value at a point is the same whenever it is asked for."""
        for point in self.points:
            first, again = self.bound.f(point.clone()), self.bound.f(point.clone())
            assert torch.equal(first.isnan(), again.isnan()), "NaN at one call, and not at the next"
            assert torch.equal(first.nan_to_num(), again.nan_to_num()), (
                f"the value at {spell(point)} is {spell(first)} at one call and {spell(again)} at the next; "
                "a function has to be free of randomness and memory (draw random numbers once, in build)"
            )

    def test_is_finite_in_its_domain(self) -> None:
        """The value is finite where the record says that the function is defined."""
        for point in self.points:
            y = self.bound.f(point)
            assert bool(y.isfinite().all()), (
                f"the value at {spell(point)} is {spell(y)}; correct the function, or say by domain=(…, …) "
                f"where it is defined (now {self.bound.function.domain})"
            )

    def test_can_be_differentiated(self) -> None:
        """Plain reverse mode gives its derivatives."""
        levels = [derivatives(self.bound.f, point, self.order) for point in self.points]
        broken = [not all(bool(part.isfinite().all()) for part in level) for level in levels]
        if any(broken):
            advise(
                f"derivatives at {spell(self.points[broken.index(True)])} are not finite, and such points will "
                "be flagged; torch.where still differentiates the branch that it does not take"
            )
        if all(bool((level[1] == 0).all()) for level in levels if self.order):
            advise(
                "every first derivative is zero: does the value depend on x by torch operations?"
            )

    def test_record_is_complete(self) -> None:
        """The record says where the function is defined and what it is."""
        record = self.bound.function
        for kind, names, length in (
            ("input_names", record.input_names, self.bound.n),
            ("output_names", record.output_names, (*self.bound.output_shape, 0)[0]),
        ):
            assert len(names) in (0, length), f"{kind}: expected none or {length}, got {len(names)}"
        if not record.source:
            advise("source= is empty; name the paper or book that defines the function")
        if not record.summary:
            advise("summary= is empty; say in one line what the function is")

    def test_there_is_an_independent_oracle(self) -> None:
        """A closed form or a scenario says what the numbers must be."""
        record = self.bound.function
        if not (record.closed_form or record.scenarios):
            advise("give closed_form= or scenarios=, so that somebody can see a wrong sign")

    def test_closed_forms(self) -> None:
        """The derivatives equal those that the record writes out by hand."""
        for name, formula in self.bound.function.closed_form.items():
            for point in self.points:
                seen = self._reference(self.bound, point, name)
                expected = formula(point, **self.bound.parameters)
                self._agree(expected, seen, f"closed form of {name} at {spell(point)}")

    def test_scenarios(self) -> None:
        """The derivatives equal the published ones at the points of the record."""
        for scenario in self.bound.function.scenarios:
            bound = self._bind({**self.parameters, **scenario.parameters}, len(scenario.x))
            self._check_scenario(bound, scenario)

    def test_finite_differences(self) -> None:
        """Automatic and extrapolated central differences agree."""
        outcome = compare_with_finite_differences(self._request(), self.points)
        assert not outcome.disagreements, (
            "\n".join([*outcome.disagreements[:2], f"({len(outcome.disagreements)} in all)"])
            + "\nlook for detach(), .item(), float(), math functions, torch.tensor(x…), or a custom backward "
            "that is wrong"
        )
        assert outcome.checks, "finite differences converged nowhere: is the domain right?"

    def test_routes_modes_and_chunks_agree(self) -> None:
        """Every route, in every mode, whatever the chunk, equals the loop."""
        request = self._request()
        expected = ROUTES["loop"].prepare(request, "", 1, 1)(self.points)
        for name in self.routes:
            for mode in ROUTES[name].modes(request):
                for chunk in (-(-request.n // 2), request.directions):
                    seen = self._through(name, mode, chunk)
                    if seen is None:
                        return
                    self._agree_all(seen, expected, f"route {name} {mode} with chunk {chunk}")

    def _through(self, name: str, mode: str, chunk: int) -> tuple[Tensor, ...] | None:
        """Evaluate by a route; None where it refuses, which costs time and no correctness."""
        try:
            route = ROUTES[name].prepare(self._request(), mode, chunk, len(self.points))
            return route(self.points)
        except Exception as error:  # torch refuses a function by any kind of error
            if name == "loop":
                raise
            reason = str(error).strip().split("\n")[0]
            advise(
                f"route {name} cannot evaluate it ({type(error).__name__}: {reason:.200}): jobs go point by "
                "point, which is right and slow; where that comes from if, .item() or float(), write torch.where"
            )
            return None

    def test_batches_agree(self) -> None:
        """Empty, single, odd and split batches give the same as the loop."""
        expected = ROUTES["loop"].prepare(self._request(), "", 1, 1)(self.points)
        for batch in (1, 3, 64):
            evaluator = prepare(
                self.bound.f, self.points, self._operators(), count=7, order=self.order, batch=batch
            )
            for count in (0, 1, 3, 7):
                seen = evaluator(self.points[:count])
                assert isinstance(seen, dict)
                parts = [level[:count] for level in expected]
                self._agree_all(list(seen.values()), parts, f"{count} points in batches of {batch}")

    def test_float32(self) -> None:
        """Single precision is accepted, kept, and close to double precision."""
        points = self.points.to(torch.float32)
        single = evaluate(self.bound.f, points, self._operators(), order=self.order)
        for name, tensor in single.datasets.items():
            assert tensor.dtype == torch.float32, f"{name}: expected float32, got {tensor.dtype}"

    def _bind(self, parameters: Mapping[str, Any], n: int | None) -> BoundFunction:
        record = self.function
        if isinstance(record, str):
            record = build_registry(self.plugins).function(record)
        bound, faults = bind(record.parameters, parameters, "parameters")
        assert not faults, "\n".join(faults)
        sizes = record.sizes(**bound)
        own = sizes.default if isinstance(sizes, AnySize) else sizes
        return bind_function(record, bound, own if n is None else n)

    def _request(self) -> Request:
        orders = tuple(range(self.order + 1))
        return Request(self.bound.f, self.points[0], self.bound.output_shape, orders)

    def _operators(self) -> tuple[str, ...]:
        first = "jacobian" if self.bound.output_shape else "gradient"
        return ("value", first, "hessian", "derivative")[: self.order + 1]

    def _reference(self, bound: BoundFunction, point: Tensor, name: str) -> Tensor:
        higher = re.fullmatch(r"derivative_(\d)", name)
        assert name in ORDERS or higher, (
            f"{name!r} is no dataset. {nearest(name, [*ORDERS, 'derivative_3'])}"
        )
        order = int(higher[1]) if higher else ORDERS[name]
        return derivatives(bound.f, point, order)[order]

    def _check_scenario(self, bound: BoundFunction, scenario: Scenario) -> None:
        point = torch.tensor(scenario.x, dtype=torch.float64)
        for name, numbers in scenario.expected.items():
            seen = self._reference(bound, point, name)
            expected = torch.tensor(numbers, dtype=torch.float64)
            assert seen.shape == expected.shape, (
                f"{name}: expected {expected.shape}, got {seen.shape}"
            )
            error = float((seen - expected).abs().max())
            allowed = scenario.tolerance * max(1.0, float(expected.abs().max()))
            assert error <= allowed, (
                f"{name} at {list(scenario.x)[:6]} ({scenario.source}): off by {error:.2e}, allowed {allowed:.2e}"
            )

    @cached_property
    def _oracle(self) -> Oracle:
        """The reference with what is known of its own rounding: some functions magnify it."""
        return build_oracle(self._request(), self.points)

    def _agree_all(self, seen: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
        for one, other in zip(seen, expected, strict=True):
            assert one.shape == other.shape, f"{what}: expected {other.shape}, got {one.shape}"
        try:
            for one, other in zip(seen, expected, strict=True):
                self._agree_rows(one, other, what)
        except AssertionError as error:
            deviations = self._oracle.compare(seen).values()
            if any(deviation.error > FEW_DIGITS for deviation in deviations):
                raise
            if any(deviation.excess > 1 for deviation in deviations):
                advise(f"{error}: the function magnifies rounding here, and jobs will not use this")

    def _agree_rows(self, seen: Tensor, expected: Tensor, what: str) -> None:
        for row, truth in zip(seen, expected, strict=True):
            if bool(truth.isfinite().all()):  # else the point is flagged, and any number will do
                self._agree(row, truth, what)

    def _agree(self, seen: Tensor, expected: Tensor, what: str) -> None:
        assert seen.shape == expected.shape, (
            f"{what}: expected shape {tuple(expected.shape)}, got {tuple(seen.shape)}"
        )
        assert torch.equal(seen.isnan(), expected.isnan()), (
            f"{what}: got {spell(seen)}, expected {spell(expected)}: NaN in one and not in the other"
        )
        seen, expected = seen.nan_to_num(), expected.nan_to_num()
        error = float((seen - expected).abs().max())
        allowed = self.tolerance * float(expected.abs().max())
        assert error <= allowed, (
            f"{what}: got {spell(seen)}, expected {spell(expected)}; they differ by {error:.2e}, "
            f"allowed is {allowed:.2e}"
        )
