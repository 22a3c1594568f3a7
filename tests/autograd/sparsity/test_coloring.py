"""Colourings against a checker that knows only their definitions, and against known numbers."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.autograd.pattern import Pattern
from pipeline.autograd.sparsity import coloring
from pipeline.autograd.sparsity.coloring import (
    color_acyclic,
    color_both,
    color_columns,
    color_rows,
    color_star,
    transposed,
)


def of_dense(matrix):
    return Pattern.of_flat(matrix.flatten().nonzero()[:, 0], tuple(matrix.shape))


def band(n, width, m=None):
    i, j = torch.arange(m or n)[:, None], torch.arange(n)
    return of_dense((i - j).abs() <= width)


def arrow(n):
    matrix = torch.eye(n, dtype=torch.bool)
    matrix[0], matrix[:, 0] = True, True
    return of_dense(matrix)


def five_points(rows, columns):
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    i, j = i.flatten(), j.flatten()
    return of_dense((i[:, None] - i).abs() + (j[:, None] - j).abs() <= 1)


def entries(pattern):
    return list(zip(pattern.rows.tolist(), pattern.columns.tolist(), strict=True))


def neighbours(pattern):
    near = {vertex: set() for vertex in range(pattern.shape[1])}
    for row, column in entries(pattern):
        if row != column:
            near[row].add(column)
    return near


def is_column_coloring(pattern, colors):
    seen = {}
    return all(
        seen.setdefault((row, colors[column]), column) == column for row, column in entries(pattern)
    )


def is_proper(pattern, colors):
    return all(colors[row] != colors[column] for row, column in entries(pattern) if row != column)


def is_star_coloring(pattern, colors):
    """Every path over four vertices has three colours."""
    near = neighbours(pattern)
    for b, c in entries(pattern):
        for a, d in itertools.product(near[b] - {c}, near[c] - {b}):
            if b != c and a != d and colors[a] == colors[c] and colors[b] == colors[d]:
                return False
    return is_proper(pattern, colors)


def is_acyclic_coloring(pattern, colors):
    """Two colours induce no cycle: leaves are taken off until nothing is left."""
    for pair in itertools.combinations(sorted(set(colors)), 2):
        near = {
            vertex: {other for other in others if colors[other] in pair}
            for vertex, others in neighbours(pattern).items()
            if colors[vertex] in pair
        }
        while leaves := [vertex for vertex, others in near.items() if len(others) <= 1]:
            for leaf in leaves:
                for other in near.pop(leaf):
                    if other in near:
                        near[other].discard(leaf)
        if near:
            return False
    return is_proper(pattern, colors)


def tells_all(pattern, columns, rows):
    """Every entry is the only one of its row in its column's colour, or of its column in its row's."""
    for row, column in entries(pattern):
        same = sum(r == row and columns[c] == columns[column] for r, c in entries(pattern))
        down = sum(c == column and rows[r] == rows[row] for r, c in entries(pattern))
        if not ((columns[column] >= 0 and same == 1) or (rows[row] >= 0 and down == 1)):
            return False
    return True


def count(colors):
    return int(colors.max()) + 1


PATTERNS = {
    "tridiagonal": band(20, 1),
    "wide band": band(30, 3),
    "arrow": arrow(15),
    "five points": five_points(6, 7),
    "dense": of_dense(torch.ones(5, 5)),
    "diagonal": of_dense(torch.eye(6)),
    "empty": Pattern.of_flat(torch.zeros(0, dtype=torch.int64), (4, 4)),
    "cycle": of_dense(
        torch.eye(9) + torch.roll(torch.eye(9), 1, 0) + torch.roll(torch.eye(9), -1, 0)
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_colorings_of_symmetric_patterns(name):
    pattern = PATTERNS[name]
    assert is_column_coloring(pattern, color_columns(pattern).tolist())
    assert is_star_coloring(pattern, color_star(pattern).tolist())
    assert is_acyclic_coloring(pattern, color_acyclic(pattern).tolist())
    columns, rows = color_both(pattern)
    assert tells_all(pattern, columns.tolist(), rows.tolist())


@pytest.mark.parametrize("width", [1, 2, 5])
def test_bands_take_as_many_colors_as_they_are_wide(width):
    """Curtis, Powell & Reid 1974: columns a band's width apart go together."""
    assert count(color_columns(band(40, width))) == 2 * width + 1
    assert count(color_rows(band(40, width, m=33))) == 2 * width + 1


