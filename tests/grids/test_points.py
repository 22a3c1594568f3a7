"""Points given one by one."""

import numpy as np
import pytest
import torch

from pipeline.errors import GridError
from pipeline.functions.parameters import bind, parameters_of
from pipeline.functions.record import AnySize
from pipeline.grids.kind import Space
from pipeline.grids.points import PointsGrid, build_points

ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]]


@pytest.mark.parametrize(
    "points",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        np.array(ROWS),
        np.array(ROWS)[::-1][::-1],
        np.array(ROWS).astype(">f8"),
        np.array(ROWS, order="F"),
        torch.tensor(ROWS),
        torch.tensor(ROWS, dtype=torch.float64, requires_grad=True),
    ],
)
def test_what_may_be_given(points):
    grid = PointsGrid(points)
    assert (len(grid), grid.n) == (3, 2)
    assert grid[:].tolist() == ROWS
    assert not grid[:].requires_grad
    assert grid.spec == PointsGrid(ROWS).spec


def test_a_read_only_array_and_integers():
    array = np.arange(6).reshape(2, 3)
    array.flags.writeable = False
    assert PointsGrid(array)[:].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert PointsGrid(torch.arange(6).reshape(2, 3))[1:].tolist() == [[3.0, 4.0, 5.0]]


def test_a_slice_can_be_written_to():
    points = torch.tensor(ROWS, dtype=torch.float64)
    grid = PointsGrid(points)
    grid[0:2].zero_()
    assert points.tolist() == ROWS


def test_the_kind_takes_lists_and_chooses_n():
    options, faults = bind(parameters_of(build_points, "points"), {"values": [[1, 2], [3, 4]]}, "g")
    assert not faults
    grid = build_points(Space(AnySize(5)), **options)
    assert (len(grid), grid.n) == (2, 2)
    assert build_points(Space(2), **options)[:].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([1.0, 2.0], r"expected shape \(N, n\), got \(2,\); a single point p is given as \[p\]"),
        (torch.zeros(2, 3, 4), r"expected shape \(N, n\), got \(2, 3, 4\)"),
        (torch.zeros(0, 3), r"at least one point of at least one input, got shape \(0, 3\)"),
        (torch.zeros(3, 0), r"at least one point of at least one input, got shape \(3, 0\)"),
        ([[1.0, 2.0], [3.0]], "the rows differ in length"),
        ([["a", "b"]], "expected real numbers, got an array of <U1"),
        ([[True, False]], "expected real numbers, got an array of bool"),
        (torch.zeros(2, 2, dtype=torch.bool), "expected real numbers, got torch.bool"),
        (torch.zeros(2, 2, dtype=torch.complex64), "expected real numbers, got torch.complex64"),
        ([[0.0, 1.0], [2.0, np.nan], [np.inf, 1.0]], r"row 1 \(counted from 0\) is \[2.0, nan\]"),
    ],
)
def test_refused_points(points, message):
    with pytest.raises(GridError, match=message):
        PointsGrid(points)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), r"at least one point, grid\.values is empty; give grid\.values=\[\["),
        (
            ((1.0, 2.0), (3.0,)),
            r"grid\.values: row 1 \(counted from 0\) has 1 numbers, row 0 has 2",
        ),
        (
            ((1.0, 2.0, 3.0),),
            r"each row of grid\.values has 3 numbers but the function takes n = 2",
        ),
        (((1.0, float("inf")),), r"row 0 \(counted from 0\) is \[1.0, inf\]"),
    ],
)
def test_refused_values(values, message):
    with pytest.raises(GridError, match=message):
        build_points(Space(2), values)
    with pytest.raises(GridError, match=r"row of grid\.values has 0 numbers; a point has at least"):
        build_points(Space(AnySize()), ((),))
