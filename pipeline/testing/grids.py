"""Laws of a kind of grid."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from pipeline.errors import GridError
from pipeline.functions.parameters import Parameter, bind
from pipeline.functions.record import AnySize
from pipeline.grids.base import Grid
from pipeline.grids.kind import GridKind, Space
from pipeline.grids.making import make_grid
from pipeline.registry import build_registry
from pipeline.testing.words import advise, spell

MANY = 64  # points that are looked at
MISTAKES = {int: (0, -1), float: (0.0, -1.0, math.inf, math.nan)}  # what users type by mistake


class GridTests:
    """Laws of one kind of grid; subclass it and say which.

    Attributes:
        grid: Name of the kind, or its record.
        plugins: Plugin files that contribute it, if it is not installed.
        options: Options to test it with.
        space: What it has to cover: number of inputs, domain, seed of the run.
    """

    grid: ClassVar[str | GridKind] = ""
    plugins: ClassVar[Sequence[str]] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    space: ClassVar[Space] = Space(AnySize())

    @cached_property
    def kind(self) -> GridKind:
        """The record of the plugin."""
        kind = self.grid
        return build_registry(self.plugins).grid(kind) if isinstance(kind, str) else kind

    @cached_property
    def points(self) -> Tensor:
        """The first points, (at most 64, n)."""
        return self._first(self.built)

    @cached_property
    def built(self) -> Grid:
        """The grid with the options under test."""
        return self._make()

    def test_rows_are_points(self) -> None:
        """Every range of rows is float64 of shape (rows, n) and finite."""
        last = len(self.built)
        for start, stop in ((0, 0), (0, 1), (0, min(last, MANY)), (max(0, last - 3), last)):
            points = self.built.rows(start, stop)
            expected = (stop - start, self.built.n)
            got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            assert got == expected, f"rows({start}, {stop}): expected shape {expected}, got {got}"
            assert points.dtype == torch.float64, (
                f"expected float64, got {points.dtype}: digits are lost; compute with dtype=torch.float64"
            )
            assert bool(points.isfinite().all()), f"a point is not finite: {spell(points)}"

    def test_gives_the_same_again(self) -> None:
        """The points are the same whenever they are asked for, also of a grid built anew."""
        for grid, when in ((self.built, "asked again"), (self._make(), "built anew")):
            seen = self._first(grid)
            assert torch.equal(seen, self.points), (
                f"{when}, the points are {spell(seen)}, and were {spell(self.points)}; draw random numbers "
                "from a torch.Generator that is seeded by space.seed and the index of the point"
            )

    def test_a_row_depends_on_its_index_only(self) -> None:
        """A point is the same, bit for bit, whichever range it is computed in."""
        count = len(self.points)
        ranges = [(i, i + 1) for i in reversed(range(count))]
        ranges += [(i, count) for i in (1, count // 3, count // 2)]
        for start, stop in ranges:
            seen = self.built[start:stop]
            assert torch.equal(seen, self.points[start:stop]), (
                f"points [{start}:{stop}] are {spell(seen)}, and as part of [0:{count}] they are "
                f"{spell(self.points[start:stop])}; compute each from its index alone"
            )

    def test_axes_span_the_points(self) -> None:
        """Where the record names axes, the points are their product, the first axis slowest."""
        axes = self.built.axes
        if axes is None:
            assert self.built.shape == (len(self.built),), "shape: expected (N,) without axes"
            return
        lengths = tuple(len(axis) for axis in axes)
        assert self.built.shape == lengths, f"shape: expected {lengths}, got {self.built.shape}"
        assert math.prod(lengths) == len(self.built), (
            f"axes of {lengths} points span {math.prod(lengths)} points, the grid has {len(self.built)}"
        )
        indices = torch.unravel_index(torch.arange(len(self.points)), lengths)
        product = torch.stack([axis[i] for axis, i in zip(axes, indices, strict=True)], dim=1)
        assert torch.equal(product, self.points), (
            f"the axes span {spell(product)}, the points are {spell(self.points)}; the first axis is slowest"
        )

    def test_spec_is_plain(self) -> None:
        """What determines the points can be written as JSON, and is the same whenever it is asked for."""
        text = _json(self.built)
        self._first(self.built)
        for grid in (self.built, self._make()):
            assert _json(grid) == text, f"spec was {text}, and is {_json(grid)}"

    def test_spec_determines_the_points(self) -> None:
        """Other points have another spec: a run never takes results of another grid for its own."""
        for change, other in self._others():
            same = len(other) == len(self.built) and torch.equal(self._first(other), self.points)
            assert same or dict(other.spec) != dict(self.built.spec), (
                f"with {change} the points are others, and spec is the same; put into spec what they depend on"
            )

    def test_mistaken_options_are_refused(self) -> None:
        """Options out of range are refused by a GridError, or give points all the same."""
        for name, value in self._mistakes():
            what = f"grid.{name}={value}"
            try:
                grid = self._make(**{name: value})
                points = self._first(grid)
            except GridError as error:
                if error.__cause__ is not None and not isinstance(error.__cause__, GridError):
                    advise(f"{what}: {error}; raise pipeline.errors.GridError with words for users")
                continue
            if not bool(points.isfinite().all()):
                advise(f"{what} gives points that are not finite; refuse it by a GridError")

    def _make(self, space: Space | None = None, **options: Any) -> Grid:
        bound, faults = bind(self.kind.options, {**self.options, **options}, "grid")
        assert not faults, "\n".join(faults)
        return make_grid(self.kind, self.space if space is None else space, bound)

    def _first(self, grid: Grid) -> Tensor:
        return grid[: min(len(grid), MANY)]

    def _others(self) -> Iterator[tuple[str, Grid]]:
        """Grids that differ in one option, in the seed, or in the domain of the function."""
        space = self.space
        for name, value in self._altered():
            yield from self._possible(f"grid.{name}={value}", space, {name: value})
        yield from self._possible("another seed", replace(space, seed=space.seed + 1), {})
        yield from self._possible("another domain", replace(space, lower=-2.0, upper=3.0), {})

    def _possible(
        self, change: str, space: Space, options: Mapping[str, Any]
    ) -> Iterator[tuple[str, Grid]]:
        try:
            yield change, self._make(space, **options)
        except GridError:  # it does not fit the other options
            return

    def _altered(self) -> Iterator[tuple[str, Any]]:
        for option in self.kind.options.values():
            value = self.options.get(option.name, option.default)
            if isinstance(value, bool):
                yield option.name, not value
            elif isinstance(value, int | float):
                yield option.name, value + 1
            elif isinstance(value, str):
                yield from ((option.name, word) for word in _words(option) if word != value)

    def _mistakes(self) -> Iterator[tuple[str, Any]]:
        for option in self.kind.options.values():
            for kind in (option.annotation, *get_args(option.annotation)):
                yield from ((option.name, value) for value in MISTAKES.get(kind, ()))


def _words(option: Parameter) -> tuple[str, ...]:
    return tuple(word for word in get_args(option.annotation) if isinstance(word, str))


def _json(grid: Grid) -> str:
    foreign: list[object] = []
    text = json.dumps(dict(grid.spec), default=foreign.append)
    assert not foreign, f"spec holds {foreign[0]!r}; use numbers, words and lists"
    return text
