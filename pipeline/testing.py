"""Conformance tests for plugin authors.

Write one class per function, in a file that pytest collects::

    from pipeline.testing import FunctionTests

    class TestMine(FunctionTests):
        function = "mine"
        plugins = ("./mine.py",)

Every test is a law that the function has to keep so that all routes, modes and batches of a
run give the same, right numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.api import evaluate, prepare
from pipeline.autograd.finite_difference import compare_with_finite_differences
from pipeline.autograd.reference import derivatives
from pipeline.autograd.request import Request
from pipeline.autograd.routes import ROUTES
from pipeline.function import AnySize, BoundFunction, Function, Scenario, bind_function
from pipeline.parameters import bind
from pipeline.registry import build_registry

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
        lower, upper = (torch.tensor(bound, dtype=torch.float64) for bound in record.domain)
        generator = torch.Generator().manual_seed(20)
        uniform = torch.rand((7, n), generator=generator, dtype=torch.float64)
        return lower + (upper - lower) * (0.01 + 0.98 * uniform)

    def test_record_is_complete(self) -> None:
        """The record says where the function is defined and what it is."""
        record = self.bound.function
        assert record.source, (
            f"{record.name}: source= is empty; name the paper or book that defines it"
        )
        assert record.summary, f"{record.name}: summary= is empty; say in one line what it is"
        for kind, names, length in (
            ("input_names", record.input_names, self.bound.n),
            ("output_names", record.output_names, (*self.bound.output_shape, 0)[0]),
        ):
            assert len(names) in (0, length), f"{kind}: expected none or {length}, got {len(names)}"

    def test_there_is_an_independent_oracle(self) -> None:
        """A closed form or a scenario says what the numbers must be."""
        record = self.bound.function
        assert record.closed_form or record.scenarios, (
            f"{record.name}: give closed_form= or scenarios=, so that somebody can see a wrong sign"
        )

    def test_keeps_shape_dtype_and_input(self) -> None:
        """The value has the declared shape and the dtype of the point, which is not changed."""
        for dtype in (torch.float64, torch.float32):
            for point in self.points.to(dtype):
                before = point.clone()
                y = self.bound.f(point)
                assert isinstance(y, Tensor), f"expected a tensor, got {type(y).__name__}"
                assert tuple(y.shape) == self.bound.output_shape
                assert y.dtype == dtype, f"expected {dtype}, got {y.dtype}"
                assert torch.equal(point, before), "the function changes its input"

    def test_closed_forms(self) -> None:
        """The derivatives equal those that the record writes out by hand."""
        for name, formula in self.bound.function.closed_form.items():
            for point in self.points:
                expected = formula(point, **self.bound.parameters)
                self._agree(
                    self._reference(self.bound, point, name), expected, f"closed form of {name}"
                )

    def test_scenarios(self) -> None:
        """The derivatives equal the published ones at the points of the record."""
        for scenario in self.bound.function.scenarios:
            bound = self._bind({**self.parameters, **scenario.parameters}, len(scenario.x))
            self._check_scenario(bound, scenario)

    def test_finite_differences(self) -> None:
        """Automatic and extrapolated central differences agree."""
        outcome = compare_with_finite_differences(self._request(), self.points)
        assert not outcome.disagreements, "\n".join(outcome.disagreements)
        assert outcome.checks, "finite differences converged nowhere: is the domain right?"

    def test_routes_modes_and_chunks_agree(self) -> None:
        """Every route, in every mode, whatever the chunk, equals the loop."""
        request = self._request()
        expected = ROUTES["loop"].prepare(request, "", 1, 1)(self.points)
        for name in self.routes:
            for mode in ROUTES[name].modes(request):
                for chunk in (-(-request.n // 2), request.directions):
                    seen = ROUTES[name].prepare(request, mode, chunk, len(self.points))(self.points)
                    self._agree_all(seen, expected, f"route {name} {mode} with chunk {chunk}")

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
        order = ORDERS[name] if name in ORDERS else int(name.removeprefix("derivative_"))
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

    def _agree_all(self, seen: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
        for one, other in zip(seen, expected, strict=True):
            assert one.shape == other.shape, f"{what}: expected {other.shape}, got {one.shape}"
            for row, truth in zip(one, other, strict=True):
                self._agree(row, truth, what)

    def _agree(self, seen: Tensor, expected: Tensor, what: str) -> None:
        assert seen.shape == expected.shape, f"{what}: expected {expected.shape}, got {seen.shape}"
        error = float((seen - expected).abs().max())
        allowed = self.tolerance * float(expected.abs().max())
        assert error <= allowed, f"{what}: max|A - R| is {error:.2e}, allowed {allowed:.2e}"