def test_known_numbers_of_colors():
    # a path over four vertices or more: star chromatic number 3, acyclic 2 (it has no cycle);
    # a cycle over five: star 4, over others 3 (Fertin, Raspaud & Reed 2004)
    assert count(color_star(band(50, 1))) == 3
    assert count(color_acyclic(band(50, 1))) == 2
    ring = torch.eye(9) + torch.roll(torch.eye(9), 1, 0) + torch.roll(torch.eye(9), -1, 0)
    assert count(color_star(of_dense(ring))) == 3
    assert count(color_acyclic(of_dense(ring))) == 3
    # Coleman & Moré 1984: an arrow takes n column groups, 2 where symmetry is used
    assert count(color_columns(arrow(30))) == 30
    assert count(color_star(arrow(30))) == 2
    # Gebremedhin, Manne & Pothen 2005: one row, one column and the diagonal, from both sides
    columns, rows = color_both(arrow(30))
    assert count(columns) + count(rows) <= 3
    # five-point stencils: 5 by columns (Goldfarb & Toint 1984)
    assert 5 <= count(color_columns(five_points(10, 10))) <= 6
    assert count(color_star(five_points(10, 10))) <= 6


def test_two_species_on_a_periodic_grid_take_ten_colors():
    """No more than the 12 that a greedy choice takes in natural order, no fewer than a row has."""
    i, j = torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij")
    near = [(i, j), ((i + 1) % 10, j), ((i - 1) % 10, j), (i, (j + 1) % 10), (i, (j - 1) % 10)]
    matrix = torch.zeros(200, 200, dtype=torch.bool)
    here = (i * 10 + j).flatten()
    for a, b in near:
        there = (a * 10 + b).flatten()
        matrix[here, there], matrix[here + 100, there + 100] = True, True
    matrix[here, here + 100], matrix[here + 100, here] = True, True
    assert 6 <= count(color_columns(of_dense(matrix))) <= 10


def test_dense_rows_do_not_spoil_the_columns_of_rectangular_matrices():
    matrix = torch.cat([torch.ones(2, 12), torch.eye(12).repeat(2, 1)])
    columns, rows = color_both(of_dense(matrix))
    assert (count(columns), count(rows)) == (1, 2)
    assert tells_all(of_dense(matrix), columns.tolist(), rows.tolist())


def test_transposed_patterns():
    pattern = of_dense(torch.tensor([[1, 0, 1], [0, 1, 0]]))
    assert entries(transposed(pattern)) == [(0, 0), (1, 1), (2, 0)]


matrices = st.tuples(st.integers(1, 8), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(
        st.lists(st.booleans(), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_colorings_of_any_matrix(rows):
    matrix = torch.tensor(rows)
    pattern = of_dense(matrix)
    assert is_column_coloring(pattern, color_columns(pattern).tolist())
    assert is_column_coloring(transposed(pattern), color_rows(pattern).tolist())
    both = color_both(pattern)
    assert tells_all(pattern, *(colors.tolist() for colors in both))
    size = min(matrix.shape)
    symmetric = of_dense(matrix[:size, :size] | matrix[:size, :size].T)
    assert is_star_coloring(symmetric, color_star(symmetric).tolist())
    assert is_acyclic_coloring(symmetric, color_acyclic(symmetric).tolist())


def test_orders_that_would_take_too_long_are_left_out(monkeypatch):
    monkeypatch.setattr(coloring, "MOST_STEPS", 10)
    assert is_star_coloring(five_points(4, 5), color_star(five_points(4, 5)).tolist())
