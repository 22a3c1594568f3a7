"""Typed parameters from signatures."""

from typing import Literal

import pytest

from pipeline.errors import PluginError
from pipeline.functions.parameters import bind, conform, parameters_of


def build(
    space, /, count: int = 3, width: float = 1.0, kind: Literal["a", "b"] = "a",
    bounds: float | list[float] | None = None, on: bool = True, pair: tuple[int, int] = (1, 2),
):  # fmt: skip
    return count


OPTIONS = parameters_of(build, "test")


def test_the_signature_is_the_schema():
    assert list(OPTIONS) == ["count", "width", "kind", "bounds", "on", "pair"]
    bound, faults = bind(
        OPTIONS, {"width": 2, "bounds": [1, 2.5], "kind": "b", "pair": [3, 4]}, "grid"
    )
    assert not faults
    assert bound["width"] == 2.0
    assert isinstance(bound["width"], float)
    assert bound["bounds"] == [1.0, 2.5]
    assert bound["pair"] == (3, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 1}, r"grid.cuont is unknown. Did you mean 'count'\? Known: bounds, count"),
        ({"count": 1.5}, r"grid.count: expected int, got 1.5 \(float\)"),
        ({"count": 1e6}, r"grid.count: expected int, got 1000000.0 \(float\); write 1000000$"),
        ({"count": True}, "grid.count: expected int, got True"),
        ({"count": "7"}, "grid.count: expected int, got '7'"),
        ({"kind": "c"}, "grid.kind: expected one of 'a', 'b', got 'c'"),
        ({"bounds": "x"}, "grid.bounds: expected float or a list of float or null, got 'x'"),
        ({"on": 1}, "grid.on: expected bool, got 1"),
        ({"pair": [1]}, "grid.pair: expected a list of int"),
        ({"width": None}, "grid.width: expected float, got None"),
    ],
)
def test_faults(values, message):
    import re

    _, faults = bind(OPTIONS, values, "grid")
    assert len(faults) == 1
    assert re.match(message, faults[0])


def test_all_faults_at_once():
    _, faults = bind(OPTIONS, {"cuont": 1, "kind": 3, "width": "w"}, "grid")
    assert len(faults) == 3


def test_nothing_is_lost_in_conversion():
    with pytest.raises(TypeError):
        conform(1.0, int)
    assert conform(None, int | None) is None


TABLE = [object()]


def with_a_table(table: list = TABLE): ...


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (lambda a: a, "parameter 'a' of its builder needs a type and a default"),
        (
            with_a_table,
            "parameter 'table' of its builder is a list, which no configuration can hold",
        ),
        (lambda **rest: rest, r"parameter \*\*rest of its builder cannot be typed"),
    ],
)
def test_builders_without_types_are_refused(builder, message):
    with pytest.raises(PluginError, match=message):
        parameters_of(builder, "function 'f'")
