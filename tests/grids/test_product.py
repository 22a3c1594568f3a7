"""Product grids against torch's own constructions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import GridError
from pipeline.functions.record import AnySize
from pipeline.grids.kind import Space
from pipeline.grids.product import Axis, ProductGrid, build_linspace

SPACE = Space(AnySize(2), -1.0, 1.0)
FINITE = st.floats(-1e300, 1e300)


def test_row_major_like_meshgrid_and_cartesian_product():
    grid = build_linspace(SPACE, [3, 4, 5], [-1.0, 0.0, 2.0], [1.0, 5.0, 3.0])
    assert len(grid) == 60
    assert torch.equal(grid[:], torch.cartesian_prod(*grid.axes))
    mesh = torch.meshgrid(*grid.axes, indexing="ij")
    assert torch.equal(grid[:], torch.stack([part.reshape(-1) for part in mesh], dim=1))
    assert [len(axis) for axis in grid.axes] == [3, 4, 5]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_linear_axis_is_linspace(count):
    (axis,) = build_linspace(SPACE, count, -0.3, 7.1, n=1).axes
    expected = torch.linspace(-0.3, 7.1, count, dtype=torch.float64)
    assert torch.allclose(axis, expected, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101])
def test_log_axis_is_logspace(count):
    (axis,) = build_linspace(SPACE, count, 1e-3, 1e4, "log", n=1).axes
    expected = torch.logspace(-3, 4, count, dtype=torch.float64)
    assert torch.allclose(axis, expected, rtol=1e-14, atol=0)


def test_spacing_of_each_axis():
    grid = build_linspace(SPACE, 5, [1.0, 1.0], [16.0, 5.0], ["log", "linear"])
    assert torch.allclose(grid.axes[0], torch.tensor([1.0, 2, 4, 8, 16]).double(), rtol=1e-15)
    assert grid.axes[1].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert grid.spec["spacing"] == ["log", "linear"]


def test_decimal_steps_give_decimal_points():
    (axis,) = build_linspace(SPACE, 11, 0.0, 1.0, n=1).axes
    assert axis.tolist() == [i / 10 for i in range(11)]


@settings(max_examples=100, deadline=None)
@given(ends=st.tuples(FINITE, FINITE), count=st.integers(2, 200), log=st.booleans())
def test_ends_are_exact_and_points_stay_inside(ends, count, log):
    lower, upper = sorted(abs(end) + 1e-300 for end in ends) if log else sorted(ends)
    (axis,) = build_linspace(SPACE, count, lower, upper, "log" if log else "linear", n=1).axes
    assert axis[0] == lower
    assert axis[-1] == upper
    assert bool(((axis >= lower) & (axis <= upper)).all())


@given(end=st.floats(1e-3, 1e300), count=st.integers(2, 200))
def test_a_symmetric_axis_is_symmetric_to_the_bit(end, count):
    (axis,) = build_linspace(SPACE, count, -end, end, n=1).axes
    assert torch.equal(axis, -axis.flip(0))


@given(count=st.integers(2, 500))
def test_points_increase(count):
    for spacing in ("linear", "log"):
        (axis,) = build_linspace(SPACE, count, 0.1, 30.0, spacing, n=1).axes
        assert bool((axis.diff() > 0).all())


def test_one_point_is_the_lower_end():
    assert build_linspace(SPACE, [1, 2], -3.0, 3.0)[:].tolist() == [[-3.0, -3.0], [-3.0, 3.0]]


@pytest.mark.parametrize("count", [10**18, [10**9, 10**9], [10] * 18, [2**31, 2**31, 2 - 1]])
def test_huge_grids(count):
    n = len(count) if isinstance(count, list) else 1
    grid = build_linspace(SPACE, count, 0.0, 1.0, n=n)
    total = math.prod(count) if isinstance(count, list) else count
    assert len(grid) == total
    last = [0.0 if entry == 1 else 1.0 for entry in (count if isinstance(count, list) else [count])]
    assert grid[total - 1 : total].tolist() == [last]
    assert grid[:1].tolist() == [[0.0] * n]


@settings(deadline=None)
@given(index=st.integers(0, 10**18 - 1))
def test_digits_of_large_indices(index):
    grid = build_linspace(SPACE, [10**9, 10**9], 0.0, 10.0**9 - 1)
    ((slow, fast),) = grid[index : index + 1].tolist()
    assert (round(slow), round(fast)) == divmod(index, 10**9)


def test_too_many_points_are_refused():
    with pytest.raises(GridError, match=r"about 10\^20 points in n = 10 inputs, at most 2\^63 - 1"):
        build_linspace(SPACE, 101, n=10)


def test_log_axes_need_positive_bounds():
    with pytest.raises(GridError, match=r"spacing = log needs positive bounds, got -1.0 … 1.0"):
        build_linspace(SPACE, spacing="log")
    with pytest.raises(GridError, match=r"give grid\.lower > 0"):
        build_linspace(SPACE, lower=0.0, spacing="log")


def test_lists_of_the_wrong_length_are_refused():
    with pytest.raises(GridError, match=r"grid\.count has 3 entries but the function takes n = 2"):
        build_linspace(Space(2), [3, 4, 5])
    with pytest.raises(
        GridError, match=r"grid\.spacing has 1 entries but the function takes n = 2"
    ):
        build_linspace(Space(2), spacing=["log"])
    with pytest.raises(GridError, match=r"grid\.count is 0"):
        build_linspace(Space(2), [3, 0])


def test_built_from_axes():
    grid = ProductGrid((Axis(0.0, 1.0, 2), Axis(1.0, 100.0, 3, "log")))
    expected = torch.tensor([[a, b] for a in (0.0, 1.0) for b in (1.0, 10.0, 100.0)]).double()
    assert torch.allclose(grid[:], expected, rtol=1e-15)
